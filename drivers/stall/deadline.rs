// SPDX-License-Identifier: GPL-2.0

//! How long a rank may go without a sign of life. Pure logic.
//!
//! An *interval* lies between two signs of life: two changes of the rank's page. For each phase,
//! a rank's own intervals of the last week set two times:
//!
//! - The **proven** one, `max(floor, 1.5 x P99.9, 1.25 x longest)`: normal intervals are shorter.
//!   Past three quarters of it a rank is suspect, and past all of it stalled, *provided* that its
//!   thread is seen to be unable to go on (stopped, frozen, dead).
//! - The **deadline**, `max(proven, min(slack x P90, default))`: the rank is stalled, whatever its
//!   thread seems to do.
//!
//! # What this can know, and what not
//!
//! A slow interval and a stall look the same until the interval ends. Whoever has seen 100,000
//! steps of a second cannot tell the first one of ten seconds from a stall after one and a half.
//! Hence the second time: **no interval is taken for a stall that is shorter than `slack` (12)
//! times the 90th percentile of its phase, up to `default` (10 minutes)**, even if nothing like it
//! was ever seen. A slower one, the first time, is a false alarm, and the detector learns from it:
//! it then waits for up to two and a half times as long as before. With `slack` = 1 the deadline
//! is the proven one: stalls are found after 1.5 typical intervals, and every first slow step is
//! such an alarm.
//!
//! What follows from that, and has to be known:
//!
//! - A first slow interval of ten times the typical length is covered while that is less than
//!   `default`: raise `default` where steps take more than a minute.
//! - A change of the intervals' length is followed after four of them: the median of the last
//!   [`RECENT`] counts like the percentile. A slow interval among these four is measured by the
//!   old length.
//! - A slow interval, once seen, makes the proven time as long for a week.
//! - The percentiles are those of the last 4,096 to 8,192 intervals, older ones count less and
//!   less, and are up to a sixteenth too long, never too short.
//!
//! Until [`KNOWN`] intervals of a phase were seen, and always in `INIT`, both times are the
//! default. In `COMM_WAIT` they are at least those of `STEP`, since that is what is waited for.
//! A deadline that the rank has asked for stands for both.

use super::abi::{Phase, PHASES};
use super::quantile::{Longest, Quantiles};

/// Intervals of a phase that must be seen before its deadline is learned.
pub const KNOWN: u32 = 16;
/// How many of the last intervals tell of a new normal.
pub const RECENT: usize = 8;
/// No deadline is shorter, ns: the sampler sees the difference of a few periods only.
pub const SHORTEST_NS: u64 = 50_000_000;

const MS: u64 = 1_000_000;

/// What can be set while the module runs. Any value is safe; the ranges are the sensible ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Another number with every change: ranks take over the change at the next look.
    pub generation: u32,
    /// No learned deadline of `STEP` is shorter, ms, 50..3600000, unless the rank says otherwise.
    pub floor_ms: u32,
    /// No learned deadline of `CHECKPOINT` and `EVAL` is shorter, ms, 50..3600000.
    pub pause_floor_ms: u32,
    /// No learned deadline of `COMM_WAIT` is shorter, ms, 50..3600000: a peer may write a
    /// checkpoint meanwhile.
    pub wait_floor_ms: u32,
    /// The deadline where nothing is known, and the longest that is granted to the unexpected, ms,
    /// 1000..86400000.
    pub default_ms: u32,
    /// How many times as long as typical the first slow interval may be, 1..1000.
    pub slack: u32,
    /// Steps that are not learned from, 0..1000000, unless the rank says otherwise.
    pub warmup: u32,
    /// A rank is suspect after so much of its proven time, percent, 10..100.
    pub suspect_percent: u32,
    /// From STALLED to NO_ACK, ms, 0..3600000.
    pub no_ack_ms: u32,
    /// From STALLED to PREBITE, ms, 0..3600000; not before NO_ACK.
    pub bite_ms: u32,
}

impl Rules {
    /// The defaults.
    pub const DEFAULT: Self = Rules {
        generation: 0,
        floor_ms: 1_000,
        pause_floor_ms: 30_000,
        wait_floor_ms: 120_000,
        default_ms: 600_000,
        slack: 12,
        warmup: 20,
        suspect_percent: 75,
        no_ack_ms: 10_000,
        bite_ms: 60_000,
    };

    /// [`Rules::default_ms`] in ns.
    pub fn default_ns(&self) -> u64 {
        ns(self.default_ms)
    }
}

/// Milliseconds in nanoseconds.
pub fn ns(ms: u32) -> u64 {
    u64::from(ms) * MS
}

/// What a rank asked for when it registered, in the units of `struct nullhz_stall_register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// By phase; 0: learned.
    pub deadline_ms: [u32; PHASES],
    /// 0: the rules'.
    pub floor_ms: u32,
    /// 0: the rules'.
    pub warmup: u32,
}

impl Wishes {
    /// The deadline that was asked for.
    fn fixed(&self, phase: Phase) -> Option<Deadline> {
        let ms = self.deadline_ms.get(phase as usize).copied().unwrap_or(0);
        (ms != 0).then(|| Deadline::both(ns(ms)))
    }

    fn floor(&self, phase: Phase, rules: &Rules) -> u64 {
        match (phase, self.floor_ms) {
            (Phase::Step, 0) => ns(rules.floor_ms),
            (Phase::Step, ms) => ns(ms),
            (Phase::CommWait, ms) => ns(rules.wait_floor_ms.max(ms)),
            (_, ms) => ns(rules.pause_floor_ms.max(ms)),
        }
    }
}

/// The two times of a phase, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Stalled after so long if its thread cannot go on; three quarters of it make a suspect.
    pub proven_ns: u64,
    /// Stalled after so long. Never before `proven_ns`.
    pub stall_ns: u64,
}

impl Deadline {
    const fn both(ns: u64) -> Self {
        Deadline {
            proven_ns: ns,
            stall_ns: ns,
        }
    }

    fn max(self, other: Self) -> Self {
        Deadline {
            proven_ns: self.proven_ns.max(other.proven_ns),
            stall_ns: self.stall_ns.max(other.stall_ns),
        }
    }
}

/// What is known of one phase of one rank.
#[derive(Clone)]
struct Learner {
    quantiles: Quantiles,
    longest: Longest,
    recent: [u64; RECENT],
    seen: u32,
}

impl Learner {
    const EMPTY: Self = Learner {
        quantiles: Quantiles::EMPTY,
        longest: Longest::EMPTY,
        recent: [0; RECENT],
        seen: 0,
    };

    fn add(&mut self, now: u64, ns: u64) {
        self.quantiles.add(ns);
        self.longest.add(now, ns);
        self.recent.rotate_right(1);
        if let Some(newest) = self.recent.first_mut() {
            *newest = ns;
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// What an interval takes, give or take.
    fn typical(&self) -> u64 {
        let mut recent = self.recent;
        recent.sort_unstable();
        let recent = recent.get(RECENT / 2).copied().unwrap_or(0);
        self.quantiles.typical().max(recent)
    }

    fn deadline(&self, floor: u64, rules: &Rules) -> Deadline {
        if self.seen < KNOWN {
            return Deadline::both(rules.default_ns().max(floor));
        }
        let rare = self.quantiles.rare();
        let longest = self.longest.get();
        let proven_ns = floor
            .max(rare.saturating_add(rare / 2))
            .max(longest.saturating_add(longest / 4));
        let slack = self.typical().saturating_mul(rules.slack.into());
        Deadline {
            proven_ns,
            stall_ns: proven_ns.max(slack.min(rules.default_ns())),
        }
    }
}

/// Phases that are learned: all but `INIT`, which is the first.
const LEARNED: usize = PHASES - 1;

/// What is known of one rank.
#[derive(Clone)]
pub struct Knowledge {
    phases: [Learner; LEARNED],
}

impl Knowledge {
    /// Nothing yet.
    pub const EMPTY: Self = Knowledge {
        phases: [const { Learner::EMPTY }; LEARNED],
    };

    fn place(phase: Phase) -> Option<usize> {
        (phase as usize).checked_sub(Phase::Step as usize)
    }

    fn learner(&mut self, phase: Phase) -> Option<&mut Learner> {
        Self::place(phase).and_then(|place| self.phases.get_mut(place))
    }

    /// Learns that an interval of `phase`, which ended at `now`, took `ns`.
    pub fn learn(&mut self, phase: Phase, now: u64, ns: u64) {
        if let Some(learner) = self.learner(phase) {
            learner.add(now, ns);
        }
    }

    /// Learns that an interval of `phase`, which ended at `now`, took `ns` and was taken for a
    /// stall under `deadline`. It may have been slow, or a stall that somebody ended: it counts
    /// for twice the deadline at most, and for no more than the default.
    pub fn learn_stall(
        &mut self,
        phase: Phase,
        now: u64,
        ns: u64,
        deadline: &Deadline,
        rules: &Rules,
    ) {
        if let Some(learner) = self.learner(phase) {
            let most = deadline.stall_ns.saturating_mul(2);
            learner
                .longest
                .add(now, ns.min(most).min(rules.default_ns()));
        }
    }

    /// The deadline of `phase`.
    pub fn deadline(&self, phase: Phase, wishes: &Wishes, rules: &Rules) -> Deadline {
        let deadline = match wishes.fixed(phase) {
            Some(fixed) => fixed,
            None => self.learned(phase, wishes, rules),
        };
        deadline.max(Deadline::both(SHORTEST_NS))
    }

    fn learned(&self, phase: Phase, wishes: &Wishes, rules: &Rules) -> Deadline {
        let learner = Self::place(phase).and_then(|place| self.phases.get(place));
        let Some(learner) = learner else {
            return Deadline::both(rules.default_ns());
        };
        let own = learner.deadline(wishes.floor(phase, rules), rules);
        match phase {
            Phase::CommWait => own.max(self.deadline(Phase::Step, wishes, rules)),
            _ => own,
        }
    }
}
