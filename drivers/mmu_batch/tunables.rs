// SPDX-License-Identifier: GPL-2.0

//! What can be set of a device at run time, and what is counted.

use crate::gather::Limits;
use crate::spans;
use core::ops::{Range, RangeInclusive};
use kernel::sync::atomic::{Atomic, Relaxed};

/// A number within a range.
pub(crate) struct Tunable {
    value: Atomic<u32>,
    /// What it may be set to.
    pub(crate) range: RangeInclusive<u32>,
}

impl Tunable {
    const fn new(value: u32, range: RangeInclusive<u32>) -> Self {
        Self {
            value: Atomic::new(value),
            range,
        }
    }

    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.value.load(Relaxed)
    }

    /// Sets it to one that is within the range.
    pub(crate) fn set(&self, value: u32) {
        self.value.store(value, Relaxed);
    }
}

/// All of a device.
pub(crate) struct Tunables {
    /// Spans of a flush before it is one of everything.
    pub(crate) span_ceiling: Tunable,
    /// How long a leader waits for more tickets, µs; 0: not at all.
    pub(crate) combine_window_us: Tunable,
    /// How long deferred unmaps are gathered, µs; 0: not at all.
    pub(crate) gather_window_us: Tunable,
    /// Deferred unmaps that are flushed without waiting for more.
    pub(crate) gather_unmaps: Tunable,
    /// Pages of deferred unmaps that are flushed without waiting for more.
    pub(crate) gather_pages: Tunable,
    /// What a notifier watches that several intervals share, MiB; 0: none is shared.
    pub(crate) notifier_mib: Tunable,
}

/// Deferred unmaps that there is room for.
pub(crate) const GATHER_UNMAPS: u32 = 1024;

impl Tunables {
    /// The defaults.
    pub(crate) const fn new() -> Self {
        Self {
            span_ceiling: Tunable::new(16, 1..=spans::MAX as u32),
            combine_window_us: Tunable::new(0, 0..=50),
            gather_window_us: Tunable::new(100, 0..=100),
            gather_unmaps: Tunable::new(512, 1..=GATHER_UNMAPS),
            gather_pages: Tunable::new(16_384, 1..=1 << 20),
            notifier_mib: Tunable::new(512, 0..=1 << 27),
        }
    }

    /// What the notifier watches that an interval shares with others; [`None`]: it has its own.
    pub(crate) fn block_of(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let size = (self.notifier_mib.get() as usize) << 20;
        let start = range.start.checked_div(size)?.checked_mul(size)?;
        let end = start.checked_add(size)?;
        (range.end <= end).then_some(start..end)
    }

    /// When deferred unmaps are flushed.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            window_ns: u64::from(self.gather_window_us.get()) * 1_000,
            unmaps: self.gather_unmaps.get() as usize,
            pages: self.gather_pages.get().into(),
        }
    }
}

/// A number of occurrences since the device was registered.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted of a device; for flushes see [`crate::combine::Totals`].
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// All 0.
            pub(crate) const fn new() -> Self {
                Self {
                    $($name: Counter::new(),)*
                }
            }
        }
    };
}

counters! {
    /// Passes of the memory management over intervals of a space.
    events,
    /// Intervals that events have hit.
    intervals,
    /// Intervals of callbacks that found nothing live and nothing in flight.
    elided,
    /// Intervals of callbacks that found nothing live, and waited for what was in flight.
    joined,
    /// Waits that a flush of another thread has ended.
    combined,
    /// Callbacks that must not block, and would have had to.
    would_block,
    /// Callbacks that waited in the first pass, since there was no node.
    sync_flushes,
    /// Deferred unmaps that were released.
    released,
    /// Flushes that the device did not acknowledge.
    flush_errors,
    /// Resets that have succeeded.
    resets,
    /// Resets that have failed.
    reset_errors,
}
