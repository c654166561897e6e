// SPDX-License-Identifier: GPL-2.0
//! The agent, a bus and a volume for a test.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use nullhz_agent::abi::{flag, source, state, Event, Incident, Level};
use nullhz_agent::agent::state::State;
use nullhz_agent::snapshot::{self, Snapshot};
use nullhz_agent::store::{self, monotonic_ns};

use crate::volume::Volume;

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Bench {
    pub volume: Volume,
    pub bus: PathBuf,
    next_seq: u64,
    pub extra: Vec<String>,
}

pub struct Agent {
    pub child: Child,
    stdin: ChildStdin,
}

impl Bench {
    pub fn new() -> Self {
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

    pub fn start(&self, crash_at: &str) -> Agent {
        let out = self.volume.outside();
        let mut child = Command::new(env!("CARGO_BIN_EXE_agent-on-a-pipe"))
            .args(["--priority", "0", "--bus"])
            .arg(&self.bus)
            .arg("--ranks")
            .arg(self.ranks_dir())
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
            .stderr(self.stderr())
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

    fn ranks_dir(&self) -> PathBuf {
        self.volume.outside().join("ranks")
    }

    /// A stall watchdog with so many ranks.
    pub fn with_ranks(&self, count: u32) {
        fs::create_dir(self.ranks_dir()).unwrap();
        fs::write(self.ranks_dir().join("ranks"), count.to_string()).unwrap();
    }

    /// The newest checkpoint request, 0: none.
    pub fn request(&self) -> u32 {
        let text = fs::read_to_string(self.ranks_dir().join("request"));
        text.map_or(0, |text| text.parse().unwrap())
    }

    pub fn wait_for_request(&self) -> u32 {
        until("checkpoint request", || {
            Some(self.request()).filter(|request| *request > 0)
        })
    }

    pub fn answer(&self, request: u32, rank: u32) {
        fs::write(
            self.ranks_dir().join(format!("answer-{request}-{rank}")),
            "",
        )
        .unwrap();
    }

    pub fn stall(&self, rank: u32) {
        fs::write(self.ranks_dir().join(format!("stalled-{rank}")), "").unwrap();
    }

    /// What the agents say, shown when the test fails.
    fn stderr(&self) -> fs::File {
        let mut options = fs::File::options();
        let path = self.volume.outside().join("stderr");
        options.create(true).append(true).open(path).unwrap()
    }

    /// What the agents have said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.volume.outside().join("stderr")).unwrap_or_default()
    }

    /// The bus opens an incident.
    pub fn open(&self, id: u64) {
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

    /// Somebody acknowledges an incident.
    pub fn acknowledge(&self, id: u64, snapshot_id: u64) {
        let path = self.bus.join(format!("ack-{id}"));
        fs::write(path, snapshot_id.to_string()).unwrap();
    }

    pub fn event(&mut self, level: Level, incident: u64, flags: u8) -> Event {
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

    /// A hook in bash: dash starts with a signal mask of its own.
    pub fn hook(&self, name: &str, script: &str) {
        let hooks = self.volume.outside().join("hooks.d");
        fs::create_dir_all(&hooks).unwrap();
        let hook = hooks.join(name);
        fs::write(&hook, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Has what the hooks get written to the file that it returns.
    pub fn log_hook(&self) -> PathBuf {
        let log = self.volume.outside().join("log");
        self.hook("log", &format!("cat >> {}", log.display()));
        log
    }

    pub fn acked(&self, id: u64) -> Option<String> {
        fs::read_to_string(self.bus.join(format!("ack-{id}"))).ok()
    }

    pub fn wait_for_ack(&self, id: u64) -> String {
        until(&format!("acknowledgement of {id}"), || self.acked(id))
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        store::list_only(&self.volume.layout).unwrap()
    }

    pub fn wait_for_snapshots(&self, count: usize) -> Vec<Snapshot> {
        until(&format!("{count} snapshots"), || {
            Some(self.snapshots()).filter(|list| list.len() == count)
        })
    }

    pub fn state(&self) -> Option<State> {
        let text = fs::read_to_string(self.volume.outside().join("agent.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn wait_for_state(&self, what: &str, test: impl Fn(&State) -> bool) -> State {
        until(what, || self.state().filter(&test))
    }

    /// The agent deletes what is too old when it starts; wait for that.
    pub fn wait_for_rotation(&self, left: u64) {
        self.wait_for_state("rotation", |state| {
            state.up && state.rotations == 1 && state.snapshots_kept == left
        });
    }

    /// Everything in the directory of snapshots but the mark.
    pub fn entries(&self) -> Vec<String> {
        let path = self.volume.layout.snapshots_path();
        let names = fs::read_dir(path).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != store::MARK).collect()
    }

    /// Three incidents, each with its snapshot.
    pub fn with_three(&mut self) {
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

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

impl Agent {
    pub fn send(&mut self, events: &[Event]) {
        for event in events {
            self.stdin.write_all(&event.to_bytes()).unwrap();
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn stop(self) {
        self.signal(Signal::SIGTERM);
        let status = self.end();
        assert!(status.success(), "{status}");
    }

    pub fn end(mut self) -> ExitStatus {
        until("the agent's end", || self.child.try_wait().unwrap())
    }

    pub fn expect_killed(self) {
        assert_eq!(self.end().signal(), Some(Signal::SIGKILL as i32));
    }
}

pub fn until<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = test() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} in {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
}

pub fn assert_three_valid(bench: &Bench) {
    let snapshots = bench.wait_for_snapshots(3);
    for snapshot in &snapshots {
        assert_eq!(snapshot.state(), snapshot::State::Valid);
    }
    assert_eq!(bench.entries().len(), 3, "{:?}", bench.entries());
}

impl Bench {
    pub fn with_four_more(&mut self) {
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

impl Bench {
    pub fn command(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_nullhz-agent"))
            .args(args)
            .env("NULLHZ_VOLUME", &self.volume.layout.volume)
            .output()
            .unwrap()
    }

    pub fn cli(&self, args: &[&str]) -> serde_json::Value {
        let output = self.command(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
