// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent status`: the bus, the agent and the snapshots at a glance.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Local};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Serialize;

use super::snapshots::{self, SnapshotView};
use super::{print, print_json};
use crate::abi::Info;
use crate::agent::state::State;
use crate::agent::stats::Summary;
use crate::bus::{self, Bus, Device};
use crate::error::{Error, Result};
use crate::snapshot::Snapshot;
use crate::store::{self, Layout};
use crate::view;

#[derive(Debug, Serialize)]
struct Status {
    bus: Result<BusView, String>,
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

#[derive(Debug, Serialize)]
struct AgentView {
    running: bool,
    #[serde(flatten)]
    state: State,
}

/// Prints the status.
///
/// # Errors
///
/// The one that keeps the bus from being asked, after everything was printed.
pub fn run(device: &Path, layout: &Layout, state_file: &Path, json: bool) -> Result<()> {
    let bus = Device::open(device).and_then(|device| bus_view(&device));
    let agent = agent_view(state_file);
    let snapshots = store::list_only(layout);
    if json {
        let text = |err: &Error| err.to_string();
        let views = |list: &Vec<Snapshot>| {
            list.iter()
                .map(|snapshot| SnapshotView::new(layout, snapshot))
                .collect()
        };
        let (failed, bus) = split(bus);
        print_json(&Status {
            bus: bus.ok_or_else(|| failed.as_ref().map(text).unwrap_or_default()),
            agent,
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
    match &agent {
        Some(agent) => print(&agent_lines(agent))?,
        None => print(&format!(
            "agent:     never ran (no {})",
            state_file.display()
        ))?,
    }
    match snapshots {
        Ok(list) => {
            print(&format!(
                "snapshots: {} in {}",
                list.len(),
                layout.snapshots_path().display()
            ))?;
            for line in snapshots::table(&list).iter().filter(|_| !list.is_empty()) {
                print(&format!("  {line}"))?;
            }
        }
        Err(err) => print(&format!("snapshots: {err}"))?,
    }
    failed.map_or(Ok(()), Err)
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

fn agent_view(state_file: &Path) -> Option<AgentView> {
    let text = fs::read_to_string(state_file).ok()?;
    let state: State = serde_json::from_str(&text).ok()?;
    let pid = i32::try_from(state.pid).ok()?;
    // EPERM: it runs, as somebody else.
    let running = state.up && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    Some(AgentView { running, state })
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
            "  incidents  {} opened, {} acknowledged, {} failed",
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
    lines.push(format!("  records    {counts}; {} lost", state.events_lost));
    for (name, summary) in [
        ("wake", &state.wake),
        ("pre-flush", &state.preflush),
        ("snapshot", &state.snapshot),
        ("to disk", &state.awake_to_durable),
    ] {
        lines.push(format!("  {name:<10} {}", summary_text(summary)));
    }
    if let Some(last) = &state.last_incident {
        let result = match (&last.error, last.snapshot_id) {
            (Some(err), _) => err.clone(),
            (None, id) => format!("snapshot {}", id.unwrap_or_default()),
        };
        lines.push(format!(
            "  newest     incident {}, {}: {result}, acknowledged {} ms after it was opened",
            last.incident,
            local(last.time),
            last.acked_ms
        ));
    }
    if let Some(reason) = &state.reset_reason {
        lines.push(format!(
            "  last boot  died of {} at {}: {}",
            reason.source,
            local(reason.time),
            reason.text
        ));
        if reason.last_snapshot_id != 0 {
            lines.push(format!(
                "             its last snapshot was {}, for incident {}",
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
