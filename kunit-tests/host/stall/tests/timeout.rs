// SPDX-License-Identifier: GPL-2.0

//! The timeout that a hardware watchdog is given for a restart.

use core::ops::RangeInclusive;
use nullhz_stall_host::timeout::set_longest;
use proptest::prelude::*;

/// A device as the watchdog core knows it, and how often it was asked.
struct Device {
    range: RangeInclusive<u32>,
    timeout: u32,
    asked: u32,
}

impl Device {
    fn new(range: RangeInclusive<u32>, timeout: u32) -> Self {
        Device {
            range,
            timeout,
            asked: 0,
        }
    }

    fn for_restart(&mut self, wanted: u32) -> Option<u32> {
        let own = self.timeout;
        let set = |timeout| {
            self.asked += 1;
            let known = self.range.contains(&timeout);
            if known {
                self.timeout = timeout;
            }
            Ok::<_, ()>(known)
        };
        set_longest(wanted, own, set).unwrap()
    }
}

#[test]
fn ranges_of_real_devices() {
    // w83627hf, iTCO, i6300esb, and one that counts in minutes.
    for (range, wanted, given) in [
        (1..=255, 60, 60),
        (1..=255, 255, 255),
        (1..=255, 256, 255),
        (1..=255, 3600, 255),
        (4..=613, 3600, 613),
        (1..=2046, 3600, 2046),
        // Too short for it: not shorter than what it has.
        (60..=3600, 20, 60),
    ] {
        let mut device = Device::new(range, if wanted < 60 { 60 } else { 10 });
        assert_eq!(device.for_restart(wanted), Some(given));
        assert_eq!(device.timeout, given);
    }
}

#[test]
fn one_that_takes_nothing_is_told_apart() {
    #[allow(clippy::reversed_empty_ranges)]
    let mut device = Device::new(1..=0, 10);
    assert_eq!(device.for_restart(3600), None);
    assert_eq!(device.for_restart(5), None);
    assert_eq!(device.timeout, 10);
    assert_eq!(
        set_longest(60, 10, |_| Err::<bool, _>("broken")),
        Err("broken")
    );
}

proptest! {
    #[test]
    fn the_longest_in_range(
        (min, max, own) in (1..=4000u32)
            .prop_flat_map(|max| (1..=max, Just(max)))
            .prop_flat_map(|(min, max)| (Just(min), Just(max), min..=max)),
        wanted in 1..=3600u32,
    ) {
        let mut device = Device::new(min..=max, own);
        let given = device.for_restart(wanted);
        let best = if wanted < min { own } else { wanted.min(max) };
        prop_assert_eq!(given, Some(best));
        prop_assert_eq!(device.timeout, best);
        // Each question restarts its timer by way of the hardware.
        prop_assert!(device.asked <= 14);
    }
}
