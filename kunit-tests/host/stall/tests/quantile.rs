// SPDX-License-Identifier: GPL-2.0

//! Quantiles against sorted values, and the longest value against a list.

use nullhz_stall_host::quantile::{Longest, Quantiles, WINDOW};
use proptest::{collection::vec, prelude::*};

const MS: u64 = 1_000_000;
const DAY: u64 = 86_400_000 * MS;

/// Value number `len - len / whole` of the sorted `values`.
fn exact(values: &[u64], whole: usize) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() - values.len() / whole - 1]
}

fn close(estimate: u64, exact: u64) -> bool {
    exact <= estimate && estimate <= exact + exact / 16 + 2 * MS
}

/// Step times of all orders of magnitude up to 73 minutes, with many that are alike.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 900 * MS..1_100 * MS,
        1 => (0u32..42).prop_flat_map(|bits| 0..1u64 << bits),
    ]
}

proptest! {
    #[test]
    fn quantiles_of_a_window(values in vec(value(), 1..2 * WINDOW as usize / 3)) {
        let mut quantiles = Quantiles::EMPTY;
        for (n, ns) in values.iter().enumerate() {
            quantiles.add(*ns);
            if n % 97 == 0 || n + 1 == values.len() {
                let seen = &values[..=n];
                prop_assert!(close(quantiles.typical(), exact(seen, 10)));
                prop_assert!(close(quantiles.rare(), exact(seen, 1000)));
            }
        }
    }

    #[test]
    fn any_value_is_fine(values in vec(any::<u64>(), 1..100)) {
        let mut quantiles = Quantiles::EMPTY;
        for ns in values {
            quantiles.add(ns);
            prop_assert!(quantiles.typical() <= quantiles.rare());
            prop_assert!(quantiles.rare() <= 1 << 42);
        }
    }

    #[test]
    fn the_longest_of_a_week(values in vec((0..2 * DAY, 0..1_000u64), 1..60)) {
        let mut longest = Longest::EMPTY;
        let (mut now, mut all) = (0, Vec::new());
        for (pass, ns) in values {
            now += pass;
            longest.add(now, ns);
            all.push((now, ns));
            let of = |days: u64| {
                let recent = all.iter().filter(|(at, _)| now - at < days * DAY);
                recent.map(|(_, ns)| *ns).max().unwrap()
            };
            prop_assert!(longest.get() >= of(7));
            prop_assert!(longest.get() <= of(8));
        }
    }
}

#[test]
fn what_is_no_longer_so_is_forgotten() {
    let mut quantiles = Quantiles::EMPTY;
    for _ in 0..100_000 {
        quantiles.add(10_000 * MS);
    }
    // Half of the window later most values are new ones, and soon nearly all.
    let mut forgotten = [None; 2];
    for n in 0..20 * WINDOW {
        quantiles.add(1_000 * MS);
        let now = [quantiles.typical(), quantiles.rare()];
        for (place, quantile) in now.iter().enumerate() {
            if *quantile < 2_000 * MS {
                forgotten[place] = forgotten[place].or(Some(n));
            }
        }
    }
    assert!(forgotten[0].unwrap() < 2 * WINDOW, "{forgotten:?}");
    assert!(forgotten[1].unwrap() < 6 * WINDOW, "{forgotten:?}");
}

#[test]
fn a_tenth_of_the_window_is_a_new_normal() {
    let mut quantiles = Quantiles::EMPTY;
    for _ in 0..100_000 {
        quantiles.add(1_000 * MS);
    }
    for _ in 0..WINDOW / 9 {
        quantiles.add(3_000 * MS);
    }
    assert!(close(quantiles.typical(), 3_000 * MS));
}

#[test]
fn a_time_before_the_last_counts_as_that() {
    let mut longest = Longest::EMPTY;
    longest.add(100 * DAY, 5);
    longest.add(DAY, 7);
    assert_eq!(longest.get(), 7);
    longest.add(108 * DAY, 1);
    assert_eq!(longest.get(), 1);
}
