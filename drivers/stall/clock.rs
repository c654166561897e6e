// SPDX-License-Identifier: GPL-2.0

//! The sampler's time: `CLOCK_MONOTONIC` without the gaps in which the sampler itself did not run.
//!
//! What a rank did while nobody looked is not known, so such a gap must not count against it: not
//! a virtual machine that was paused, not a sampler that was starved, not a clock that jumped.
//! Ranks, their stalls and their grace are all measured in this time. Pure logic.

/// A gap of more than so many periods is the sampler's own.
pub const LATE_PERIODS: u64 = 10;

/// The sampler's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    period_ns: u64,
    /// `CLOCK_MONOTONIC` of the last look.
    last_ns: u64,
    /// What has been left out so far.
    lost_ns: u64,
    gaps: u32,
}

/// One look of the sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The sampler's time, ns.
    pub now: u64,
    /// Half of the time since the look before, at most half a period: what is seen to have changed
    /// did so about that long ago.
    pub half_ns: u64,
    /// How often there was a gap before: an interval with a gap in it teaches nothing.
    pub gaps: u32,
    /// For how long the sampler was held up, ns, when it was.
    pub late_ns: Option<u64>,
}

impl Clock {
    /// A sampler that looks every `period_ns`, from `monotonic_ns` on.
    pub const fn new(monotonic_ns: u64, period_ns: u64) -> Self {
        Clock {
            period_ns,
            last_ns: monotonic_ns,
            lost_ns: 0,
            gaps: 0,
        }
    }

    /// The longest time between two looks that is counted.
    const fn limit(&self) -> u64 {
        self.period_ns.saturating_mul(LATE_PERIODS)
    }

    /// The sampler looks, at `monotonic_ns`. A time before that of the last look counts as that.
    pub fn look(&mut self, monotonic_ns: u64) -> Look {
        let passed = monotonic_ns.saturating_sub(self.last_ns);
        let late_ns = (passed > self.limit()).then(|| passed.saturating_sub(self.period_ns));
        if let Some(late) = late_ns {
            self.lost_ns = self.lost_ns.saturating_add(late);
            self.gaps = self.gaps.wrapping_add(1);
        }
        self.last_ns = self.last_ns.max(monotonic_ns);
        Look {
            now: self.last_ns.saturating_sub(self.lost_ns),
            half_ns: passed.min(self.period_ns) / 2,
            gaps: self.gaps,
            late_ns,
        }
    }

    /// The sampler's time at `monotonic_ns`, between two looks.
    pub fn at(&self, monotonic_ns: u64) -> u64 {
        let passed = monotonic_ns.saturating_sub(self.last_ns);
        self.last_ns
            .saturating_sub(self.lost_ns)
            .saturating_add(passed.min(self.limit()))
    }
}
