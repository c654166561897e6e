// SPDX-License-Identifier: GPL-2.0
//! The agent dies; nothing is lost, half-made or done twice.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nullhz_agent::abi::{bus, flag, source, Event, Level};

use crate::harness::{assert_three_valid, until, Bench};

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn three_snapshots_are_kept_and_the_new_one_comes_first() {
    let mut bench = Bench::new();
    bench.with_three();
    // Kept alive: the rotation has deleted nothing when the new one exists.
    let mut agent = bench.start("before-delete");
    bench.wait_for_rotation(3);
    bench.open(4);
    let event = bench.event(Level::Imminent, 4, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(4);
    agent.expect_killed();
    assert_eq!(bench.snapshots().len(), 4);
    let agent = bench.start("");
    assert_three_valid(&bench);
    let incidents: Vec<_> = bench.snapshots().iter().map(|s| s.name.incident).collect();
    assert_eq!(incidents, [2, 3, 4]);
    agent.stop();
}

/// Killed at `point` while it deals with a fourth incident, and started again:
/// nothing is lost, nothing half-made, nothing done twice.
fn killed_at(point: &str, snapshots_after_kill: usize, acked_after_kill: bool) {
    let mut bench = Bench::new();
    bench.with_three();
    let mut agent = bench.start(point);
    bench.wait_for_rotation(3);
    bench.open(4);
    let event = bench.event(Level::Imminent, 4, flag::OPENED);
    agent.send(&[event]);
    agent.expect_killed();
    let after_kill = bench.snapshots();
    assert_eq!(after_kill.len(), snapshots_after_kill);
    assert_eq!(bench.acked(4).is_some(), acked_after_kill);

    // The bus replays what is not acknowledged.
    let mut agent = bench.start("");
    if !acked_after_kill {
        agent.send(&[Event {
            flags: event.flags | flag::REPLAYED,
            ..event
        }]);
    }
    let id: u64 = bench.wait_for_ack(4).parse().unwrap();
    assert_three_valid(&bench);
    let newest = bench.snapshots().pop().unwrap();
    assert_eq!((newest.info.unwrap().id, newest.name.incident), (id, 4));
    if snapshots_after_kill == 4 {
        // The one that was there, not another.
        assert_eq!(newest.name, after_kill.last().unwrap().name);
    }
    agent.stop();
    assert_three_valid(&bench);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_before_the_snapshot() {
    killed_at("before-snapshot", 3, false);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_after_the_snapshot() {
    killed_at("after-snapshot", 4, false);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_before_the_acknowledgement() {
    killed_at("before-ack", 4, false);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_after_the_acknowledgement() {
    killed_at("after-ack", 4, true);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_after_the_deletion() {
    killed_at("after-delete", 3, true);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn killed_at_any_time() {
    let mut bench = Bench::new();
    let mut delay = Duration::from_micros(300);
    for id in 1..=20 {
        let mut agent = bench.start("");
        bench.open(id);
        let event = bench.event(Level::Imminent, id, flag::OPENED);
        agent.send(&[event]);
        sleep(delay);
        delay += Duration::from_micros(700);
        agent.signal(Signal::SIGKILL);
        agent.expect_killed();
    }
    let agent = bench.start("");
    for id in 1..=20 {
        bench.wait_for_ack(id).parse::<u64>().unwrap();
    }
    assert_three_valid(&bench);
    agent.stop();
    assert_three_valid(&bench);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn an_incident_whose_record_was_lost_is_found() {
    let mut bench = Bench::new();
    let mut agent = bench.start("");
    bench.open(1);
    let mut event = bench.event(Level::Watch, 0, 0);
    event.lost = 1;
    agent.send(&[event]);
    bench.wait_for_ack(1);
    agent.stop();
    assert_eq!(bench.state().unwrap().events_lost, 1);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn open_incidents_share_a_snapshot_after_a_restart() {
    let bench = Bench::new();
    for id in 1..=5 {
        bench.open(id);
    }
    let agent = bench.start("");
    let ids: Vec<_> = (1..=5).map(|id| bench.wait_for_ack(id)).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    agent.stop();
    assert_eq!(bench.snapshots().len(), 1);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn an_open_incident_is_found_behind_forgotten_ones() {
    let bench = Bench::new();
    bench.open(1);
    // The bus has forgotten 2 to 6.
    bench.open(7);
    bench.acknowledge(7, 300);
    let agent = bench.start("");
    bench.wait_for_ack(1).parse::<u64>().unwrap();
    agent.stop();
}

/// The outcomes that a hook has logged. Its last line may be on its way.
fn outcomes(log: &Path) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines = log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let lines = lines.map(|line| serde_json::from_str(line).unwrap());
    let is_outcome = |line: &serde_json::Value| line["type"] == "snapshot";
    lines.filter(is_outcome).collect()
}

/// By the record that opened the incident, or by that of the acknowledgement:
/// the bus keeps only so many records.
#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn an_acknowledgement_by_somebody_else_is_told_once() {
    let mut bench = Bench::new();
    let log = bench.log_hook();
    let mut agent = bench.start("");
    for id in 1..=2 {
        bench.open(id);
        bench.acknowledge(id, 300 + id);
        let opened = bench.event(Level::Imminent, id, flag::OPENED);
        let acked = Event {
            source: source::BUS,
            kind: bus::ACKED,
            ..bench.event(Level::Watch, id, 0)
        };
        if id == 1 {
            agent.send(&[opened]);
        }
        agent.send(&[acked]);
        let told = until("the outcome", || {
            Some(outcomes(&log)).filter(|told| told.len() as u64 == id)
        });
        let outcome = told.last().unwrap();
        assert_eq!(
            (&outcome["incident"], &outcome["snapshot_id"]),
            (&id.into(), &(300 + id).into())
        );
    }
    // Nothing is told twice, and there is nothing to do.
    bench.open(3);
    let event = bench.event(Level::Imminent, 3, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(3).parse::<u64>().unwrap();
    bench.wait_for_state("three incidents", |state| state.incidents_acked == 3);
    agent.stop();
    let incidents: Vec<_> = outcomes(&log)
        .iter()
        .map(|told| told["incident"].clone())
        .collect();
    assert_eq!(incidents, [1, 2, 3]);
    assert_eq!(bench.snapshots().len(), 1);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn an_outcome_is_told_by_the_next_life() {
    let mut bench = Bench::new();
    let log = bench.log_hook();
    let told = || outcomes(&log);
    // Before there was an agent.
    bench.open(1);
    bench.acknowledge(1, 300);
    let mut agent = bench.start("after-ack");
    bench.open(2);
    let event = bench.event(Level::Imminent, 2, flag::OPENED);
    agent.send(&[event]);
    agent.expect_killed();
    let id: u64 = bench.wait_for_ack(2).parse().unwrap();
    assert_eq!(told().len(), 0);

    for _ in 0..2 {
        bench.start("").stop();
        let [outcome] = &told()[..] else {
            panic!("{:?}", told());
        };
        assert_eq!(
            (&outcome["incident"], &outcome["snapshot_id"]),
            (&2.into(), &id.into())
        );
        assert_eq!(bench.state().unwrap().told_incident, Some(2));
    }
    assert_eq!(bench.snapshots().len(), 1);
}
