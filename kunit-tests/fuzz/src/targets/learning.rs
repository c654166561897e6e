// SPDX-License-Identifier: GPL-2.0

//! What is learned from intervals, and the clock that they are measured with.

use crate::input::Input;
use nullhz_stall_host::clock::{Clock, LATE_PERIODS};
use nullhz_stall_host::quantile::{Longest, Quantiles, WINDOW};

const DAY: u64 = 24 * 3600 * 1_000_000_000;
/// Longer ones are in the last bin.
const LIMIT: u64 = 1 << 42;

fn quantiles(input: &mut Input<'_>) {
    let mut quantiles = Quantiles::EMPTY;
    let mut exact: Vec<u64> = Vec::new();
    while !input.is_empty() {
        let ns = input.extreme();
        // Some thousand at once, or the window is never full.
        let times = 1 << input.below(14);
        for _ in 0..times {
            quantiles.add(ns);
        }
        if exact.len() + times >= 2 * WINDOW as usize {
            return;
        }
        exact.extend(std::iter::repeat_n(ns, times));
        exact.sort_unstable();
        let (typical, rare) = (quantiles.typical(), quantiles.rare());
        assert!(typical <= rare);
        if *exact.last().unwrap() >= LIMIT {
            continue;
        }
        let near = |told: u64, exact: u64| told > exact && told <= exact + exact / 16 + (2 << 20);
        if exact.len() < WINDOW as usize {
            let nth = |part: usize| exact[exact.len() - exact.len() / part - 1];
            assert!(near(typical, nth(10)), "{typical} for {}", nth(10));
            assert!(near(rare, nth(1000)), "{rare} for {}", nth(1000));
        } else {
            assert!(
                typical > exact[0]
                    && near(rare.max(exact[exact.len() - 1] + 1), exact[exact.len() - 1])
            );
        }
    }
}

fn longest(input: &mut Input<'_>) {
    let mut longest = Longest::EMPTY;
    let mut all: Vec<(u64, u64)> = Vec::new();
    let mut now = 0u64;
    while !input.is_empty() {
        now = now.saturating_add(DAY / 16 * input.below(40));
        let ns = input.extreme();
        longest.add(now, ns);
        all.push((now, ns));
        let within = |days: u64| {
            let young = |&&(time, _): &&(u64, u64)| now - time < days * DAY;
            all.iter().filter(young).map(|(_, ns)| *ns).max().unwrap()
        };
        assert!(longest.get() >= within(7) && longest.get() <= within(8));
    }
}

fn clock(input: &mut Input<'_>) {
    let period = input.extreme();
    let mut newest = input.extreme();
    let begun = newest;
    let mut clock = Clock::new(newest, period);
    let (mut gaps, mut sampled) = (0u32, newest);
    while !input.is_empty() {
        let monotonic = match input.below(3) {
            0 => input.extreme(),
            _ => newest.saturating_add(input.u32().into()),
        };
        let passed = monotonic.saturating_sub(newest);
        let between = clock.at(monotonic);
        let look = clock.look(monotonic);
        let late = passed > period.saturating_mul(LATE_PERIODS);
        gaps = gaps.wrapping_add(late.into());
        newest = newest.max(monotonic);
        assert_eq!(look.late_ns.is_some(), late);
        assert_eq!(look.gaps, gaps);
        // Time never goes back, and a gap counts as one period.
        assert_eq!(look.now, sampled + if late { period } else { passed });
        assert!(look.half_ns <= period / 2 && look.half_ns <= passed / 2);
        assert!(between >= sampled && (late || between == look.now));
        sampled = look.now;
        assert!(sampled - begun <= newest - begun);
    }
}

pub(super) fn learning(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    match input.below(3) {
        0 => quantiles(input),
        1 => longest(input),
        _ => clock(input),
    }
}
