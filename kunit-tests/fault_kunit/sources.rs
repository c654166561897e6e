// SPDX-License-Identifier: GPL-2.0

//! The suite of the functions for sources, with the bus that is loaded.

use crate::fault::{abi, Level, Report, Source};
use kernel::{ffi::c_int, prelude::*};

extern "C" {
    /// 0, or the number of the line in `c_source.c` that found something wrong.
    fn nullhz_fault_kunit_c() -> c_int;
}

/// A source id that nothing else uses.
const ID: u16 = abi::source::MAX;

#[kunit_tests(nullhz_fault_sources)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_registered_once() -> Result {
        let first = Source::register(ID, c"kunit")?;
        assert_eq!(Source::register(ID, c"kunit2").err(), Some(EBUSY));
        let other = Source::register(ID - 1, c"kunit2")?;
        drop(first);
        let again = Source::register(ID, c"kunit")?;
        drop((other, again));
        Ok(())
    }

    #[test]
    fn bad_ids_and_names_are_refused() {
        for id in [abi::source::BUS, abi::source::MAX + 1, u16::MAX] {
            assert_eq!(Source::register(id, c"kunit").err(), Some(EINVAL));
        }
        let too_long = c"a name of thirty-two characters.";
        for name in [c"", c"two words", c"tab\t", c"\xff", too_long] {
            assert_eq!(Source::register(ID, name).err(), Some(EINVAL));
        }
    }

    #[test]
    fn bad_reports_are_refused() -> Result {
        let source = Source::register(ID, c"kunit")?;
        let good = Report {
            payload: &[0; abi::PAYLOAD_SIZE],
            flags: abi::flag::INJECTED,
            ..Report::new(Level::Watch)
        };
        assert!(source.report(&good).is_ok());
        for bad in [
            Report { count: 0, ..good },
            Report { count: 2, ..good },
            Report {
                flags: abi::flag::OPENED,
                ..good
            },
            Report {
                flags: abi::flag::PREVIOUS_BOOT,
                ..good
            },
            Report {
                cpu: Some(u32::MAX),
                ..good
            },
            Report {
                payload: &[0; abi::PAYLOAD_SIZE + 1],
                ..good
            },
        ] {
            assert_eq!(source.report(&bad), Err(EINVAL));
            assert_eq!(source.persist(&bad), Err(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn c_sources_are_served() {
        // SAFETY: Process context; the function registers and unregisters a source of its own.
        let line = unsafe { nullhz_fault_kunit_c() };
        assert_eq!(line, 0);
    }
}
