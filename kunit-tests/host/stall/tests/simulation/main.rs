// SPDX-License-Identifier: GPL-2.0

//! Days of training through the detector, at 100 looks per second: no false alarm, and every stall
//! that is put in is found within the documented bound.
//!
//! The step times are simulated, but for those of one job ([`recorded`]). `cargo test -p nullhz-stall-host --test simulation -- --nocapture`
//! prints what each day was like.

mod recorded;
mod sampler;
mod trace;

use nullhz_stall_host::deadline::Rules;
use sampler::{Day, Run, Sampler};
use trace::{Job, Lengths, Pauses, Slow, HOUR, MS, SECOND};

/// Medians of a step, ms.
const STEPS: [u64; 7] = [1_000, 100, 3_000, 20, 400, 10_000, 30_000];

fn days(name: &str, job: &Job, sampler: Sampler, steps: &[u64]) {
    for (seed, ms) in steps.iter().enumerate() {
        let job = Job {
            step_ns: ms * MS,
            ..*job
        };
        let seed = seed as u64;
        let mut day = Run::day(&job, &Rules::DEFAULT, sampler, seed);
        println!("{}", line(name, *ms, seed, &mut day));
        assert_eq!(day.false_alarms, 0, "{name}, step {ms} ms, seed {seed}");
        assert!(!day.found.is_empty(), "{name}: no stall was put in");
    }
}

fn line(name: &str, ms: u64, seed: u64, day: &mut Day) -> String {
    let of = |mut times: Vec<u64>| {
        times.sort_unstable();
        let at = |place: usize| times.get(place).copied().unwrap_or(0) / MS;
        (at(times.len() / 2), at(times.len().saturating_sub(1)))
    };
    let any = of(day.found.iter().map(|(any, _)| *any).collect());
    let stopped = of(day.found.iter().map(|(_, stopped)| *stopped).collect());
    format!(
        "{name:<12} step {ms:>5} ms seed {seed}: {:>7} steps, {} false alarms, {:>4} suspects, {} gaps; \
         {} stalls in STEP found after p50 {} max {} ms, stopped ones p50 {} max {} ms",
        day.steps,
        day.false_alarms,
        day.suspects,
        day.gaps,
        day.found.len(),
        any.0,
        any.1,
        stopped.0,
        stopped.1,
    )
}

macro_rules! jobs {
    ($($name:ident: $steps:expr, $sampler:ident, $job:expr;)*) => {$(
        #[test]
        fn $name() {
            days(stringify!($name), &$job, Sampler::$sampler, $steps);
        }
    )*};
}

jobs! {
    steady: &STEPS, OnTime, Job::PLAIN;
    as_recorded: &STEPS[..2], OnTime, Job { recorded: true, ..Job::PLAIN };
    noisy: &STEPS, OnTime, Job { jitter: 0.2, ..Job::PLAIN };
    slow_often: &STEPS, OnTime, Job { slow: Slow::OneIn(100), ..Job::PLAIN };
    slow_now_and_then: &STEPS, OnTime, Job { slow: Slow::OneIn(3_000), ..Job::PLAIN };
    slow_rarely: &STEPS, OnTime, Job { slow: Slow::OneIn(50_000), ..Job::PLAIN };
    slow_once_late: &STEPS, OnTime, Job { slow: Slow::Once(23 * HOUR), ..Job::PLAIN };
    hiccups: &STEPS, OnTime, Job { hiccups: 300, jitter: 0.1, ..Job::PLAIN };
    slower: &STEPS[..6], OnTime, Job { drift: 2.5, slow: Slow::OneIn(3_000), jitter: 0.05, ..Job::PLAIN };
    faster: &STEPS, OnTime, Job { drift: 0.3, slow: Slow::OneIn(3_000), jitter: 0.05, ..Job::PLAIN };
    lengths: &STEPS[..6], OnTime, Job {
        lengths: Lengths::Doubles(2), slow: Slow::OneIn(500), jitter: 0.05, ..Job::PLAIN
    };
    mixed: &STEPS[..6], OnTime, Job {
        lengths: Lengths::Mixed, slow: Slow::OneIn(500), jitter: 0.05, ..Job::PLAIN
    };
    pauses: &STEPS, OnTime, Job { pauses: Pauses::Phases, ..Job::PLAIN };
    graces: &STEPS, OnTime, Job { pauses: Pauses::Grace, ..Job::PLAIN };
    peers: &STEPS[..6], OnTime, Job { peers: true, ..Job::PLAIN };
    compiles: &STEPS, OnTime, Job { compiles: 2 * HOUR, ..Job::PLAIN };
    restarts: &STEPS, OnTime, Job { restarts: 3 * HOUR, slow: Slow::OneIn(3_000), ..Job::PLAIN };
    late_sampler: &STEPS, Late, Job { slow: Slow::OneIn(3_000), ..Job::PLAIN };
    starved_sampler: &STEPS, Starved, Job { slow: Slow::OneIn(3_000), ..Job::PLAIN };
    paused_machine: &STEPS, Paused, Job { slow: Slow::OneIn(3_000), ..Job::PLAIN };
    everything: &STEPS[..6], OnTime, Job {
        jitter: 0.08,
        slow: Slow::OneIn(2_000),
        hiccups: 500,
        lengths: Lengths::Doubles(1),
        drift: 1.3,
        pauses: Pauses::Phases,
        peers: true,
        compiles: 4 * HOUR,
        restarts: 8 * HOUR,
        ..Job::PLAIN
    };
}

/// The target for a learned deadline: steps of a second, and a second and a half.
#[test]
fn a_stopped_rank_with_steps_of_a_second() {
    let day = Run::day(&Job::PLAIN, &Rules::DEFAULT, Sampler::OnTime, 42);
    let (_, stopped) = day
        .found
        .iter()
        .max_by_key(|(_, stopped)| *stopped)
        .unwrap();
    assert!(*stopped < 7 * SECOND / 4, "{stopped}");
}

/// Without slack every stall is found as fast, and the first slow step is a false alarm; the next
/// one is none.
#[test]
fn without_slack() {
    let rules = Rules {
        slack: 1,
        ..Rules::DEFAULT
    };
    let job = Job {
        slow: Slow::OneIn(20_000),
        ..Job::PLAIN
    };
    let day = Run::day(&Job::PLAIN, &rules, Sampler::OnTime, 42);
    assert_eq!(day.false_alarms, 0);
    let (any, _) = day.found.iter().max_by_key(|(any, _)| *any).unwrap();
    assert!(*any < 7 * SECOND / 4, "{any}");
    let day = Run::day(&job, &rules, Sampler::OnTime, 42);
    assert!((1..=3).contains(&day.false_alarms), "{day:?}");
}
