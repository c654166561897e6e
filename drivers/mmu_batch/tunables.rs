// SPDX-License-Identifier: GPL-2.0

//! What can be set of a device at run time, and what is counted.

use crate::combine::{bucket, Round, BUCKETS};
use crate::gather::Limits;
use crate::spans;
use core::ops::RangeInclusive;
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
        }
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

    /// The same where nobody else counts at the same time.
    fn add_alone(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted of a device.
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
            tickets_per_flush: [Counter; BUCKETS],
        }

        impl Counters {
            /// All 0.
            pub(crate) const fn new() -> Self {
                Self {
                    $($name: Counter::new(),)*
                    tickets_per_flush: [const { Counter::new() }; BUCKETS],
                }
            }
        }
    };
}

counters! {
    /// Passes of the memory management over intervals of a space.
    events,
    /// Callbacks: intervals that events have hit.
    intervals,
    /// Callbacks that found nothing live and nothing in flight.
    elided,
    /// Callbacks that found nothing live, and waited for what was in flight.
    joined,
    /// Zaps that were flushed.
    tickets,
    /// Flushes.
    flushes,
    /// Those of everything.
    full_flushes,
    /// Spans of the others.
    spans,
    /// Waits that a flush of another thread has ended.
    combined,
    /// Callbacks that must not block, and would have had to.
    would_block,
    /// Callbacks that waited in the first pass, since there was no node.
    sync_flushes,
    /// Flushes that waited for more tickets.
    window_waits,
    /// Deferred unmaps that were released.
    released,
    /// Flushes that the device did not acknowledge.
    flush_errors,
    /// Resets that have succeeded.
    resets,
    /// Resets that have failed.
    reset_errors,
}

impl Counters {
    /// Counts a flush; whoever calls it has the lead.
    pub(crate) fn add_flush(&self, round: &Round) {
        self.tickets.add_alone(round.tickets);
        if let Some(counter) = self.tickets_per_flush.get(bucket(round.tickets)) {
            counter.add_alone(1);
        }
        self.flushes.add_alone(1);
        match round.spans {
            0 => self.full_flushes.add_alone(1),
            spans => self.spans.add_alone(spans as u64),
        }
        if round.windowed {
            self.window_waits.add_alone(1);
        }
    }

    /// How many flushes there were for at least 1, 2, 4, ... tickets, and less than twice as many.
    pub(crate) fn tickets_per_flush(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counters = self.tickets_per_flush.iter().enumerate();
        counters.map(|(bucket, counter)| (1 << bucket, counter.get()))
    }
}
