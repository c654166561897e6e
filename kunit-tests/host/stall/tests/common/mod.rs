// SPDX-License-Identifier: GPL-2.0

//! What the tests of the stall detector share: a rank, and a sampler that is always on time.

// Each test binary uses its own part.
#![allow(dead_code)]

use nullhz_stall_host::{
    abi::{Culprit, Phase, PHASES},
    clock::Clock,
    deadline::{Rules, Wishes},
    rank::{Change, Rank, Sight},
};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
pub const PERIOD: u64 = 10 * MS;

pub const LEARNED: Wishes = Wishes {
    deadline_ms: [0; PHASES],
    floor_ms: 0,
    warmup: 0,
};

/// Deadlines by phase, ms, that no two phases share.
pub const FIXED_MS: [u32; PHASES] = [2_000, 1_000, 1_500, 700, 900];

pub const FIXED: Wishes = Wishes {
    deadline_ms: FIXED_MS,
    floor_ms: 0,
    warmup: 0,
};

pub struct Bench {
    pub rules: Rules,
    pub clock: Clock,
    pub now: u64,
    pub rank: Rank,
    pub sight: Sight,
    /// What the rank's thread is seen doing, whenever it is looked at.
    pub thread: Culprit,
}

impl Bench {
    /// A rank that promises nothing.
    pub fn new(wishes: &Wishes, rules: &Rules) -> Self {
        Self::promising(false, wishes, rules)
    }

    /// A rank that promises to tell its waits, or does not.
    pub fn promising(tells_waits: bool, wishes: &Wishes, rules: &Rules) -> Self {
        let now = 1_000 * SECOND;
        let mut rank = Rank::BLANK;
        rank.begin(now, wishes, tells_waits, rules);
        Bench {
            rules: *rules,
            clock: Clock::new(now, PERIOD),
            now,
            rank,
            sight: Sight {
                step: 0,
                progress: 0,
                phase: Phase::Init as u32,
                thread: Culprit::Unknown,
            },
            thread: Culprit::Sleeping,
        }
    }

    /// The next look is `ns` after the one before.
    pub fn look_after(&mut self, ns: u64) -> Option<Change> {
        self.now += ns;
        let look = self.clock.look(self.now);
        self.sight.thread = if self.rank.wants_thread() {
            self.thread
        } else {
            Culprit::Unknown
        };
        self.rank.sample(&look, &self.sight, &self.rules)
    }

    pub fn look(&mut self) -> Option<Change> {
        self.look_after(PERIOD)
    }

    /// Looks for `ns`; what has changed, and how long after the beginning.
    pub fn pass(&mut self, ns: u64) -> Vec<(u64, Change)> {
        let begin = self.now;
        let mut changes = Vec::new();
        while self.now < begin + ns {
            if let Some(change) = self.look() {
                changes.push((self.now - begin, change));
            }
        }
        changes
    }

    /// Ends a step now.
    pub fn step(&mut self) -> Option<Change> {
        self.sight.phase = Phase::Step as u32;
        self.sight.step = self.sight.step.wrapping_add(1);
        self.look()
    }

    pub fn phase(&mut self, phase: Phase) -> Option<Change> {
        self.sight.phase = phase as u32;
        self.look()
    }

    /// `count` steps of `ns` each, without any change of state.
    pub fn steps(&mut self, count: u32, ns: u64) {
        for _ in 0..count {
            assert_eq!(self.pass(ns - PERIOD), []);
            assert_eq!(self.step(), None);
        }
    }

    /// Until it is STALLED: how long after the last look.
    pub fn stall(&mut self) -> u64 {
        let begin = self.now;
        loop {
            let change = self.look();
            if change == Some(Change::Stalled) {
                return self.now - begin;
            }
            assert!(matches!(change, None | Some(Change::Suspect)));
            assert!(self.now - begin < 7_200 * SECOND);
        }
    }
}
