// SPDX-License-Identifier: GPL-2.0
//! What the agent counts and measures.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::abi::{flag, source, Event, Level};

/// Exact counts of the records read; the loop adds, the reporter reads.
#[derive(Debug)]
pub struct Counters {
    records: [[AtomicU64; Level::COUNT]; source::COUNT],
    occurrences: [[AtomicU64; Level::COUNT]; source::COUNT],
    /// Records that the bus says were missed.
    pub lost: AtomicU64,
    /// Records of a source or level that this program does not know.
    pub unknown: AtomicU64,
}

/// One line of [`Counters::by_source_and_level`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The source.
    pub source: u16,
    /// The level.
    pub level: Level,
    /// Records.
    pub records: u64,
    /// Occurrences that the records stand for.
    pub occurrences: u64,
}

impl Default for Counters {
    fn default() -> Self {
        let table = || std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)));
        Self {
            records: table(),
            occurrences: table(),
            lost: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// Counts a record. One that the bus delivers again was counted before.
    pub fn count(&self, event: &Event) {
        self.lost.fetch_add(event.lost, Ordering::Relaxed);
        if event.flags & flag::REPLAYED != 0 {
            return;
        }
        let (source, level) = (usize::from(event.source), usize::from(event.level));
        let cell = |table: &[[AtomicU64; Level::COUNT]; source::COUNT], n: u64| {
            let cell = table.get(source).and_then(|row| row.get(level));
            cell.map(|cell| cell.fetch_add(n, Ordering::Relaxed))
        };
        if cell(&self.records, 1).is_none() {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        cell(&self.occurrences, event.count.into());
    }

    /// All counts that are not 0, in order.
    pub fn by_source_and_level(&self) -> impl Iterator<Item = Count> + '_ {
        let rows = self.records.iter().zip(&self.occurrences);
        (0..)
            .zip(rows)
            .flat_map(|(source, (records, occurrences))| {
                let cells = records.iter().zip(occurrences).zip(Level::ALL);
                cells.filter_map(move |((records, occurrences), level)| {
                    let records = records.load(Ordering::Relaxed);
                    (records > 0).then(|| Count {
                        source,
                        level,
                        records,
                        occurrences: occurrences.load(Ordering::Relaxed),
                    })
                })
            })
    }
}

/// Durations: the newest [`Window::SIZE`] of them, and totals over all.
#[derive(Clone, Debug, Default)]
pub struct Window {
    newest: VecDeque<u64>,
    sum_ns: u64,
    count: u64,
    max_ns: u64,
}

/// A [`Window`] in numbers, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum_ms: f64,
    /// The newest one.
    pub last_ms: f64,
    /// Median of the window.
    pub p50_ms: f64,
    /// 99th percentile of the window.
    pub p99_ms: f64,
    /// The longest ever.
    pub max_ms: f64,
}

impl Window {
    /// How many durations percentiles are taken of.
    pub const SIZE: usize = 1024;

    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        if self.newest.len() == Self::SIZE {
            self.newest.pop_front();
        }
        self.newest.push_back(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The nearest-rank percentile of the window, ns; 0 when it is empty.
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted: Vec<_> = self.newest.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0)
    }

    /// In numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            sum_ms: ms(self.sum_ns),
            last_ms: ms(self.newest.back().copied().unwrap_or(0)),
            p50_ms: ms(self.percentile(50)),
            p99_ms: ms(self.percentile(99)),
            max_ms: ms(self.max_ns),
        }
    }
}

/// Nanoseconds as milliseconds, to the microsecond.
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut window = Window::default();
        assert_eq!(window.percentile(99), 0);
        window.add(7);
        assert_eq!((window.percentile(50), window.percentile(99)), (7, 7));
        let mut window = Window::default();
        (1..=100).rev().for_each(|n| window.add(n));
        assert_eq!(
            (
                window.percentile(50),
                window.percentile(99),
                window.percentile(100)
            ),
            (50, 99, 100)
        );
    }

    #[test]
    fn the_window_forgets_but_totals_do_not() {
        let mut window = Window::default();
        window.add(1_000_000);
        (0..Window::SIZE).for_each(|_| window.add(1000));
        assert_eq!(window.percentile(100), 1000);
        let summary = window.summary();
        assert_eq!(
            (summary.count, summary.max_ms, summary.last_ms),
            (1025, 1.0, 0.001)
        );
    }

    #[test]
    fn counts_are_exact() {
        let counters = Counters::default();
        let mce = Event {
            source: source::MCE,
            level: Level::Degrading as u8,
            count: 5,
            ..Event::ZERO
        };
        counters.count(&mce);
        counters.count(&Event { lost: 9, ..mce });
        counters.count(&Event {
            flags: flag::REPLAYED,
            ..mce
        });
        counters.count(&Event { level: 4, ..mce });
        counters.count(&Event { source: 64, ..mce });
        let counts: Vec<_> = counters.by_source_and_level().collect();
        let expected = Count {
            source: source::MCE,
            level: Level::Degrading,
            records: 2,
            occurrences: 10,
        };
        assert_eq!(counts, [expected]);
        assert_eq!(counters.lost.load(Ordering::Relaxed), 9);
        assert_eq!(counters.unknown.load(Ordering::Relaxed), 2);
    }

    proptest! {
        #[test]
        fn percentiles_are_ordered_and_real(list in prop::collection::vec(any::<u32>(), 1..200)) {
            let mut window = Window::default();
            list.iter().for_each(|ns| window.add(u64::from(*ns)));
            let (p50, p99, max) = (window.percentile(50), window.percentile(99), window.max_ns);
            prop_assert!(p50 <= p99 && p99 <= max);
            prop_assert!(list.contains(&(p50 as u32)) && list.contains(&(p99 as u32)));
            let not_above = list.iter().filter(|ns| u64::from(**ns) <= p50).count();
            prop_assert!(2 * not_above >= list.len());
        }
    }
}
