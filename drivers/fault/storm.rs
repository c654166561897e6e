// SPDX-License-Identifier: GPL-2.0

//! Keeps a storm from flooding the ring. Pure logic.
//!
//! An event that only joins an incident tells the acknowledger nothing new, but would push other
//! records out of the ring and wake every reader. So each source has an allowance of such events
//! per second; those beyond it are added up, and the sum is put on the ring now and then.

use core::mem::take;

/// Joining events that a source may put on the ring in [`WINDOW_NS`].
pub const ALLOWANCE: u32 = 16;
/// The span, in ns, that the allowance is for.
pub const WINDOW_NS: u64 = 1_000_000_000;
/// How long, in ns, a sum is added to before it is put on the ring.
pub const SUM_NS: u64 = 100_000_000;

/// One source's allowance and sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    window_ns: u64,
    used: u32,
    incident: u64,
    sum: u32,
    since_ns: u64,
}

/// A sum to be put on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The incident that the occurrences joined.
    pub incident: u64,
    /// How many occurrences.
    pub count: u32,
}

impl Storm {
    /// Calm.
    pub const NONE: Self = Self {
        window_ns: 0,
        used: 0,
        incident: 0,
        sum: 0,
        since_ns: 0,
    };

    /// Whether an event at `now` may have a record of its own.
    pub fn admit(&mut self, now: u64) -> bool {
        if self.used == 0 || now.saturating_sub(self.window_ns) >= WINDOW_NS {
            self.window_ns = now;
            self.used = 0;
        }
        if self.used >= ALLOWANCE {
            return false;
        }
        self.used = self.used.saturating_add(1);
        true
    }

    /// Adds `count` occurrences that joined `incident`.
    ///
    /// A sum is of one incident and fits into a record; what cannot be added to any more is handed
    /// back, to be put on the ring at once.
    pub fn add(&mut self, incident: u64, count: u32, now: u64) -> Option<Sum> {
        if self.incident == incident {
            if let Some(sum) = self.sum.checked_add(count) {
                if self.sum == 0 {
                    self.since_ns = now;
                }
                self.sum = sum;
                return None;
            }
        }
        let full = self.take();
        self.incident = incident;
        self.sum = count;
        self.since_ns = now;
        full
    }

    /// When the sum is to be put on the ring; [`None`] when there is none.
    pub fn due(&self) -> Option<u64> {
        (self.sum != 0).then(|| self.since_ns.saturating_add(SUM_NS))
    }

    /// Takes the sum.
    pub fn take(&mut self) -> Option<Sum> {
        let count = take(&mut self.sum);
        (count != 0).then_some(Sum {
            incident: self.incident,
            count,
        })
    }
}
