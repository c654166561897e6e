// SPDX-License-Identifier: GPL-2.0

//! The ladder: rules one by one, then everything at random against a model.

mod common;

use common::*;
use nullhz_stall_host::{
    abi::{evidence, Culprit, Held, Phase, State},
    clock::LATE_PERIODS,
    deadline::Rules,
    ladder::{self, Node, Verdict},
    rank::{Change, Sight},
};
use proptest::{collection::vec, prelude::*};

const RULES: Rules = Rules {
    no_ack_ms: 300,
    bite_ms: 800,
    ..Rules::DEFAULT
};
const FREE: Node = Node {
    armed: true,
    exhausted: false,
    counts: u32::MAX,
};

/// A rank that promises to tell its waits.
fn bench() -> Bench {
    Bench::promising(true, &FIXED, &RULES)
}

/// A rank whose PREBITE is due in `phase`.
fn due(phase: Phase) -> Bench {
    let mut bench = bench();
    bench.phase(phase);
    while bench.look() != Some(Change::Due) {}
    bench
}

fn recovered(change: Option<Change>) -> Option<State> {
    match change {
        Some(Change::Recovered { from, .. }) => Some(from),
        _ => None,
    }
}

#[test]
fn rung_by_rung_and_in_time() {
    let mut bench = bench();
    bench.step();
    let changes = bench.pass(2_000 * MS);
    let first = |wanted| {
        changes
            .iter()
            .find(|(_, change)| *change == wanted)
            .unwrap()
            .0
            / MS
    };
    assert_eq!(first(Change::Suspect), 750);
    assert_eq!(first(Change::Stalled), 1_000);
    assert_eq!(first(Change::NoAck), 1_300);
    assert_eq!(first(Change::Due), 1_800);
    // And due it remains, at every look.
    assert_eq!(changes.len(), 3 + 21);
    assert_eq!(bench.rank.state(), State::NoAck);
    assert_eq!(bench.rank.judge(0, &FREE), Some(Verdict::Bite));
    assert_eq!(bench.rank.state(), State::Prebite);
    assert_eq!(bench.look(), Some(Change::Due));
    assert_eq!(bench.rank.judge(0, &FREE), None);
}

#[test]
fn every_sign_of_life_leads_back_from_every_rung() {
    type Sign = fn(&mut Bench);
    let signs: [Sign; 5] = [
        |bench| bench.sight.step += 1,
        |bench| bench.sight.step = bench.sight.step.wrapping_sub(5),
        |bench| bench.sight.progress ^= 1 << 63,
        |bench| bench.sight.phase = Phase::Eval as u32,
        |bench| bench.rank.grace(bench.clock.at(bench.now), 100),
    ];
    let mut rungs = 0;
    for ms in (10..2_000).step_by(30) {
        for sign in signs {
            let mut bench = bench();
            bench.step();
            for (_, change) in bench.pass(ms * MS) {
                if change == Change::Due {
                    bench.rank.judge(0, &FREE);
                }
            }
            let state = bench.rank.state();
            rungs |= 1 << state as u32;
            sign(&mut bench);
            let change = bench.look();
            let expected = (state != State::Ok).then_some(state);
            assert_eq!(recovered(change), expected, "after {ms} ms");
            assert_eq!(bench.rank.state(), State::Ok);
            if let Some(Change::Recovered { phase, age_ns, .. }) = change {
                assert_eq!(phase, Phase::Step);
                assert!(age_ns.abs_diff(ms * MS) <= 15 * MS);
            }
        }
    }
    assert_eq!(rungs, 0b11111);
}

/// A rank that does not promise to tell its waits, though it told one, and whose PREBITE is due in
/// `phase`.
fn due_unknowing(phase: Phase) -> Bench {
    let mut bench = Bench::new(&FIXED, &RULES);
    bench.phase(Phase::CommWait);
    bench.phase(phase);
    while bench.look() != Some(Change::Due) {}
    bench
}

#[test]
fn evidence_decides() {
    const P: u32 = evidence::PHASE;
    const D: u32 = evidence::DISK;
    const H: u32 = evidence::HOUSEKEEPING;
    const A: u32 = evidence::AGENT;
    let verdict = |enough| match enough {
        true => Verdict::Bite,
        false => Verdict::Held(Held::NoEvidence),
    };
    for (found, counts) in (0..16).flat_map(|found| (0..16).map(move |counts| (found, counts))) {
        let node = Node { counts, ..FREE };
        let of = |mut bench: Bench| bench.rank.judge(found, &node).unwrap();
        let signs = found & counts & !P;
        for tells_waits in [true, false] {
            let rank = if tells_waits { due } else { due_unknowing };
            assert_eq!(of(rank(Phase::Init)), verdict(signs & (D | H) != 0));
            for phase in [Phase::Step, Phase::Checkpoint, Phase::Eval] {
                let alone = tells_waits && counts & P != 0;
                assert_eq!(of(rank(phase)), verdict(alone || signs != 0));
            }
        }
        assert_eq!(of(due(Phase::CommWait)), verdict(false));
    }
    let of = ladder::evidence;
    assert_eq!(of(Phase::Step, true, D | A), P | D | A);
    assert_eq!(of(Phase::Step, false, P | A), A);
    assert_eq!(of(Phase::Init, true, P), 0);
    assert_eq!(of(Phase::CommWait, true, P | H), H);
    assert_eq!(due(Phase::Eval).rank.evidence(D), P | D);
    assert_eq!(due_unknowing(Phase::Eval).rank.evidence(D), D);
}

#[test]
fn a_peer_s_trouble_is_no_reason_for_a_signal() {
    for (found, counts) in (0..16).flat_map(|found| (0..16).map(move |counts| (found, counts))) {
        let node = Node { counts, ..FREE };
        for phase in Phase::ALL.iter().copied() {
            for rank in [due, due_unknowing] {
                let mut bench = rank(phase);
                let of = |culprit| bench.rank.wants_signal(found, culprit, &node);
                let [sleeping, stopped] = [Culprit::Sleeping, Culprit::Stopped].map(of);
                assert_eq!(stopped, phase != Phase::CommWait);
                assert_eq!(
                    sleeping,
                    bench.rank.judge(found, &node) == Some(Verdict::Bite)
                );
            }
        }
    }
    // A node that resets nothing signals all the same.
    let disarmed = Node {
        armed: false,
        ..FREE
    };
    assert!(due(Phase::Step)
        .rank
        .wants_signal(0, Culprit::Sleeping, &disarmed));
    // Whoever goes on has nothing to fear.
    let mut bench = due(Phase::Step);
    bench.step();
    assert!(!bench.rank.wants_signal(u32::MAX, Culprit::Stopped, &FREE));
}

#[test]
fn the_phase_of_a_process_that_exits_says_nothing() {
    let mut bench = due(Phase::Step);
    assert_eq!(bench.rank.judge(0, &FREE), Some(Verdict::Bite));
    bench.rank.release_promise();
    let held = Verdict::Held(Held::NoEvidence);
    assert_eq!(bench.rank.judge(0, &FREE), Some(held));
    assert_eq!(bench.rank.state(), State::NoAck);
    assert_eq!(bench.rank.judge(evidence::DISK, &FREE), Some(Verdict::Bite));
}

#[test]
fn what_holds_a_reset_back_is_told_once() {
    let mut bench = due(Phase::Step);
    let disarmed = Node {
        armed: false,
        ..FREE
    };
    // As in life: a node without a budget is not armed either.
    let exhausted = Node {
        armed: false,
        exhausted: true,
        ..FREE
    };
    let held = |held| Some(Verdict::Held(held));
    assert_eq!(bench.rank.judge(0, &disarmed), held(Held::Disarmed));
    assert_eq!(bench.rank.judge(0, &disarmed), None);
    assert_eq!(bench.rank.judge(0, &exhausted), held(Held::Budget));
    assert_eq!(bench.rank.judge(0, &exhausted), None);
    assert_eq!(bench.rank.state(), State::NoAck);
    assert_eq!(bench.rank.judge(0, &FREE), Some(Verdict::Bite));
    // An operator takes the node out at the last moment.
    assert_eq!(bench.rank.judge(0, &disarmed), held(Held::Disarmed));
    assert_eq!(bench.rank.state(), State::NoAck);
    // Another stall is told anew.
    bench.step();
    while bench.look() != Some(Change::Due) {}
    assert_eq!(bench.rank.judge(0, &disarmed), held(Held::Disarmed));
}

#[test]
fn nothing_is_judged_below_no_ack() {
    let mut bench = bench();
    bench.step();
    assert_eq!(bench.rank.judge(u32::MAX, &FREE), None);
    bench.stall();
    assert_eq!(bench.rank.judge(u32::MAX, &FREE), None);
    assert_eq!(bench.rank.state(), State::Stalled);
}

#[test]
fn a_gap_of_the_sampler_is_nobodys_stall() {
    let mut bench = bench();
    bench.step();
    bench.pass(500 * MS);
    assert_eq!(bench.look_after(3_600 * SECOND), None);
    let changes = bench.pass(600 * MS);
    assert_eq!(changes[0], (240 * MS, Change::Suspect));
    assert_eq!(changes[1], (490 * MS, Change::Stalled));
    // Nor does it bring a reset nearer.
    assert_eq!(bench.look_after(3_600 * SECOND), None);
    assert_eq!(bench.rank.state(), State::Stalled);
}

#[test]
fn a_late_look_is_no_gap() {
    let mut bench = bench();
    let look = bench.clock.look(bench.now + LATE_PERIODS * PERIOD);
    assert_eq!((look.late_ns, look.gaps), (None, 0));
    assert_eq!(look.now, bench.now + 100 * MS);
    let look = bench.clock.look(bench.now + 201 * MS);
    assert_eq!((look.late_ns, look.gaps), (Some(91 * MS), 1));
    assert_eq!(look.now, bench.now + 110 * MS);
    // The clock goes back: no time passes, until it has caught up.
    let back = bench.clock.look(bench.now);
    assert_eq!((back.late_ns, back.now), (None, look.now));
    assert_eq!(bench.clock.at(0), look.now);
    assert_eq!(bench.clock.at(bench.now + 205 * MS), look.now + 4 * MS);
    assert_eq!(bench.clock.at(u64::MAX), look.now + 100 * MS);
}

#[test]
fn a_phase_out_of_range_is_a_step_and_told_once() {
    let mut bench = bench();
    bench.step();
    assert!(!bench.rank.take_bad_page());
    bench.sight.phase = 5;
    // The same phase as before: no sign of life, but seen at the next.
    assert_eq!(bench.look(), None);
    bench.step();
    bench.sight.phase = u32::MAX;
    bench.sight.step += 1;
    bench.look();
    assert_eq!(bench.rank.phase(), Phase::Step);
    assert!(bench.rank.take_bad_page());
    for phase in 0..1_000 {
        bench.sight.phase = phase;
        bench.sight.step += 1;
        bench.look();
        assert!(!bench.rank.take_bad_page());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Looks(u32),
    Late(u64),
    Page(u64, u64, u32),
    Grace(u32),
    Thread(Culprit),
    Node(bool, bool, u32),
    Found(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let thread = proptest::sample::select(Culprit::ALL);
    prop_oneof![
        8 => (1..80u32).prop_map(Op::Looks),
        1 => (10..2_000u64).prop_map(Op::Late),
        2 => (0..3u64, 0..3u64, 0..7u32).prop_map(|(a, b, c)| Op::Page(a, b, c)),
        1 => prop_oneof![Just(0), 1..1_500u32].prop_map(Op::Grace),
        2 => thread.prop_map(Op::Thread),
        1 => any::<(bool, bool, u32)>().prop_map(|(a, b, c)| Op::Node(a, b, c)),
        1 => (0..16u32).prop_map(Op::Found),
    ]
}

/// The ladder in the simplest words: how long was it quiet, in looks that count.
struct Model {
    page: (u64, u64, Phase),
    quiet_ns: u64,
    grace_ns: u64,
    rung: usize,
    stalled_ns: u64,
    told: Held,
    tells_waits: bool,
}

impl Model {
    /// Time that counts has passed, and then a look.
    fn look(&mut self, passed: u64, sight: &Sight) -> Option<Change> {
        let left = self.grace_ns;
        self.grace_ns = left.saturating_sub(passed);
        // Quiet only outside of grace.
        let outside = passed - left.min(passed);
        self.quiet_ns += outside;
        self.stalled_ns += passed;
        let page = (sight.step, sight.progress, Phase::from_page(sight.phase));
        let back = [
            State::Ok,
            State::Suspect,
            State::Stalled,
            State::NoAck,
            State::Prebite,
        ];
        if page != self.page || self.grace_ns > 0 {
            if page != self.page {
                self.quiet_ns = outside.min(PERIOD / 2);
                self.page = page;
            }
            let from = std::mem::take(&mut self.rung);
            self.told = Held::Not;
            return (from > 0).then_some(Change::Recovered {
                from: back[from],
                phase: Phase::Init,
                age_ns: 0,
            });
        }
        let deadline = u64::from(FIXED_MS[page.2 as usize]) * MS;
        match self.rung {
            0 if self.quiet_ns >= deadline / 4 * 3 => {
                self.rung = 1;
                Some(Change::Suspect)
            }
            1 => {
                // With a fixed deadline proof never comes earlier.
                if self.quiet_ns < deadline {
                    return None;
                }
                self.rung = 2;
                self.stalled_ns = 0;
                Some(Change::Stalled)
            }
            2 if self.stalled_ns >= u64::from(RULES.no_ack_ms) * MS => {
                self.rung = 3;
                Some(Change::NoAck)
            }
            3 | 4 if self.stalled_ns >= u64::from(RULES.bite_ms) * MS => Some(Change::Due),
            _ => None,
        }
    }

    fn judge(&mut self, found: u32, node: &Node) -> Option<Verdict> {
        let found = found & node.counts;
        let local = match self.page.2 {
            Phase::CommWait => false,
            Phase::Init => found & 6 != 0,
            _ => found & 14 != 0 || (self.tells_waits && node.counts & 1 != 0),
        };
        let held = if !local {
            Held::NoEvidence
        } else if node.exhausted {
            Held::Budget
        } else if !node.armed {
            Held::Disarmed
        } else {
            Held::Not
        };
        let was = std::mem::replace(&mut self.told, held);
        if held == Held::Not {
            let news = self.rung == 3;
            self.rung = 4;
            return news.then_some(Verdict::Bite);
        }
        self.rung = 3;
        (was != held).then_some(Verdict::Held(held))
    }
}

/// What a change is, without what the model does not follow.
fn bare(change: Option<Change>) -> Option<Change> {
    match change {
        Some(Change::Recovered { from, .. }) => Some(Change::Recovered {
            from,
            phase: Phase::Init,
            age_ns: 0,
        }),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn like_the_model(tells_waits: bool, ops in vec(op(), 1..120)) {
        let mut bench = Bench::promising(tells_waits, &FIXED, &RULES);
        let mut model = Model {
            page: (0, 0, Phase::Init),
            quiet_ns: 0,
            grace_ns: 0,
            rung: 0,
            stalled_ns: 0,
            told: Held::Not,
            tells_waits,
        };
        let (mut node, mut found) = (FREE, 0);
        for op in ops {
            let (mut looks, mut late) = (0, 0);
            match op {
                Op::Looks(count) => looks = count,
                Op::Late(ms) => (looks, late) = (1, ms * MS),
                Op::Page(step, progress, phase) => {
                    bench.sight = Sight { step, progress, phase, thread: Culprit::Unknown };
                }
                Op::Grace(ms) => {
                    bench.rank.grace(bench.clock.at(bench.now), ms);
                    if ms != 0 || model.grace_ns != 0 {
                        model.grace_ns = u64::from(ms) * MS;
                        model.quiet_ns = 0;
                    }
                }
                Op::Thread(class) => bench.thread = class,
                Op::Node(armed, exhausted, counts) => node = Node { armed, exhausted, counts },
                Op::Found(bits) => found = bits,
            }
            for _ in 0..looks {
                let passed = PERIOD.max(late);
                let counts = if passed > 100 * MS { PERIOD } else { passed };
                let before = bench.rank.state();
                let change = bench.look_after(passed);
                prop_assert_eq!(bare(change), model.look(counts, &bench.sight));
                let after = bench.rank.state();
                // One rung up at most, or all the way down.
                prop_assert!(after == State::Ok || after as u32 - before as u32 <= 1);
                if change == Some(Change::Due) {
                    let verdict = bench.rank.judge(found, &node);
                    prop_assert_eq!(verdict, model.judge(found, &node));
                    let bites = bench.rank.state() == State::Prebite;
                    prop_assert!(!bites || bench.rank.phase() != Phase::CommWait);
                    prop_assert!(!bites || (node.armed && !node.exhausted));
                }
                prop_assert_eq!(bench.rank.state() as usize, model.rung);
            }
        }
    }

    /// A page of random bytes, looked at by a clock that does what it likes.
    #[test]
    fn nothing_in_a_page_does_harm(
        sights in vec(any::<(u64, u64, u32, u64, u32)>(), 1..300),
        rules in any::<[u32; 10]>(),
        wishes in any::<([u32; 5], u32, u32)>(),
    ) {
        let [generation, floor_ms, pause_floor_ms, wait_floor_ms, default_ms, slack, warmup,
            suspect_percent, no_ack_ms, bite_ms] = rules;
        let rules = Rules {
            generation, floor_ms, pause_floor_ms, wait_floor_ms, default_ms, slack,
            warmup: warmup % 8, suspect_percent, no_ack_ms, bite_ms,
        };
        let wishes = nullhz_stall_host::deadline::Wishes {
            deadline_ms: wishes.0,
            floor_ms: wishes.1,
            warmup: wishes.2 % 8,
        };
        let mut bench = Bench::new(&wishes, &rules);
        for (step, progress, phase, now, grace) in sights {
            bench.sight = Sight { step, progress, phase, thread: Culprit::Unknown };
            let look = bench.clock.look(now);
            let change = bench.rank.sample(&look, &bench.sight, &rules);
            let back = change.is_none() || recovered(change).is_some();
            prop_assert!(back);
            prop_assert!(bench.rank.deadline_ns() >= 50 * MS);
            let at = bench.clock.at(grace.into());
            bench.rank.grace(at, grace);
            bench.rank.judge(phase, &FREE);
            prop_assert!(bench.rank.age_ns(u64::MAX) > 0);
        }
    }
}
