// SPDX-License-Identifier: GPL-2.0
//! The agent's whole life on a real BTRFS volume. Needs root and mkfs.btrfs:
//! `cargo test --features crash-points -- --include-ignored`.

mod checkpoint;
mod harness;
mod killed;
mod restore;
mod trouble;
mod volume;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nullhz_agent::abi::{flag, Level};
use nullhz_agent::store;

use harness::{until, Bench};

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn imminent_becomes_a_snapshot_and_an_acknowledgement() {
    let mut bench = Bench::new();
    let mut agent = bench.start("");
    bench.wait_for_rotation(0);
    fs::write(bench.volume.current().join("step"), "41").unwrap();
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    let id: u64 = bench.wait_for_ack(1).parse().unwrap();
    let [snapshot] = bench.snapshots()[..] else {
        panic!("one snapshot");
    };
    assert_eq!(snapshot.info.unwrap().id, id);
    assert_eq!(snapshot.name.incident, 1);
    let path = bench
        .volume
        .layout
        .snapshots_path()
        .join(snapshot.name.to_string());
    assert_eq!(fs::read_to_string(path.join("step")).unwrap(), "41");
    assert!(fs::write(path.join("step"), "42").is_err());

    let state = bench.wait_for_state("report", |state| state.incidents_acked == 1);
    let last = state.last_incident.unwrap();
    assert_eq!(
        (last.incident, last.snapshot_id, last.error),
        (1, Some(id), None)
    );
    assert!(last.awake_ms <= last.acked_ms);
    assert_eq!(state.wake.count, 1);
    agent.stop();
    let state = bench.state().unwrap();
    assert!(!state.up);
    assert_eq!((state.preflush.count, state.snapshot.count), (1, 1));
    let text = fs::read_to_string(bench.volume.outside().join("nullhz.prom")).unwrap();
    let line = "nullhz_agent_event_records_total{source=\"mce\",level=\"imminent\"} 1";
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_storm_makes_one_snapshot() {
    let mut bench = Bench::new();
    let mut agent = bench.start("");
    bench.open(1);
    let mut flags = flag::OPENED;
    for _ in 0..10_000 {
        let event = bench.event(Level::Imminent, 1, flags);
        agent.send(&[event]);
        flags = 0;
    }
    bench.wait_for_ack(1);
    agent.stop();
    assert_eq!(bench.snapshots().len(), 1);
    let state = bench.state().unwrap();
    assert_eq!((state.incidents_opened, state.incidents_acked), (1, 1));
    let records: u64 = state.events.iter().map(|count| count.records).sum();
    assert_eq!(records, 10_000);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_failure_is_acknowledged_with_its_errno() {
    let mut bench = Bench::new();
    let mut agent = bench.start("");
    bench.volume.set_read_only(true);
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    assert_eq!(bench.wait_for_ack(1), "EROFS");
    let state = bench.wait_for_state("report", |state| state.incidents_failed == 1);
    assert!(state
        .last_incident
        .unwrap()
        .error
        .unwrap()
        .contains("EROFS"));
    bench.volume.set_read_only(false);
    bench.open(2);
    let event = bench.event(Level::Imminent, 2, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(2).parse::<u64>().unwrap();
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_volume_that_hangs_is_acknowledged_as_timed_out() {
    let mut bench = Bench::new();
    bench.extra = vec!["--snapshot-deadline-ms".into(), "300".into()];
    let mut agent = bench.start("");
    bench.wait_for_rotation(0);
    bench.volume.freeze(true);
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    assert_eq!(bench.wait_for_ack(1), "ETIMEDOUT");
    bench.volume.freeze(false);
    // What had to wait for the late snapshot gets its own.
    bench.open(2);
    let event = bench.event(Level::Imminent, 2, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(2).parse::<u64>().unwrap();
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn degrading_flushes_and_hooks_run_once() {
    let mut bench = Bench::new();
    let log = bench.log_hook();
    let mut agent = bench.start("");
    for _ in 0..100 {
        let event = bench.event(Level::Degrading, 0, 0);
        agent.send(&[event]);
        let event = bench.event(Level::Watch, 0, 0);
        agent.send(&[event]);
    }
    let event = bench.event(Level::Fatal, 0, flag::PREVIOUS_BOOT);
    agent.send(&[event]);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    until("hook of the FATAL event", || {
        read().contains("fatal").then_some(())
    });
    agent.stop();
    let lines: Vec<serde_json::Value> = read()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let levels: Vec<_> = lines
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels.iter().filter(|level| **level == "watch").count(), 0);
    // One in a second.
    let degrading = levels.iter().filter(|level| **level == "degrading").count();
    assert!((1..=5).contains(&degrading), "{levels:?}");
    let state = bench.state().unwrap();
    assert_eq!(state.degrading_preflushes, 1);
    assert_eq!(state.reset_reason.unwrap().source, "mce");
    assert_eq!(bench.snapshots().len(), 0);

    // Started again: what was told is not told once more.
    let count = lines.len();
    let mut agent = bench.start("");
    agent.send(&[event]);
    sleep(Duration::from_millis(300));
    agent.stop();
    assert_eq!(read().lines().count(), count);
    let state = bench.state().unwrap();
    assert!(state.events.is_empty());
    assert!(state.reset_reason.is_some());
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn what_was_said_last_is_the_reset_reason() {
    let mut bench = Bench::new();
    let mut agent = bench.start("");
    let flags = [
        (flag::BOOT, "found at load, and nothing better"),
        (
            flag::BOOT,
            "the first of these is what the rest follows from",
        ),
        (flag::PREVIOUS_BOOT, "the node's own words"),
        (flag::BOOT, "no better than those"),
    ];
    let mut seconds = Vec::new();
    for (number, (flag, what)) in flags.into_iter().enumerate() {
        let mut event = bench.event(Level::Fatal, 0, flag);
        event.real_ns = (1_795_000_000 + number as u64) * 1_000_000_000;
        agent.send(&[event]);
        let state = until(what, || {
            bench.state().filter(|state| state.last_seq == event.seq)
        });
        seconds.push(state.reset_reason.unwrap().time);
    }
    agent.stop();
    let told: Vec<_> = seconds.iter().map(|second| second - seconds[0]).collect();
    assert_eq!(told, [0.0, 0.0, 2.0, 2.0]);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn an_incident_is_told_twice_however_many_events_join_it() {
    let mut bench = Bench::new();
    let log = bench.log_hook();
    let mut agent = bench.start("");
    bench.open(1);
    let opening = bench.event(Level::Imminent, 1, flag::OPENED);
    let joining = bench.event(Level::Imminent, 1, 0);
    agent.send(&[opening, joining, joining, joining]);
    let read = || fs::read_to_string(&log).unwrap_or_default();
    until("hook of the snapshot", || {
        read().contains("snapshot_id").then_some(())
    });
    agent.stop();
    let types = |kind: &str| read().matches(&format!("{{\"type\":\"{kind}\"")).count();
    assert_eq!((types("event"), types("snapshot")), (1, 1), "{}", read());
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn the_end_waits_for_the_hooks_of_what_was_read() {
    let mut bench = Bench::new();
    let log = bench.volume.outside().join("log");
    bench.hook("slow", &format!("sleep 0.3; echo ran >> {}", log.display()));
    let mut agent = bench.start("");
    // More than run at the same time.
    let events = [(); 5].map(|()| bench.event(Level::Degrading, 0, flag::OPENED));
    agent.send(&events);
    bench.wait_for_state("all events", |state| {
        state.events.first().is_some_and(|count| count.records == 5)
    });
    agent.stop();
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 5);
    assert_eq!(bench.state().unwrap().hooks_ok, 5);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn hooks_have_no_signal_blocked() {
    let mut bench = Bench::new();
    let report = bench.volume.outside().join("report");
    let script = "cat /proc/self/oom_score_adj; grep ^SigBlk /proc/self/status";
    bench.hook(
        "report",
        &format!("({script}) > {0}.new; mv {0}.new {0}", report.display()),
    );
    let mut agent = bench.start("");
    let proc = PathBuf::from(format!("/proc/{}", agent.child.id()));
    // What makes them likelier to be killed is left; less likely needs a
    // capability, and is tested in a virtual machine.
    fs::write(proc.join("oom_score_adj"), "300").unwrap();
    let event = bench.event(Level::Degrading, 0, flag::OPENED);
    agent.send(&[event]);
    let text = until("report", || fs::read_to_string(&report).ok());
    assert_eq!(text, "300\nSigBlk:\t0000000000000000\n");
    // SIGINT and SIGTERM, which the loop reads.
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("SigBlk:\t0000000000004002\n"), "{status}");
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn the_state_is_not_for_everybody() {
    let bench = Bench::new();
    let dir = bench.volume.outside();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    bench.start("").stop();
    let mode = |name| fs::metadata(dir.join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("agent.json"), mode("nullhz.prom")), (0o640, 0o644));
    // As somebody else: where cargo builds may be closed to them.
    let program = dir.join("nullhz-agent");
    fs::copy(env!("CARGO_BIN_EXE_nullhz-agent"), &program).unwrap();
    let state = dir.join("agent.json");
    let output = Command::new(program)
        .args(["status", "--state-file"])
        .arg(&state)
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = format!("agent:     {}: Permission denied", state.display());
    assert!(text.contains(&line), "{text}");
    assert!(!output.status.success());
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn others_files_are_never_touched() {
    let mut bench = Bench::new();
    let dir = bench.volume.layout.snapshots_path();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("precious"), "").unwrap();
    let mut agent = bench.start("");
    let status = until("the agent's end", || agent.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(5));

    // Handed over: what looks like a snapshot but is none stays, too.
    fs::write(dir.join(store::MARK), "").unwrap();
    fs::create_dir(dir.join("20200101T000000.000Z-i1-00000001-1")).unwrap();
    bench
        .volume
        .subvolume(".snapshots/20200101T000000.000Z-i2-00000001-1");
    bench.with_four_more();
    let entries = bench.entries();
    assert_eq!(entries.len(), 6, "{entries:?}");
    assert!(dir.join("precious").exists());
    assert!(dir.join("20200101T000000.000Z-i1-00000001-1").exists());
    assert!(dir.join("20200101T000000.000Z-i2-00000001-1").exists());
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_measurement_leaves_nothing_behind() {
    let bench = Bench::new();
    let output = bench.command(&["bench", "--runs", "2", "--dirty", "0,1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let figures = figures.iter().map(|figure| {
        assert!(figure["durable_ms"]["p50_ms"].as_f64().unwrap() > 0.0);
        (figure["dirty_mib"].as_u64(), figure["preflush"].as_bool())
    });
    let expected = [(0, false), (0, true), (1, false), (1, true)];
    assert!(figures.eq(expected.map(|(mib, flush)| (Some(mib), Some(flush)))));
    let left = fs::read_dir(&bench.volume.layout.volume).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["current"]);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn two_agents_do_not_share_a_volume() {
    let bench = Bench::new();
    let first = bench.start("");
    assert_eq!(bench.start("").end().code(), Some(7));
    first.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_volume_that_cannot_be_used_is_explained() {
    let bench = Bench::new();
    let output = Command::new(env!("CARGO_BIN_EXE_nullhz-agent"))
        .args(["snapshots", "--volume", "/proc"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not on BTRFS"));

    bench.volume.rename_current("elsewhere");
    assert_eq!(bench.start("").end().code(), Some(5));
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn little_memory_is_locked() {
    let bench = Bench::new();
    let agent = bench.start("");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib: u64 = locked
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!((1..16 * 1024).contains(&kib), "{kib} KiB");
    agent.stop();
}
