// SPDX-License-Identifier: GPL-2.0
//! The agent's whole life on a real BTRFS volume. Needs root and mkfs.btrfs:
//! `cargo test --features crash-points -- --include-ignored`.

mod volume;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use nullhz_agent::abi::{flag, source, state, Event, Incident, Level};
use nullhz_agent::agent::state::State;
use nullhz_agent::snapshot::{self, Snapshot};
use nullhz_agent::store::{self, monotonic_ns};
use volume::Volume;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    volume: Volume,
    bus: PathBuf,
    next_seq: u64,
    extra: Vec<String>,
}

struct Agent {
    child: Child,
    stdin: ChildStdin,
}

impl Bench {
    fn new() -> Self {
        let volume = Volume::new();
        let bus = volume.outside().join("bus");
        fs::create_dir(&bus).unwrap();
        Self {
            volume,
            bus,
            next_seq: 1,
            extra: Vec::new(),
        }
    }

    fn start(&self, crash_at: &str) -> Agent {
        let out = self.volume.outside();
        let mut child = Command::new(env!("CARGO_BIN_EXE_agent-on-a-pipe"))
            .args(["--priority", "0", "--bus"])
            .arg(&self.bus)
            .arg("--volume")
            .arg(&self.volume.layout.volume)
            .arg("--state-file")
            .arg(out.join("agent.json"))
            .arg("--textfile")
            .arg(out.join("nullhz.prom"))
            .arg("--hooks")
            .arg(out.join("hooks.d"))
            .args(&self.extra)
            .env("NULLHZ_AGENT_CRASH_AT", crash_at)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let pid = child.id();
        until("the agent's start or end", || {
            let ready = |state: &State| state.up && state.pid == pid;
            let ready = self.state().is_some_and(|state| ready(&state));
            (ready || child.try_wait().unwrap().is_some()).then_some(())
        });
        Agent { child, stdin }
    }

    /// The bus opens an incident.
    fn open(&self, id: u64) {
        let now_ns = monotonic_ns();
        let incident = Incident {
            incident: id,
            opened_ns: now_ns,
            deadline_ns: now_ns + 60_000_000_000,
            state: state::OPEN,
            ..Incident::ZERO
        };
        fs::write(self.bus.join(format!("incident-{id}")), incident.to_bytes()).unwrap();
    }

    fn event(&mut self, level: Level, incident: u64, flags: u8) -> Event {
        let seq = self.next_seq;
        self.next_seq += 1;
        Event {
            size: 256,
            version: 1,
            level: level as u8,
            flags,
            seq,
            mono_ns: monotonic_ns(),
            real_ns: 1_795_182_912_000_000_000,
            boot_id: *b"made-up boot id.",
            source: source::MCE,
            count: 1,
            cpu: 3,
            incident,
            ..Event::ZERO
        }
    }

    fn acked(&self, id: u64) -> Option<String> {
        fs::read_to_string(self.bus.join(format!("ack-{id}"))).ok()
    }

    fn wait_for_ack(&self, id: u64) -> String {
        until(&format!("acknowledgement of {id}"), || self.acked(id))
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        store::list_only(&self.volume.layout).unwrap()
    }

    fn wait_for_snapshots(&self, count: usize) -> Vec<Snapshot> {
        until(&format!("{count} snapshots"), || {
            Some(self.snapshots()).filter(|list| list.len() == count)
        })
    }

    fn state(&self) -> Option<State> {
        let text = fs::read_to_string(self.volume.outside().join("agent.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn wait_for_state(&self, what: &str, test: impl Fn(&State) -> bool) -> State {
        until(what, || self.state().filter(&test))
    }

    /// The agent deletes what is too old when it starts; wait for that.
    fn wait_for_rotation(&self, left: u64) {
        self.wait_for_state("rotation", |state| {
            state.up && state.rotations == 1 && state.snapshots_kept == left
        });
    }

    /// Everything in the directory of snapshots but the mark.
    fn entries(&self) -> Vec<String> {
        let path = self.volume.layout.snapshots_path();
        let names = fs::read_dir(path).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != store::MARK).collect()
    }

    /// Three incidents, each with its snapshot.
    fn with_three(&mut self) {
        let mut agent = self.start("");
        for id in 1..=3 {
            self.open(id);
            let event = self.event(Level::Imminent, id, flag::OPENED);
            agent.send(&[event]);
            self.wait_for_ack(id);
        }
        self.wait_for_state("three incidents", |state| state.incidents_acked == 3);
        agent.stop();
        assert_eq!(self.snapshots().len(), 3);
    }
}

impl Agent {
    fn send(&mut self, events: &[Event]) {
        for event in events {
            self.stdin.write_all(&event.to_bytes()).unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn stop(self) {
        self.signal(Signal::SIGTERM);
        let status = self.end();
        assert!(status.success(), "{status}");
    }

    fn end(mut self) -> ExitStatus {
        until("the agent's end", || self.child.try_wait().unwrap())
    }

    fn expect_killed(self) {
        assert_eq!(self.end().signal(), Some(Signal::SIGKILL as i32));
    }
}

fn until<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = test() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} in {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
}

fn assert_three_valid(bench: &Bench) {
    let snapshots = bench.wait_for_snapshots(3);
    for snapshot in &snapshots {
        assert_eq!(snapshot.state(), snapshot::State::Valid);
    }
    assert_eq!(bench.entries().len(), 3, "{:?}", bench.entries());
}

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
fn three_snapshots_are_kept_and_the_new_one_comes_first() {
    let mut bench = Bench::new();
    bench.with_three();
    // Kept alive: the rotation has deleted nothing when the new one exists.
    let mut agent = bench.start("before-delete");
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
    let hooks = bench.volume.outside().join("hooks.d");
    let log = bench.volume.outside().join("log");
    fs::create_dir(&hooks).unwrap();
    let hook = hooks.join("log");
    fs::write(&hook, format!("#!/bin/sh\ncat >> {}\n", log.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
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

impl Bench {
    fn with_four_more(&mut self) {
        let mut agent = self.start("");
        for id in 1..=4 {
            self.open(id);
            let event = self.event(Level::Imminent, id, flag::OPENED);
            agent.send(&[event]);
            self.wait_for_ack(id);
        }
        self.wait_for_state("rotation", |state| state.snapshots_deleted == 1);
        agent.stop();
    }
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
fn a_restored_subvolume_is_the_next_one_snapshotted() {
    let mut bench = Bench::new();
    let current = bench.volume.current();
    fs::write(current.join("step"), "1").unwrap();
    let mut agent = bench.start("");
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(1);
    fs::write(current.join("step"), "2").unwrap();
    let restored = bench.cli(&["restore", "latest", "--json"]);
    let before = restored["before"].as_str().unwrap();
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "1");
    assert_eq!(
        fs::read_to_string(Path::new(before).join("step")).unwrap(),
        "2"
    );

    fs::write(current.join("step"), "3").unwrap();
    bench.open(2);
    let event = bench.event(Level::Imminent, 2, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(2);
    let newest = bench.snapshots().pop().unwrap();
    let path = bench
        .volume
        .layout
        .snapshots_path()
        .join(newest.name.to_string());
    assert_eq!(fs::read_to_string(path.join("step")).unwrap(), "3");
    agent.stop();
}

impl Bench {
    fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_nullhz-agent"))
            .args(args)
            .env("NULLHZ_VOLUME", &self.volume.layout.volume)
            .output()
            .unwrap()
    }

    fn cli(&self, args: &[&str]) -> serde_json::Value {
        let output = self.command(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn restore_refuses_a_subvolume_in_use_and_survives_being_killed() {
    let mut bench = Bench::new();
    let current = bench.volume.current();
    fs::write(current.join("step"), "1").unwrap();
    bench.with_three();
    fs::write(current.join("step"), "2").unwrap();

    let user = fs::File::open(current.join("step")).unwrap();
    let refused = bench.command(&["restore", "latest"]);
    assert_eq!(refused.status.code(), Some(7));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains(&format!("(pid {})", std::process::id())),
        "{text}"
    );
    drop(user);

    let killed = |point: &str| {
        let status = Command::new(env!("CARGO_BIN_EXE_nullhz-agent"))
            .args(["restore", "latest"])
            .env("NULLHZ_VOLUME", &bench.volume.layout.volume)
            .env("NULLHZ_AGENT_CRASH_AT", point)
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    };
    killed("before-exchange");
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "2");
    killed("after-exchange");
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "1");
    let kept = fs::read_dir(&bench.volume.layout.volume)
        .unwrap()
        .any(|entry| {
            let step = entry.unwrap().path().join("step");
            fs::read_to_string(step).is_ok_and(|text| text == "2")
        });
    assert!(kept, "the former contents are somewhere");

    let copy = bench.cli(&["restore", "i2", "--to", "copy", "--json"]);
    assert_eq!(copy["before"], serde_json::Value::Null);
    fs::write(bench.volume.layout.volume.join("copy/step"), "4").unwrap();
    assert_eq!(
        bench
            .command(&["restore", "i2", "--to", "copy"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(
        bench
            .command(&["restore", "i2", "--to", "../x"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(bench.command(&["restore", "i9"]).status.code(), Some(6));
    assert_eq!(bench.snapshots().len(), 3);
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
