// SPDX-License-Identifier: GPL-2.0

//! The budget of resets, across boots.

use nullhz_stall_host::budget::{Ending, Ledger, Mark, Moment, REMEMBERED, STORED_SIZE, WINDOW_S};
use proptest::{collection::vec, prelude::*};

const NOW: u64 = 1_790_000_000;

/// The beginning of a boot.
fn at(loaded: u64) -> Moment {
    after(loaded, 0)
}

/// A boot that has gone on for a while.
fn after(loaded: u64, elapsed: u64) -> Moment {
    Moment { loaded, elapsed }
}

/// The next boot reads what the one before has left.
fn boot(ledger: &Ledger, now: u64, watchdog: Option<bool>) -> (Ledger, Ending) {
    let mut ledger = Ledger::decode(&ledger.encode()).unwrap();
    let ending = ledger.boot(now, watchdog);
    assert_eq!(ledger.mark(), Mark::Clean);
    (ledger, ending)
}

#[test]
fn how_a_boot_has_ended() {
    let cases = [
        (Mark::Clean, [Ending::Clean, Ending::Clean, Ending::Reset]),
        (Mark::Armed, [Ending::Reset, Ending::Unclean, Ending::Reset]),
        (Mark::Shut, [Ending::Bitten; 3]),
        (Mark::Panic, [Ending::Panic, Ending::Panic, Ending::Reset]),
        (Mark::Unloaded, [Ending::Clean; 3]),
    ];
    for (mark, endings) in cases {
        for (watchdog, ending) in [None, Some(false), Some(true)].into_iter().zip(endings) {
            let mut ledger = Ledger::EMPTY;
            ledger.set(mark);
            assert_eq!(ledger.mark(), mark);
            let (ledger, found) = boot(&ledger, NOW, watchdog);
            assert_eq!(found, ending, "{mark:?} {watchdog:?}");
            let counted = matches!(ending, Ending::Bitten | Ending::Reset);
            assert_eq!(ledger.resets(at(NOW)), counted.into());
        }
    }
}

#[test]
fn a_boot_loop_ends() {
    let mut ledger = Ledger::EMPTY;
    for n in 0..3 {
        assert!(!ledger.exhausted(at(NOW + n * 300), 3));
        ledger.set(Mark::Armed);
        ledger = boot(&ledger, NOW + n * 300, Some(true)).0;
    }
    assert!(ledger.exhausted(at(NOW + 900), 3));
    assert!(!ledger.exhausted(at(NOW + 900), 4));
    assert!(ledger.exhausted(at(NOW + 900), 0) && Ledger::EMPTY.exhausted(at(NOW), 0));
    // The first one is a day ago.
    assert!(ledger.exhausted(at(NOW + WINDOW_S - 1), 3));
    assert!(!ledger.exhausted(at(NOW + WINDOW_S), 3));
    ledger.forgive();
    assert_eq!(ledger.resets(at(NOW + 900)), 0);
}

#[test]
fn a_clock_that_goes_back_forgives_nothing() {
    let mut ledger = Ledger::EMPTY;
    ledger.set(Mark::Shut);
    // No battery: the node believes that it is 1970.
    let (mut ledger, _) = boot(&ledger, NOW, None);
    assert_eq!(ledger.resets(at(0)), 1);
    ledger.set(Mark::Shut);
    let (ledger, _) = boot(&ledger, 0, None);
    assert_eq!(ledger.resets(at(10)), 2);
}

#[test]
fn a_day_without_a_reset_ends_it_whatever_the_clock_says() {
    let mut ledger = Ledger::EMPTY;
    ledger.set(Mark::Shut);
    // Loaded when the clock is right, before it is told the time, and years ahead of what it is.
    for recorded in [NOW, 0, NOW + 1000 * WINDOW_S] {
        let (ledger, _) = boot(&ledger, recorded, None);
        for loaded in [recorded, recorded.min(NOW)] {
            assert_eq!(ledger.resets(after(loaded, WINDOW_S - 1)), 1);
            // 0 stands for none.
            assert_eq!(ledger.resets(after(loaded, WINDOW_S + 1)), 0);
        }
    }
}

fn newest(copies: &[[u8; STORED_SIZE]; 2]) -> Option<Ledger> {
    let found = copies.iter().filter_map(|copy| Ledger::decode(copy));
    found.reduce(Ledger::newer)
}

#[test]
fn a_torn_write_leaves_the_other_copy() {
    let mut copies = [[0; STORED_SIZE]; 2];
    let mut ledger = Ledger::EMPTY;
    for n in 0..20u64 {
        let before = newest(&copies);
        match n % 3 {
            0 => ledger.set(Mark::Armed),
            1 => ledger.forgive(),
            _ => drop(ledger.boot(NOW + n, None)),
        }
        let stored = ledger.encode();
        for torn in 0..STORED_SIZE {
            let mut reset = copies;
            reset[ledger.copy()][..torn].copy_from_slice(&stored[..torn]);
            let found = newest(&reset);
            assert!(found == before || found == Some(ledger), "{torn} bytes");
        }
        copies[ledger.copy()] = stored;
        assert_eq!(newest(&copies), Some(ledger));
    }
}

/// The bytes of a ledger that has been written so often.
fn numbered(number: u64) -> [u8; STORED_SIZE] {
    let mut bytes = Ledger::EMPTY.encode();
    bytes[16..24].copy_from_slice(&number.to_ne_bytes());
    let crc = bytes[16..].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    bytes[12..16].copy_from_slice(&(!crc).to_ne_bytes());
    bytes
}

#[test]
fn nothing_is_newer_for_ever() {
    let mut newest = Ledger::decode(&numbered((1 << 63) - 1)).unwrap();
    let older = newest;
    newest.set(Mark::Armed);
    assert_eq!(older.newer(newest), newest);
    assert_ne!(older.copy(), newest.copy());
    for number in [1 << 63, u64::MAX] {
        assert_eq!(Ledger::decode(&numbered(number)), None);
    }
}

#[test]
fn a_budget_has_an_end() {
    let mut ledger = Ledger::EMPTY;
    for n in 0..100 {
        ledger.set(Mark::Shut);
        ledger.boot(NOW + n, None);
    }
    assert_eq!(ledger.resets(at(NOW + 100)), REMEMBERED as u32);
    assert!(ledger.exhausted(at(NOW + 100), u32::MAX));
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(
        marks in vec((0..5usize, 0..u64::MAX, any::<Option<bool>>()), 0..40),
        flip in 0..STORED_SIZE * 8,
    ) {
        let all = [Mark::Clean, Mark::Armed, Mark::Shut, Mark::Panic, Mark::Unloaded];
        let mut ledger = Ledger::EMPTY;
        for (mark, now, watchdog) in marks {
            ledger.set(all[mark]);
            ledger.boot(now, watchdog);
        }
        let mut stored = ledger.encode();
        prop_assert_eq!(Ledger::decode(&stored), Some(ledger));
        prop_assert_eq!(Ledger::decode(&stored[..STORED_SIZE - 1]), None);
        stored[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(Ledger::decode(&stored), None);
    }

    #[test]
    fn random_memory_is_no_ledger(bytes in vec(any::<u8>(), 0..2 * STORED_SIZE)) {
        prop_assert_eq!(Ledger::decode(&bytes), None);
    }
}
