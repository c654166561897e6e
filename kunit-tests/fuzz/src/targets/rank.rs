// SPDX-License-Identifier: GPL-2.0

//! A rank on the ladder, whatever its page, its rules and its clock are.

use crate::input::Input;
use nullhz_stall_host::abi::{evidence, Culprit, Held, Page, Phase, State};
use nullhz_stall_host::clock::{Clock, Look};
use nullhz_stall_host::deadline::{ns, Rules, Wishes, SHORTEST_NS};
use nullhz_stall_host::ladder::{Node, Verdict};
use nullhz_stall_host::rank::{Change, Rank, Sight};

const MS: u64 = 1_000_000;
const PERIOD: u64 = 10 * MS;

/// A rank, and what its age alone says of it.
struct Bench {
    rank: Rank,
    wishes: Wishes,
    rules: Rules,
    clock: Clock,
    monotonic: u64,
    /// Of the sampler.
    now: u64,
    seen: (u64, u64, Phase),
    since: u64,
    grace_until: u64,
    stalled_at: u64,
    told: Held,
    tells_waits: bool,
    steps: u64,
    bad_page: bool,
    bad_page_told: bool,
}

impl Bench {
    fn new(wishes: Wishes, tells_waits: bool, rules: Rules) -> Self {
        let monotonic = 1_000_000 * MS;
        let mut rank = Rank::BLANK;
        rank.begin(monotonic, &wishes, tells_waits, &rules);
        Bench {
            rank,
            wishes,
            rules,
            clock: Clock::new(monotonic, PERIOD),
            monotonic,
            now: monotonic,
            seen: (0, 0, Phase::Init),
            since: monotonic,
            grace_until: 0,
            stalled_at: 0,
            told: Held::Not,
            tells_waits,
            steps: 0,
            bad_page: false,
            bad_page_told: false,
        }
    }

    fn grace(&mut self, ms: u32) {
        let now = self.clock.at(self.monotonic);
        self.rank.grace(now, ms);
        if ms != 0 || now < self.grace_until {
            self.grace_until = now.saturating_add(ns(ms));
        }
        assert_eq!(
            self.rank.grace_ns(now),
            self.grace_until.saturating_sub(now)
        );
    }

    fn look(&mut self, passed: u64, page: &Page, thread: Culprit) -> Option<Change> {
        self.monotonic = self.monotonic.saturating_add(passed);
        let look = self.clock.look(self.monotonic);
        assert!(look.now >= self.now);
        self.now = look.now;
        let wanted = self.rank.wants_thread();
        let sight = Sight {
            step: page.step,
            progress: page.progress,
            phase: page.phase,
            thread: if wanted { thread } else { Culprit::Unknown },
        };
        let from = self.rank.state();
        let change = self.rank.sample(&look, &sight, &self.rules);
        self.check(&look, &sight, from, change);
        change
    }

    fn check(&mut self, look: &Look, sight: &Sight, from: State, change: Option<Change>) {
        let state = self.rank.state();
        let page = (sight.step, sight.progress, Phase::from_page(sight.phase));
        let age = look.now.saturating_sub(self.since);
        let moved = page != self.seen;
        if moved || look.now < self.grace_until {
            // Every sign of life, and grace, leads back to the ground.
            assert_eq!(state, State::Ok);
            let back = Change::Recovered {
                from,
                phase: self.seen.2,
                age_ns: age,
            };
            assert_eq!(change, (from != State::Ok).then_some(back));
            self.told = Held::Not;
        } else {
            self.check_climb(look, sight, from, change);
        }
        if moved {
            self.steps += u64::from(page.0 != self.seen.0);
            self.bad_page |= Phase::from_raw(sight.phase).is_none();
            self.seen = page;
            self.since = look.now.saturating_sub(look.half_ns);
        }
        let rank = &mut self.rank;
        assert_eq!((rank.step(), rank.progress(), rank.phase()), self.seen);
        assert_eq!(rank.steps_seen(), self.steps);
        let told = rank.take_bad_page();
        assert_eq!(told, self.bad_page && !self.bad_page_told);
        self.bad_page_told |= told;

        let deadline = rank.deadline_ns();
        assert!(deadline >= SHORTEST_NS);
        let wish = self.wishes.deadline_ms[self.seen.2 as usize];
        if wish != 0 {
            assert_eq!(deadline, ns(wish).max(SHORTEST_NS));
        }
        if wish == 0 && self.seen.2 == Phase::Init {
            assert_eq!(deadline, self.rules.default_ns().max(SHORTEST_NS));
        }
    }

    /// Nothing was seen to move.
    fn check_climb(&mut self, look: &Look, sight: &Sight, from: State, change: Option<Change>) {
        let state = self.rank.state();
        let quiet = look.now.saturating_sub(self.since.max(self.grace_until));
        let deadline = self.rank.deadline_ns();
        let stalled = look.now.saturating_sub(self.stalled_at);
        let stuck = matches!(
            sight.thread,
            Culprit::Stopped | Culprit::Frozen | Culprit::Exited
        );
        match from {
            State::Ok => {
                assert!(matches!(state, State::Ok | State::Suspect));
                assert_eq!(change, (state == State::Suspect).then_some(Change::Suspect));
                assert!(state == State::Suspect || quiet < deadline);
            }
            State::Suspect => {
                assert!(matches!(state, State::Suspect | State::Stalled));
                assert_eq!(change, (state == State::Stalled).then_some(Change::Stalled));
                // In time, and before it only with a proof.
                assert!(state == State::Stalled || quiet < deadline);
                assert!(state == State::Suspect || quiet >= deadline || stuck);
                if state == State::Stalled {
                    self.stalled_at = look.now;
                }
            }
            State::Stalled => {
                let next = stalled >= ns(self.rules.no_ack_ms);
                assert_eq!(state, if next { State::NoAck } else { State::Stalled });
                assert_eq!(change, next.then_some(Change::NoAck));
            }
            State::NoAck | State::Prebite => {
                assert_eq!(state, from);
                let due = stalled >= ns(self.rules.bite_ms);
                assert_eq!(change, due.then_some(Change::Due));
            }
        }
    }

    fn judge(&mut self, found: u32, node: &Node) {
        let before = self.rank.state();
        let verdict = self.rank.judge(found, node);
        let state = self.rank.state();
        if before < State::NoAck {
            assert_eq!((verdict, state), (None, before));
            return;
        }
        let here = evidence::DISK | evidence::HOUSEKEEPING;
        let counts = |bits: u32| found & node.counts & bits != 0;
        let guilty = match self.seen.2 {
            Phase::CommWait => false,
            Phase::Init => counts(here),
            _ => {
                let alone = self.tells_waits && node.counts & evidence::PHASE != 0;
                alone || counts(!evidence::PHASE)
            }
        };
        let held = match (guilty, node.exhausted, node.armed) {
            (false, _, _) => Held::NoEvidence,
            (_, true, _) => Held::Budget,
            (_, _, false) => Held::Disarmed,
            _ => Held::Not,
        };
        if held == Held::Not {
            assert_eq!(state, State::Prebite);
            assert_eq!(verdict, (before == State::NoAck).then_some(Verdict::Bite));
        } else {
            assert_eq!(state, State::NoAck);
            assert_eq!(verdict, (held != self.told).then_some(Verdict::Held(held)));
        }
        self.told = held;
    }
}

fn any_rules(input: &mut Input<'_>, generation: u32) -> Rules {
    Rules {
        generation,
        floor_ms: input.extreme32(),
        pause_floor_ms: input.extreme32(),
        wait_floor_ms: input.extreme32(),
        default_ms: input.extreme32(),
        slack: input.extreme32(),
        warmup: input.extreme32(),
        suspect_percent: input.extreme32(),
        no_ack_ms: input.extreme32(),
        bite_ms: input.extreme32(),
    }
}

/// A page of which every byte is written by somebody who means harm, under any rules.
pub(super) fn heartbeat(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let mut generation = 0;
    let first = input.u8();
    let tells_waits = first & 2 != 0;
    let rules = match first & 1 {
        0 => Rules::DEFAULT,
        _ => any_rules(input, generation),
    };
    let wishes = match input.flag() {
        true => Wishes {
            deadline_ms: [(); 5].map(|()| input.extreme32()),
            floor_ms: input.extreme32(),
            warmup: input.extreme32(),
        },
        false => Wishes {
            deadline_ms: [0; 5],
            floor_ms: 0,
            warmup: 1,
        },
    };
    let mut bench = Bench::new(wishes, tells_waits, rules);
    let mut page = [0; Page::SIZE];
    let mut thread = Culprit::Unknown;
    while !input.is_empty() {
        match input.below(16) {
            // What the trainer writes is the first 24 bytes; the others must not matter.
            0..5 => page[input.below(32) as usize] = input.u8(),
            5 => page = input.array(),
            6 => bench.grace(input.extreme32()),
            7 => thread = input.pick(Culprit::ALL),
            8 => {
                generation += 1;
                bench.rules = any_rules(input, generation);
            }
            9 => {
                let passed = input.extreme();
                bench.look(passed, &Page::from_bytes(&page), thread);
            }
            10 => {
                // Many equal intervals, to be learned from.
                let passed = u64::from(input.u8()) * MS;
                for _ in 0..20 {
                    page[0] = page[0].wrapping_add(1);
                    bench.look(passed, &Page::from_bytes(&page), thread);
                }
            }
            11 => {
                let node = Node {
                    armed: true,
                    exhausted: false,
                    counts: u32::MAX,
                };
                bench.judge(input.u8().into(), &node);
            }
            _ => {
                for _ in 0..input.u8() {
                    bench.look(PERIOD, &Page::from_bytes(&page), thread);
                }
            }
        }
    }
}

/// Short deadlines that are fixed, and a node that changes its mind.
pub(super) fn ladder(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let first = u32::from(input.u8());
    let tells_waits = first & 128 != 0;
    let rules = Rules {
        no_ack_ms: 30,
        bite_ms: first % 100,
        ..Rules::DEFAULT
    };
    let wishes = Wishes {
        deadline_ms: [200, 100, 150, 70, 90],
        floor_ms: 0,
        warmup: 0,
    };
    let mut bench = Bench::new(wishes, tells_waits, rules);
    let mut page = Page::ZERO;
    let mut node = Node {
        armed: true,
        exhausted: false,
        counts: u32::MAX,
    };
    let (mut thread, mut found) = (Culprit::Sleeping, 0);
    while !input.is_empty() {
        match input.below(8) {
            0 => page.step = input.below(3),
            1 => page.phase = input.below(7) as u32,
            2 => bench.grace(input.below(100) as u32),
            3 => thread = input.pick(Culprit::ALL),
            4 => {
                let bits = input.u8();
                node = Node {
                    armed: bits & 1 != 0,
                    exhausted: bits & 2 != 0,
                    counts: u32::from(bits >> 2 & 15),
                };
            }
            5 => found = input.below(16) as u32,
            _ => {
                for _ in 0..input.below(32) {
                    if bench.look(PERIOD, &page, thread) == Some(Change::Due) {
                        bench.judge(found, &node);
                    }
                }
            }
        }
    }
}
