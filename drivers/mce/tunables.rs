// SPDX-License-Identifier: GPL-2.0

//! What can be set while the module runs, and what it has counted.

use crate::decode::severity::Grade;
use crate::predict::Thresholds;
use kernel::sync::atomic::{Atomic, Relaxed};

macro_rules! tunables {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The thresholds, each one of its own: whoever changes two of them is seen in between.
        pub(crate) struct Tunables {
            $($(#[$doc])* pub(crate) $name: Atomic<u32>,)*
        }

        impl Tunables {
            /// The defaults.
            pub(crate) const fn new() -> Self {
                Tunables {
                    $($name: Atomic::new(Thresholds::DEFAULT.$name),)*
                }
            }

            /// What is set now.
            pub(crate) fn thresholds(&self) -> Thresholds {
                Thresholds {
                    $($name: self.$name.load(Relaxed),)*
                }
            }
        }
    };
}

tunables! {
    page,
    dimm,
    bank,
    socket,
    window_s,
    storm,
    storm_window_s,
    columns,
    overflow,
    parity,
    escalate,
}

/// A number of events since the module was loaded.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Counter(Atomic::new(0))
    }

    /// Counts `n` more. Any context, NMI included.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What the module has counted since it was loaded.
///
/// Every record that the machine-check code let through is in `records` or in [`Counters::lost`].
pub(crate) struct Counters {
    /// Records that were graded, judged and reported.
    pub(crate) records: Counter,
    /// The same by grade.
    pub(crate) grades: [Counter; Grade::COUNT],
    /// Records from before the module was loaded.
    pub(crate) boot: Counter,
    /// Of those, the ones that the kernel had no room to keep.
    pub(crate) boot_lost: Counter,
    /// Uncorrected on paper, but without an error.
    pub(crate) spurious: Counter,
    /// Records that found all slots full.
    pub(crate) dropped: Counter,
    /// Of those, the ones that came in by the decode chain.
    pub(crate) repaired: Counter,
    /// Buckets that were given up while they still held something.
    pub(crate) evicted: Counter,
    /// Records that the bus refused.
    pub(crate) refused: Counter,
}

impl Counters {
    /// All 0.
    pub(crate) const fn new() -> Self {
        Counters {
            records: Counter::new(),
            grades: [const { Counter::new() }; Grade::COUNT],
            boot: Counter::new(),
            boot_lost: Counter::new(),
            spurious: Counter::new(),
            dropped: Counter::new(),
            repaired: Counter::new(),
            evicted: Counter::new(),
            refused: Counter::new(),
        }
    }

    /// Counts a record of `grade`.
    pub(crate) fn count(&self, grade: Grade) {
        self.records.add(1);
        if let Some(counter) = self.grades.get(grade as usize) {
            counter.add(1);
        }
    }

    /// How many records have `grade`.
    pub(crate) fn of(&self, grade: Grade) -> u64 {
        self.grades.get(grade as usize).map_or(0, Counter::get)
    }

    /// Records that neither the slots nor the decode chain brought, up to those that are on their
    /// way through the chain.
    pub(crate) fn lost(&self) -> u64 {
        // In this order: what is repaired was dropped before.
        let repaired = self.repaired.get();
        self.dropped.get().saturating_sub(repaired)
    }
}
