// SPDX-License-Identifier: GPL-2.0

//! nullhz_stall_kunit: the stall detector's logic in the kernel, with the kernel's compiler flags
//! and stack.

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(dead_code, unreachable_pub)]

use kernel::prelude::*;

#[path = "../../drivers/stall/abi.rs"]
mod abi;
#[path = "../../drivers/stall/budget.rs"]
mod budget;
#[path = "../../drivers/stall/clock.rs"]
mod clock;
#[path = "../../drivers/stall/culprit.rs"]
mod culprit;
#[path = "../../drivers/stall/deadline.rs"]
mod deadline;
#[path = "../../drivers/stall/ladder.rs"]
mod ladder;
#[path = "../../drivers/stall/quantile.rs"]
mod quantile;
#[path = "../../drivers/stall/rank.rs"]
mod rank;

mod climbing;
mod keeping;
mod training;

module! {
    type: KunitModule,
    name: "nullhz_stall_kunit",
    authors: ["nullhz"],
    description: "Tests of nullhz_stall",
    license: "GPL",
}

struct KunitModule;

impl kernel::Module for KunitModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(KunitModule)
    }
}

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const PERIOD: u64 = 10 * MS;

/// A rank, and a sampler that is always on time.
struct Bench {
    rules: deadline::Rules,
    clock: clock::Clock,
    now: u64,
    rank: KBox<rank::Rank>,
    sight: rank::Sight,
    thread: abi::Culprit,
}

impl Bench {
    fn new(deadline_ms: [u32; abi::PHASES]) -> Result<Self> {
        Self::promising(false, deadline_ms)
    }

    /// A rank that promises to tell its waits, or does not.
    fn promising(tells_waits: bool, deadline_ms: [u32; abi::PHASES]) -> Result<Self> {
        let rules = deadline::Rules::DEFAULT;
        let wishes = deadline::Wishes {
            deadline_ms,
            floor_ms: 0,
            warmup: 0,
        };
        let mut rank = KBox::new(rank::Rank::BLANK, GFP_KERNEL)?;
        rank.begin(0, &wishes, tells_waits, &rules);
        Ok(Bench {
            rules,
            clock: clock::Clock::new(0, PERIOD),
            now: 0,
            rank,
            sight: rank::Sight {
                step: 0,
                progress: 0,
                phase: 0,
                thread: abi::Culprit::Unknown,
            },
            thread: abi::Culprit::Sleeping,
        })
    }

    fn look_after(&mut self, ns: u64) -> Option<rank::Change> {
        self.now += ns;
        self.sight.thread = self.thread;
        let look = self.clock.look(self.now);
        self.rank.sample(&look, &self.sight, &self.rules)
    }

    /// Looks until something changes; what, and how long after the last look.
    fn next_change(&mut self) -> Option<(u64, rank::Change)> {
        let begin = self.now;
        while self.now - begin < 3_600 * SECOND {
            if let Some(change) = self.look_after(PERIOD) {
                return Some((self.now - begin, change));
            }
        }
        None
    }

    /// A step of `ns` ends; whether it was taken for a stall.
    fn step(&mut self, ns: u64) -> bool {
        let stalls = self.rank.stalls();
        let end = self.now + ns;
        while self.now + PERIOD < end {
            self.look_after(PERIOD);
        }
        self.sight.phase = abi::Phase::Step as u32;
        self.sight.step += 1;
        self.look_after(PERIOD);
        self.rank.stalls() != stalls
    }
}

/// Pseudo-random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}
