// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent status`: the bus, the agent and the snapshots at a glance.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nullhz_stall::abi;
use serde::Serialize;

use super::snapshots::{self, SnapshotView};
use super::{print, print_json};
use crate::abi::Info;
use crate::agent::state::State;
use crate::agent::stats::{ms, Summary};
use crate::bus::{self, Bus, Device};
use crate::error::{Error, Result};
use crate::ranks::{self, Watchdogs};
use crate::snapshot::Snapshot;
use crate::stall_text;
use crate::store::{self, Layout};
use crate::view;

#[derive(Debug, Serialize)]
struct Status {
    bus: Result<BusView, String>,
    watchdog: Result<WatchdogView, String>,
    agent: Option<AgentView>,
    snapshots: Result<Vec<SnapshotView>, String>,
}

#[derive(Debug, Serialize)]
struct BusView {
    boot_id: String,
    abi_version: u32,
    newest_seq: u64,
    ring_events: u32,
    sources: Vec<String>,
    open_incidents: Vec<u64>,
    last_incident: u64,
    last_snapshot_id: u64,
}

/// The stall watchdog.
#[derive(Debug, Serialize)]
struct WatchdogView {
    /// A hardware watchdog will reset the node.
    armed: bool,
    /// Watchdog resets within the budget's window.
    resets: u32,
    period_ms: u32,
    max_ranks: u32,
    ranks: Vec<RankView>,
}

#[derive(Debug, Serialize)]
struct RankView {
    rank: u32,
    /// The job.
    name: String,
    pid: i32,
    tid: i32,
    state: String,
    phase: String,
    step: u64,
    progress: u64,
    /// Since its last progress.
    age_ms: f64,
    deadline_ms: f64,
    grace_ms: f64,
    steps_seen: u64,
    /// Times that it reached STALLED.
    stalls: u32,
    /// The last checkpoint request that it answered.
    checkpoint_ack: u32,
}

#[derive(Debug, Serialize)]
struct AgentView {
    running: bool,
    #[serde(flatten)]
    state: State,
}

/// Where the parts of the status come from.
pub struct Places {
    /// The fault bus.
    pub bus: PathBuf,
    /// The stall watchdog.
    pub watchdog: PathBuf,
    /// The checkpoint volume.
    pub layout: Layout,
    /// The agent's own state.
    pub state_file: PathBuf,
}

impl Places {
    /// Prints the status.
    ///
    /// # Errors
    ///
    /// The one that keeps the bus from being asked, after everything was printed.
    pub fn run(&self, json: bool) -> Result<()> {
        let bus = Device::open(&self.bus).and_then(|device| bus_view(&device));
        let watchdog = watchdog_view(&self.watchdog);
        let agent = agent_view(&self.state_file);
        let snapshots = store::list_only(&self.layout);
        if json {
            let text = |err: &Error| err.to_string();
            let views = |list: &Vec<Snapshot>| {
                list.iter()
                    .map(|snapshot| SnapshotView::new(&self.layout, snapshot))
                    .collect()
            };
            let (failed, bus) = split(bus);
            print_json(&Status {
                bus: bus.ok_or_else(|| failed.as_ref().map(text).unwrap_or_default()),
                watchdog: watchdog.map_err(|err| err.to_string()),
                agent: agent.ok().flatten(),
                snapshots: snapshots.as_ref().map(views).map_err(text),
            })?;
            return failed.map_or(Ok(()), Err);
        }
        let failed = match bus {
            Ok(bus) => {
                print(&bus_lines(&bus))?;
                None
            }
            Err(err) => {
                print("bus:       not available")?;
                Some(err)
            }
        };
        match &watchdog {
            Ok(watchdog) => print(&watchdog_lines(watchdog))?,
            Err(nullhz_stall::Error::NoDevice(_)) => print("watchdog:  not loaded")?,
            Err(err) => print(&format!("watchdog:  {err}"))?,
        }
        match &agent {
            Ok(Some(agent)) => print(&agent_lines(agent))?,
            Ok(None) => print(&format!(
                "agent:     never ran (no {})",
                self.state_file.display()
            ))?,
            Err(err) => print(&format!("agent:     {err}"))?,
        }
        match snapshots {
            Ok(list) => {
                print(&format!(
                    "snapshots: {} in {}",
                    list.len(),
                    self.layout.snapshots_path().display()
                ))?;
                for line in snapshots::table(&list).iter().filter(|_| !list.is_empty()) {
                    print(&format!("  {line}"))?;
                }
            }
            Err(err) => print(&format!("snapshots: {err}"))?,
        }
        failed.map_or(Ok(()), Err)
    }
}

fn split<T, E>(result: Result<T, E>) -> (Option<E>, Option<T>) {
    match result {
        Ok(value) => (None, Some(value)),
        Err(err) => (Some(err), None),
    }
}

fn bus_view(device: &Device) -> Result<BusView> {
    let ask = || -> nix::Result<(Info, Vec<u64>)> {
        let open = bus::unacknowledged(device)?;
        Ok((
            device.info()?,
            open.iter().map(|incident| incident.incident).collect(),
        ))
    };
    let (info, open_incidents) = ask().map_err(|errno| Error::Bus {
        what: "INFO",
        errno,
    })?;
    let registered = |id: &u16| info.sources >> id & 1 != 0;
    Ok(BusView {
        boot_id: view::uuid(&info.boot_id),
        abi_version: info.abi_version,
        newest_seq: info.head_seq,
        ring_events: info.ring_events,
        sources: (0..64).filter(registered).map(view::source_name).collect(),
        open_incidents,
        last_incident: info.last_incident,
        last_snapshot_id: info.last_snapshot_id,
    })
}

fn watchdog_view(device: &PathBuf) -> Result<WatchdogView, nullhz_stall::Error> {
    let device = device.open()?;
    let info = device.info()?;
    Ok(WatchdogView {
        armed: info.armed != 0,
        resets: info.resets,
        period_ms: info.period_ms,
        max_ranks: info.max_ranks,
        ranks: device.ranks()?.iter().map(rank_view).collect(),
    })
}

fn rank_view(rank: &abi::Rank) -> RankView {
    RankView {
        rank: rank.rank,
        name: ranks::job(&rank.name),
        pid: rank.pid,
        tid: rank.tid,
        state: stall_text::state_name(rank.state),
        phase: stall_text::phase_name(rank.phase),
        step: rank.step,
        progress: rank.progress,
        age_ms: ms(rank.age_ns),
        deadline_ms: ms(rank.deadline_ns),
        grace_ms: ms(rank.grace_ns),
        steps_seen: rank.steps_seen,
        stalls: rank.stalls,
        checkpoint_ack: rank.checkpoint_ack,
    }
}

/// What the agent's state file says; `None` when there is none.
fn agent_view(state_file: &Path) -> Result<Option<AgentView>> {
    let text = match fs::read_to_string(state_file) {
        Ok(text) => text,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(Error::io(state_file.display().to_string())(err)),
    };
    let bad = |why: &str| Error::Input(format!("{}: {why}", state_file.display()));
    let state: State = serde_json::from_str(&text).map_err(|err| bad(&err.to_string()))?;
    let pid = i32::try_from(state.pid).map_err(|err| bad(&err.to_string()))?;
    // EPERM: it runs, as somebody else.
    let running = state.up && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    Ok(Some(AgentView { running, state }))
}

fn bus_lines(bus: &BusView) -> String {
    let sources = match bus.sources.join(", ") {
        none if none.is_empty() => "none".into(),
        some => some,
    };
    let open: Vec<_> = bus.open_incidents.iter().map(u64::to_string).collect();
    let incidents = match (bus.last_incident, open.is_empty()) {
        (0, _) => "none yet".into(),
        (last, true) => format!("newest {last}, all acknowledged"),
        (last, false) => format!("newest {last}, unacknowledged: {}", open.join(", ")),
    };
    format!(
        "bus:       {} records so far, the newest {} kept for replay\n\
         sources:   {sources}\n\
         incidents: {incidents}",
        bus.newest_seq, bus.ring_events
    )
}

fn watchdog_lines(watchdog: &WatchdogView) -> String {
    let armed = match watchdog.armed {
        true => "armed: hardware resets the node when nothing else helps",
        false => "not armed: the node is never reset",
    };
    let mut lines = vec![
        format!("watchdog:  {armed}; {} resets lately", watchdog.resets),
        format!(
            "ranks:     {} of at most {}",
            watchdog.ranks.len(),
            watchdog.max_ranks
        ),
    ];
    if !watchdog.ranks.is_empty() {
        lines.push(format!(
            "  {:>5} {:>8}  {:<8} {:<10} {:>10} {:>10} {:>10} {:>6}  JOB",
            "RANK", "PID", "STATE", "PHASE", "STEP", "AGE", "DEADLINE", "STALLS"
        ));
    }
    let span = |ms: f64| view::duration((ms * 1e6) as u64);
    lines.extend(watchdog.ranks.iter().map(|rank| {
        format!(
            "  {:>5} {:>8}  {:<8} {:<10} {:>10} {:>10} {:>10} {:>6}  {}",
            rank.rank,
            rank.pid,
            rank.state,
            rank.phase,
            rank.step,
            span(rank.age_ms),
            span(rank.deadline_ms),
            rank.stalls,
            rank.name
        )
    }));
    lines.join("\n")
}

fn agent_lines(agent: &AgentView) -> String {
    let state = &agent.state;
    let running = match (agent.running, state.up) {
        (true, _) => format!(
            "running as pid {} since {}",
            state.pid,
            local(state.started)
        ),
        (false, true) => format!("gone without a word since {}", local(state.updated)),
        (false, false) => format!("ended at {}", local(state.updated)),
    };
    let realtime = if state.realtime {
        "real-time"
    } else {
        "not real-time"
    };
    let mut lines = vec![
        format!("agent:     {running}, {realtime}, CPUs {}", state.cpus),
        format!(
            "  incidents      {} opened, {} acknowledged, {} failed",
            state.incidents_opened, state.incidents_acked, state.incidents_failed
        ),
    ];
    let counts = state.events.iter();
    let counts = counts.map(|count| format!("{} {} {}", count.records, count.source, count.level));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let counts = if counts.is_empty() {
        "none".into()
    } else {
        counts
    };
    lines.push(format!(
        "  records        {counts}; {} lost",
        state.events_lost
    ));
    for (name, summary) in [
        ("wake", &state.wake),
        ("answers", &state.checkpoint),
        ("pre-flush", &state.preflush),
        ("snapshot", &state.snapshot),
        ("to disk", &state.awake_to_durable),
        ("asked to disk", &state.request_to_snapshot),
    ] {
        lines.push(format!("  {name:<14} {}", summary_text(summary)));
    }
    if let Some(last) = &state.last_incident {
        let result = match (&last.error, last.snapshot_id) {
            (Some(err), _) => err.clone(),
            (None, id) => format!("snapshot {}", id.unwrap_or_default()),
        };
        lines.push(format!(
            "  newest         incident {}, {}: {result}, acknowledged {} ms after it was opened",
            last.incident,
            local(last.time),
            last.acked_ms
        ));
    }
    if let Some(asked) = state
        .last_incident
        .as_ref()
        .and_then(|last| last.checkpoint.as_ref())
    {
        lines.push(format!(
            "                 {} of {} ranks wrote the checkpoint that they were asked for, \
             {} ms before the snapshot was on disk",
            asked.answered, asked.asked, asked.to_snapshot_ms
        ));
    }
    if let Some(reason) = &state.reset_reason {
        lines.push(format!(
            "  last boot      died of {} at {}: {}",
            reason.source,
            local(reason.time),
            reason.text
        ));
        if reason.last_snapshot_id != 0 {
            lines.push(format!(
                "                 its last snapshot was {}, for incident {}",
                reason.last_snapshot_id, reason.last_incident
            ));
        }
    }
    lines.join("\n")
}

fn summary_text(summary: &Summary) -> String {
    match summary.count {
        0 => "-".into(),
        count => format!(
            "p50 {} ms, p99 {} ms, max {} ms of {count}",
            summary.p50_ms, summary.p99_ms, summary.max_ms
        ),
    }
}

fn local(seconds: f64) -> String {
    let time = DateTime::from_timestamp_millis((seconds * 1e3) as i64).unwrap_or_default();
    time.with_timezone(&Local)
        .format("%Y-%m-%d %H:%M:%S%.3f %:z")
        .to_string()
}
