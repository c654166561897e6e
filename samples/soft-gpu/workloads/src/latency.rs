// SPDX-License-Identifier: GPL-2.0

//! Distributions of latencies: every sample is kept, nothing is averaged away.

use serde::Serialize;
use std::time::Instant;

/// Samples of one kind of operation, in ns.
#[derive(Default)]
pub struct Samples(Vec<u64>);

/// What is printed of [`Samples`], in ns; percentiles by nearest rank.
#[derive(Serialize)]
pub struct Distribution {
    count: usize,
    min: u64,
    p25: u64,
    p50: u64,
    p75: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

/// Runs `operation`; returns how long it took as well, in ns.
pub fn time<T>(operation: impl FnOnce() -> T) -> (T, u64) {
    let begun = Instant::now();
    let result = operation();
    let elapsed = begun.elapsed().as_nanos();
    (result, u64::try_from(elapsed).unwrap_or(u64::MAX))
}

impl Samples {
    /// Runs `operation` and notes how long it took.
    pub fn time<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let (result, ns) = time(operation);
        self.add(ns);
        result
    }

    /// Notes how long an operation took.
    pub fn add(&mut self, ns: u64) {
        self.0.push(ns);
    }

    /// Adds the samples of another thread.
    pub fn join(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// The distribution; all zero without samples.
    pub fn distribution(mut self) -> Distribution {
        self.0.sort_unstable();
        let rank = |percent: usize| {
            let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
            self.0.get(index).copied().unwrap_or(0)
        };
        Distribution {
            count: self.0.len(),
            min: rank(0),
            p25: rank(25),
            p50: rank(50),
            p75: rank(75),
            p90: rank(90),
            p99: rank(99),
            max: rank(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let shown = Samples((1..=200).rev().collect()).distribution();
        assert_eq!(
            (
                shown.count,
                shown.min,
                shown.p50,
                shown.p90,
                shown.p99,
                shown.max
            ),
            (200, 1, 100, 180, 198, 200)
        );
    }

    #[test]
    fn nothing_was_timed() {
        assert_eq!(Samples::default().distribution().max, 0);
    }
}
