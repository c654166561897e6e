// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mce_decoding)]
mod tests {
    use crate::decode::location::locate;
    use crate::decode::mcacod::Code;
    use crate::decode::record::{Record, Vendor, VAL};
    use crate::decode::smca::bank_type;
    use crate::decode::text::{Flags, Origin, Summary};
    use crate::vectors::VECTORS;
    use core::fmt::Write as _;

    /// Compares what is written to it with a text.
    struct Expect<'a> {
        rest: &'a str,
        equal: bool,
    }

    impl core::fmt::Write for Expect<'_> {
        fn write_str(&mut self, part: &str) -> core::fmt::Result {
            match self.rest.strip_prefix(part) {
                Some(rest) => self.rest = rest,
                None => self.equal = false,
            }
            Ok(())
        }
    }

    #[test]
    fn vectors_in_words() {
        for vector in VECTORS {
            let mut expect = Expect {
                rest: vector.summary,
                equal: true,
            };
            assert!(write!(expect, "{}", Summary(&vector.record)).is_ok());
            assert!(expect.equal && expect.rest.is_empty());
        }
    }

    /// Throws away what is written to it, and counts it.
    struct Length(usize);

    impl core::fmt::Write for Length {
        fn write_str(&mut self, part: &str) -> core::fmt::Result {
            self.0 += part.len();
            Ok(())
        }
    }

    fn can_be_read(record: &Record) {
        let mut length = Length(0);
        assert!(write!(
            length,
            "{}{}{}",
            Flags(record),
            Origin(record),
            Summary(record)
        )
        .is_ok());
        assert!(length.0 > 0);
        if let Some(place) = locate(record) {
            assert!(place.part_key(record.socketid, record.bank) != 0);
        }
    }

    #[test]
    fn every_error_code() {
        for cpuvendor in [0, 2, 9, 10] {
            for code in 0..=u16::MAX {
                can_be_read(&Record {
                    status: VAL | u64::from(code),
                    cpuvendor,
                    cpuid: 0x606a6,
                    bank: (code % 28) as u8,
                    ..Record::default()
                });
            }
        }
        assert!(matches!(
            Code::decode(0x0092, Vendor::Intel),
            Code::Memory(_, Some(2))
        ));
    }

    #[test]
    fn every_smca_bank_type() {
        let mut types = 0;
        for hwid in 0..0x1000u64 {
            for mca_type in [0, 1, 2, 3, 4, 5, 6, 7, 0x10u64] {
                let mut record = Record {
                    status: VAL,
                    ipid: mca_type << 48 | hwid << 32 | 1,
                    cpuvendor: 2,
                    cpuid: 0xa10f11,
                    ..Record::default()
                };
                if bank_type(&record).is_none() {
                    continue;
                }
                types += 1;
                for extended in 0..64 {
                    record.status = VAL | extended << 16;
                    can_be_read(&record);
                }
            }
        }
        assert_eq!(types, 47);
    }
}
