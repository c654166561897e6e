// SPDX-License-Identifier: GPL-2.0

//! What deadlines are learned from, rule by rule.

mod common;

use common::*;
use nullhz_stall_host::{
    abi::{Culprit, Phase, State},
    deadline::{Rules, Wishes, KNOWN},
    rank::Change,
};

const RULES: Rules = Rules::DEFAULT;

/// A rank that has made its warm-up, and `count` steps of a second after that.
fn trained(count: u32) -> Bench {
    let mut bench = Bench::new(&LEARNED, &RULES);
    bench.steps(RULES.warmup + count, SECOND);
    bench
}

fn deadline_ms(bench: &Bench) -> u64 {
    bench.rank.deadline_ns() / MS
}

/// Twelve steps of a second, up to the width of a bin.
fn is_learned(bench: &Bench) -> bool {
    (12_000..12_900).contains(&deadline_ms(bench))
}

#[test]
fn the_default_until_enough_is_known() {
    let mut bench = trained(KNOWN - 1);
    assert_eq!(deadline_ms(&bench), 600_000);
    bench.steps(1, SECOND);
    assert!(is_learned(&bench), "{}", deadline_ms(&bench));
}

#[test]
fn warm_up_is_not_learned_from() {
    let mut bench = Bench::new(&LEARNED, &RULES);
    bench.steps(RULES.warmup, 100 * SECOND);
    bench.steps(KNOWN, SECOND);
    assert!(is_learned(&bench));
    let wishes = Wishes {
        warmup: 3,
        ..LEARNED
    };
    let mut bench = Bench::new(&wishes, &RULES);
    bench.steps(3 + KNOWN, SECOND);
    assert!(is_learned(&bench));
}

#[test]
fn init_is_never_learned() {
    let mut bench = trained(KNOWN);
    for _ in 0..100 {
        bench.phase(Phase::Init);
        bench.pass(5 * SECOND);
        bench.step();
    }
    bench.phase(Phase::Init);
    assert_eq!(deadline_ms(&bench), 600_000);
    bench.step();
    assert!(is_learned(&bench));
}

#[test]
fn a_deadline_that_was_asked_for_stands() {
    let mut bench = Bench::new(&FIXED, &RULES);
    bench.steps(100, 200 * MS);
    for (phase, ms) in Phase::ALL.iter().zip(FIXED_MS) {
        bench.phase(*phase);
        assert_eq!(deadline_ms(&bench), u64::from(ms));
        bench.thread = Culprit::Stopped;
        let took = bench.stall();
        assert!((ms.into()..u64::from(ms) + 15).contains(&((took + 5 * MS) / MS)));
    }
    let wishes = Wishes {
        deadline_ms: [1; 5],
        ..LEARNED
    };
    let bench = Bench::new(&wishes, &RULES);
    assert_eq!(deadline_ms(&bench), 50);
}

#[test]
fn floors() {
    let mut bench = Bench::new(&LEARNED, &RULES);
    bench.steps(RULES.warmup + KNOWN, 30 * MS);
    assert_eq!(deadline_ms(&bench), 1_000);
    for phase in [Phase::CommWait, Phase::Checkpoint, Phase::Eval] {
        for _ in 0..=KNOWN {
            bench.phase(phase);
            bench.pass(20 * MS);
            bench.step();
        }
    }
    let mut floors = |phase| {
        bench.phase(phase);
        deadline_ms(&bench)
    };
    assert_eq!(floors(Phase::CommWait), 120_000);
    assert_eq!(floors(Phase::Checkpoint), 30_000);
    assert_eq!(floors(Phase::Eval), 30_000);

    let wishes = Wishes {
        floor_ms: 200,
        ..LEARNED
    };
    let mut bench = Bench::new(&wishes, &RULES);
    bench.steps(RULES.warmup + KNOWN, 30 * MS);
    assert!((360..400).contains(&deadline_ms(&bench)));
    let wishes = Wishes {
        floor_ms: 40_000,
        ..LEARNED
    };
    let mut bench = Bench::new(&wishes, &RULES);
    bench.steps(RULES.warmup, 30 * MS);
    for _ in 0..=KNOWN {
        bench.phase(Phase::Eval);
        bench.step();
    }
    bench.phase(Phase::Eval);
    assert_eq!(deadline_ms(&bench), 40_000);
}

#[test]
fn who_waits_has_at_least_the_time_of_a_step() {
    let mut bench = Bench::new(&LEARNED, &RULES);
    for _ in 0..RULES.warmup + KNOWN {
        bench.pass(20 * SECOND);
        bench.phase(Phase::CommWait);
        bench.pass(100 * MS);
        bench.step();
    }
    let step = deadline_ms(&bench);
    assert!(step >= 240_000);
    bench.phase(Phase::CommWait);
    assert_eq!(deadline_ms(&bench), step);
}

#[test]
fn patience_ends_at_the_default() {
    let mut bench = Bench::new(&LEARNED, &RULES);
    bench.steps(RULES.warmup + KNOWN, 100 * SECOND);
    assert_eq!(deadline_ms(&bench), 600_000);
    let mut bench = Bench::new(&LEARNED, &RULES);
    for _ in 0..=RULES.warmup + KNOWN {
        bench.pass(500 * SECOND);
        bench.step();
    }
    // Experience goes on.
    assert!((750_000..800_000).contains(&deadline_ms(&bench)));
}

#[test]
fn a_first_slow_step_is_covered_up_to_the_slack() {
    let mut bench = trained(10_000);
    let changes = bench.pass(10 * SECOND);
    assert!(matches!(changes[..], [(_, Change::Suspect)]), "{changes:?}");
    let change = bench.step();
    assert!(matches!(
        change,
        Some(Change::Recovered {
            from: State::Suspect,
            ..
        })
    ));
    assert_eq!(bench.rank.stalls(), 0);
    // Now that one is known, it is the normal case.
    bench.steps(10, SECOND);
    assert_eq!(bench.pass(9 * SECOND), []);
}

#[test]
fn beyond_the_slack_the_first_one_is_an_alarm_and_the_second_none() {
    let mut bench = trained(10_000);
    let changes = bench.pass(20 * SECOND);
    assert!(changes.iter().any(|(_, change)| *change == Change::Stalled));
    bench.step();
    bench.steps(10, SECOND);
    assert!((25_000..26_600).contains(&deadline_ms(&bench)));
    let changes = bench.pass(20 * SECOND);
    assert!(!changes.iter().any(|(_, change)| *change == Change::Stalled));
}

#[test]
fn what_a_stall_teaches_is_bounded() {
    let mut bench = trained(1_000);
    let before = deadline_ms(&bench);
    bench.pass(400 * SECOND);
    bench.step();
    assert!(deadline_ms(&bench) <= (before + 1) * 5 / 2);
    // Never more than a quarter above the default, however often.
    for _ in 0..10 {
        bench.pass(5_000 * SECOND);
        bench.step();
    }
    assert_eq!(deadline_ms(&bench), 750_000);
}

#[test]
fn a_stall_of_a_stopped_thread_teaches_nothing() {
    let mut bench = trained(1_000);
    let before = deadline_ms(&bench);
    bench.thread = Culprit::Stopped;
    bench.pass(20 * SECOND);
    assert_eq!(bench.rank.stalls(), 1);
    bench.step();
    assert_eq!(deadline_ms(&bench), before);
}

#[test]
fn a_gap_of_the_sampler_teaches_nothing() {
    let mut bench = trained(0);
    // Steps of a minute, of which the sampler sees a second.
    for _ in 0..10 * KNOWN {
        bench.pass(SECOND);
        assert_eq!(bench.look_after(59 * SECOND), None);
        bench.step();
    }
    assert_eq!(deadline_ms(&bench), 600_000);
    bench.steps(KNOWN, SECOND);
    assert!(is_learned(&bench), "{}", deadline_ms(&bench));
}

#[test]
fn grace_teaches_nothing_and_stops_the_clock() {
    let mut bench = trained(100);
    for _ in 0..KNOWN {
        let at = bench.clock.at(bench.now);
        bench.rank.grace(at, 60_000);
        assert_eq!(bench.rank.grace_ns(at), 60 * SECOND);
        assert_eq!(bench.pass(40 * SECOND), []);
        bench.rank.grace(bench.clock.at(bench.now), 0);
        assert_eq!(bench.rank.grace_ns(bench.clock.at(bench.now)), 0);
        assert_eq!(bench.step(), None);
    }
    assert!(is_learned(&bench));
    // What runs after a grace is the whole deadline.
    bench.rank.grace(bench.clock.at(bench.now), 5_000);
    let took = bench.stall() / MS;
    assert!(took.abs_diff(5_000 + deadline_ms(&bench)) <= 15, "{took}");
    // To end what does not run is no sign of life.
    bench.rank.grace(bench.clock.at(bench.now), 0);
    assert_eq!(bench.look(), None);
    assert_eq!(bench.rank.state(), State::Stalled);
}

#[test]
fn a_new_length_is_known_after_four_steps() {
    let mut bench = trained(5_000);
    bench.steps(3, 1_050 * MS);
    for _ in 0..4 {
        bench.pass(5 * SECOND);
        bench.step();
    }
    assert!((60_000..64_000).contains(&deadline_ms(&bench)));
    // And one slow step is no new length.
    let mut bench = trained(5_000);
    bench.pass(8 * SECOND);
    bench.step();
    assert!(is_learned(&bench));
}

#[test]
fn a_rare_slow_step_counts_for_a_week() {
    const DAY: u64 = 86_400 * SECOND;
    let mut bench = trained(10_000);
    bench.pass(11_500 * MS);
    bench.step();
    let (slow, begin) = (bench.rank.deadline_ns(), bench.now);
    assert!(slow >= 14_375 * MS);
    // Days pass in INIT, which is not learned from.
    let mut pass_to = |days| {
        bench.rules.default_ms = u32::MAX;
        bench.rules.generation += 1;
        bench.phase(Phase::Init);
        while bench.now < begin + days * DAY {
            assert_eq!(bench.look_after(10 * PERIOD), None);
        }
        bench.rules.default_ms = RULES.default_ms;
        bench.rules.generation += 1;
        bench.step();
        bench.steps(1, SECOND);
        bench.rank.deadline_ns()
    };
    assert_eq!(pass_to(6), slow);
    assert!(pass_to(9) < 13 * SECOND);
}

#[test]
fn rules_hold_from_the_next_look_on() {
    let mut bench = trained(100);
    bench.pass(500 * MS);
    bench.rules.slack = 3;
    bench.look();
    assert!(is_learned(&bench), "no new generation");
    bench.rules.generation += 1;
    bench.look();
    assert!((3_000..3_300).contains(&deadline_ms(&bench)));
}

#[test]
fn a_short_stop_proves_nothing() {
    let mut bench = trained(1_000);
    // A slow step, and a profiler that stops the thread for 80 ms now and then.
    for n in 0..900 {
        bench.thread = if n % 20 < 8 {
            Culprit::Stopped
        } else {
            Culprit::Spinning
        };
        assert_ne!(bench.look(), Some(Change::Stalled), "at look {n}");
    }
    bench.step();
    assert_eq!(bench.rank.stalls(), 0);
}

#[test]
fn proof_shortens_the_wait() {
    for class in [Culprit::Stopped, Culprit::Frozen, Culprit::Exited] {
        let mut bench = trained(1_000);
        bench.thread = class;
        let took = bench.stall();
        assert!((1_490 * MS..1_650 * MS).contains(&took), "{took}");
    }
    for class in [
        Culprit::Unknown,
        Culprit::Spinning,
        Culprit::Sleeping,
        Culprit::Disk,
    ] {
        let mut bench = trained(1_000);
        bench.thread = class;
        let took = bench.stall();
        assert!(took.abs_diff(bench.rank.deadline_ns()) <= 15 * MS);
    }
}
