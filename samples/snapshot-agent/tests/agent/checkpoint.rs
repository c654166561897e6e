// SPDX-License-Identifier: GPL-2.0
//! The ranks are asked for a checkpoint before the snapshot, and hold nothing up.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nullhz_agent::abi::{flag, source, Event, Level};
use nullhz_agent::agent::state::CheckpointReport;
use nullhz_stall::abi::event as stall_event;

use crate::harness::{Agent, Bench};

/// Longer than any test takes; what does not wait for it, waited for something
/// else.
const LONG: &str = "25000";

fn imminent(bench: &mut Bench, agent: &mut Agent, id: u64) {
    bench.open(id);
    let event = bench.event(Level::Imminent, id, flag::OPENED);
    agent.send(&[event]);
}

fn report(bench: &Bench) -> CheckpointReport {
    let state = bench.wait_for_state("report", |state| state.incidents_acked == 1);
    state.last_incident.unwrap().checkpoint.unwrap()
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn the_snapshot_holds_the_checkpoint_that_was_asked_for() {
    let mut bench = Bench::new();
    bench.with_ranks(2);
    bench.extra = vec!["--checkpoint-budget-ms".into(), LONG.into()];
    let mut agent = bench.start("");
    imminent(&mut bench, &mut agent, 1);
    let request = bench.wait_for_request();
    bench.answer(request, 0);
    sleep(Duration::from_millis(100));
    assert_eq!(bench.acked(1), None);
    fs::write(bench.volume.current().join("step"), "42").unwrap();
    bench.answer(request, 1);
    bench.wait_for_ack(1);
    let name = bench.snapshots()[0].name.to_string();
    let step = bench.volume.layout.snapshots_path().join(name).join("step");
    assert_eq!(fs::read_to_string(step).unwrap(), "42");
    let report = report(&bench);
    assert_eq!(
        (report.asked, report.answered, &*report.end),
        (2, 2, "answered")
    );
    assert!(
        report.wait_ms >= 100.0 && report.to_snapshot_ms > report.wait_ms,
        "{report:?}"
    );
    let state = bench.state().unwrap();
    assert_eq!(state.request_to_snapshot.last_ms, report.to_snapshot_ms);
    assert_eq!(state.stall.unwrap().ranks, 2);
    agent.stop();
    let text = fs::read_to_string(bench.volume.outside().join("nullhz.prom")).unwrap();
    for line in [
        "nullhz_agent_checkpoint_requests_total 1",
        "nullhz_agent_ranks 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_stalled_rank_holds_nothing_up() {
    let mut bench = Bench::new();
    bench.with_ranks(2);
    bench.stall(1);
    bench.extra = vec!["--checkpoint-budget-ms".into(), LONG.into()];
    let mut agent = bench.start("");
    let begun = Instant::now();
    imminent(&mut bench, &mut agent, 1);
    let request = bench.wait_for_request();
    bench.answer(request, 0);
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15));
    let report = report(&bench);
    assert_eq!(
        (report.asked, report.answered, &*report.end),
        (2, 1, "stalled")
    );
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn ranks_that_do_not_answer_cost_the_budget_and_not_the_snapshot() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    bench.extra = vec!["--checkpoint-budget-ms".into(), "300".into()];
    let mut agent = bench.start("");
    imminent(&mut bench, &mut agent, 1);
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    let report = report(&bench);
    assert_eq!((report.answered, &*report.end), (0, "out-of-time"));
    // It begins before the request.
    assert!((250.0..1000.0).contains(&report.wait_ms), "{report:?}");
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn half_of_the_deadline_is_left_for_the_snapshot() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    bench.extra = [
        "--checkpoint-budget-ms",
        LONG,
        "--snapshot-deadline-ms",
        "2000",
    ]
    .map(Into::into)
    .into();
    let mut agent = bench.start("");
    imminent(&mut bench, &mut agent, 1);
    // ETIMEDOUT would come at 2 s.
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    let report = report(&bench);
    assert!(report.wait_ms <= 1100.0, "{report:?}");
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn without_a_budget_nobody_is_asked() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    bench.extra = vec!["--checkpoint-budget-ms".into(), "0".into()];
    let mut agent = bench.start("");
    imminent(&mut bench, &mut agent, 1);
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    assert_eq!(bench.request(), 0);
    agent.stop();
}

/// These events make an agent ask and pre-flush so many times, and no more.
fn expect(bench: &mut Bench, events: &[Event], requests: u64, preflushes: u64) {
    let mut agent = bench.start("");
    agent.send(events);
    bench.wait_for_state("preparations", |state| {
        (state.checkpoint_requests, state.degrading_preflushes) == (requests, preflushes)
    });
    agent.stop();
    assert_eq!(bench.snapshots().len(), 0);
    let state = bench.state().unwrap();
    let records: u64 = state.events.iter().map(|count| count.records).sum();
    assert_eq!(records, events.len() as u64);
    assert_eq!(
        (state.checkpoint_requests, state.degrading_preflushes),
        (requests, preflushes)
    );
    assert_eq!(u64::from(bench.request()), requests);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_degrading_node_asks_for_one_checkpoint() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    let events = [(); 3].map(|()| bench.event(Level::Degrading, 0, 0));
    expect(&mut bench, &events, 1, 1);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_suspect_rank_is_a_reason_for_a_preflush_only() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    let mut of_stall = |level, kind| Event {
        source: source::STALL,
        kind,
        ..bench.event(level, 0, 0)
    };
    let events = [
        of_stall(Level::Watch, stall_event::REGISTERED),
        of_stall(Level::Watch, stall_event::SUSPECT),
        of_stall(Level::Degrading, stall_event::CRASHED),
    ];
    expect(&mut bench, &events[..1], 0, 0);
    let mut bench = Bench::new();
    bench.with_ranks(1);
    expect(&mut bench, &events, 0, 1);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_while_it_waits_for_answers() {
    let mut bench = Bench::new();
    bench.with_ranks(1);
    bench.extra = vec!["--checkpoint-budget-ms".into(), LONG.into()];
    let mut agent = bench.start("");
    imminent(&mut bench, &mut agent, 1);
    let request = bench.wait_for_request();
    agent.signal(Signal::SIGKILL);
    agent.expect_killed();
    assert_eq!(bench.snapshots().len(), 0);
    let agent = bench.start("");
    while bench.request() == request {
        sleep(Duration::from_millis(5));
    }
    bench.answer(bench.request(), 0);
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    assert_eq!(bench.snapshots().len(), 1);
    agent.stop();
}
