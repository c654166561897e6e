// SPDX-License-Identifier: GPL-2.0
//! What the agent tells the world about itself: a JSON file for
//! `nullhz-agent status` and scripts, and a text file for Prometheus.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::Summary;
use crate::error::{Error, Result};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the agent.
    pub version: String,
    /// False when it has ended properly.
    pub up: bool,
    /// Its process.
    pub pid: u32,
    /// The boot that it runs in.
    pub boot_id: String,
    /// The newest record that it has read.
    pub last_seq: u64,
    /// When it started, seconds since 1970.
    pub started: f64,
    /// When this was written, seconds since 1970.
    pub updated: f64,
    /// Whether its threads are real-time ones.
    pub realtime: bool,
    /// The CPUs that it runs on, as the kernel writes them.
    pub cpus: String,
    /// Counts of records.
    pub events: Vec<EventCount>,
    /// Records that were missed because the agent read too slowly.
    pub events_lost: u64,
    /// Records of a source or level that this version does not know.
    pub events_unknown: u64,
    /// Incidents that it learnt of unacknowledged.
    pub incidents_opened: u64,
    /// Those that it acknowledged with a snapshot.
    pub incidents_acked: u64,
    /// Those that it acknowledged as failed, or could not acknowledge.
    pub incidents_failed: u64,
    /// From the event to the agent's being awake.
    pub wake: Summary,
    /// The pre-flushes before snapshots.
    pub preflush: Summary,
    /// From the end of the pre-flush to the snapshot on disk.
    pub snapshot: Summary,
    /// From the agent's being awake to the snapshot on disk.
    pub awake_to_durable: Summary,
    /// Valid snapshots on the volume.
    pub snapshots_kept: u64,
    /// How often the rotation looked for what to delete.
    pub rotations: u64,
    /// Snapshots deleted by the rotation.
    pub snapshots_deleted: u64,
    /// Pre-flushes because of DEGRADING events.
    pub degrading_preflushes: u64,
    /// Hooks that exited with 0.
    pub hooks_ok: u64,
    /// Hooks that did not, or could not be run.
    pub hooks_failed: u64,
    /// Hooks that were killed because their time was over.
    pub hooks_timed_out: u64,
    /// Occasions for which no hook was run, because too many waited.
    pub hooks_dropped: u64,
    /// The newest incident that was dealt with.
    pub last_incident: Option<IncidentReport>,
    /// What the last boot died of, when the bus says so.
    pub reset_reason: Option<ResetReason>,
}

/// Counts of the records of one source and level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventCount {
    /// The source's name.
    pub source: String,
    /// The level's name.
    pub level: String,
    /// Records.
    pub records: u64,
    /// Occurrences that they stand for.
    pub occurrences: u64,
}

/// How an incident went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentReport {
    /// Its id.
    pub incident: u64,
    /// When it was acknowledged, seconds since 1970.
    pub time: f64,
    /// When the bus opened it (CLOCK_MONOTONIC, ns).
    pub opened_ns: u64,
    /// From its opening to the agent's knowing of it.
    pub awake_ms: f64,
    /// How long the pre-flush took; none was needed for a repeated
    /// acknowledgement.
    pub preflush_ms: Option<f64>,
    /// How long the snapshot took until it was on disk.
    pub snapshot_ms: Option<f64>,
    /// From its opening to its acknowledgement.
    pub acked_ms: f64,
    /// BTRFS id of the snapshot that answers it.
    pub snapshot_id: Option<u64>,
    /// Name of the snapshot, when one was taken for it.
    pub snapshot: Option<String>,
    /// Why there is no snapshot or no acknowledgement.
    pub error: Option<String>,
}

/// A FATAL event of the previous boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResetReason {
    /// When it happened, seconds since 1970.
    pub time: f64,
    /// The source's name.
    pub source: String,
    /// In words.
    pub text: String,
    /// The last incident of that boot, 0: none.
    pub last_incident: u64,
    /// BTRFS id of the last snapshot that was acknowledged in that boot, 0: none.
    pub last_snapshot_id: u64,
}

/// Replaces the contents of the file at `path` so that readers see the old or
/// the new one.
///
/// # Errors
///
/// `Io`.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    // node_exporter reads *.prom only, so that it does not see this one.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let what = || format!("{}: write", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::io(what()))?;
    }
    fs::write(&temporary, text).map_err(Error::io(what()))?;
    fs::rename(&temporary, path).map_err(Error::io(what()))
}

/// The state in Prometheus' text format.
pub fn prometheus(state: &State) -> String {
    let mut out = Text(String::new());
    out.one(
        "up",
        "gauge",
        "1 while the agent runs; see the update time too.",
        f64::from(u8::from(state.up)),
    );
    out.one(
        "start_time_seconds",
        "gauge",
        "When the agent started.",
        state.started,
    );
    out.one(
        "update_time_seconds",
        "gauge",
        "When this file was written.",
        state.updated,
    );
    out.one(
        "realtime",
        "gauge",
        "1 when the agent's threads are real-time ones.",
        f64::from(u8::from(state.realtime)),
    );

    out.head("event_records_total", "counter", "Fault records read.");
    for event in &state.events {
        out.event("event_records_total", event, event.records);
    }
    out.head(
        "events_total",
        "counter",
        "Fault occurrences that the records stand for.",
    );
    for event in &state.events {
        out.event("events_total", event, event.occurrences);
    }
    out.count(
        "events_lost_total",
        "Records missed because the agent read too slowly.",
        state.events_lost,
    );
    out.count(
        "events_unknown_total",
        "Records of an unknown source or level.",
        state.events_unknown,
    );

    out.count(
        "incidents_opened_total",
        "Incidents found unacknowledged.",
        state.incidents_opened,
    );
    out.count(
        "incidents_acked_total",
        "Incidents acknowledged with a snapshot.",
        state.incidents_acked,
    );
    out.count(
        "incidents_failed_total",
        "Incidents acknowledged as failed, or not at all.",
        state.incidents_failed,
    );
    let last = state.last_incident.as_ref().map_or(0.0, |last| last.time);
    out.one(
        "last_incident_time_seconds",
        "gauge",
        "When the newest incident was dealt with, 0: never.",
        last,
    );

    out.summary(
        "wake",
        "From an event to the agent's being awake.",
        &state.wake,
    );
    out.summary("preflush", "Pre-flush before a snapshot.", &state.preflush);
    out.summary(
        "snapshot",
        "From the pre-flush to the snapshot on disk.",
        &state.snapshot,
    );
    out.summary(
        "awake_to_durable",
        "From the agent's being awake to the snapshot on disk.",
        &state.awake_to_durable,
    );
    out.one(
        "snapshots_kept",
        "gauge",
        "Valid snapshots on the volume.",
        state.snapshots_kept as f64,
    );
    out.count(
        "snapshots_deleted_total",
        "Snapshots deleted by the rotation.",
        state.snapshots_deleted,
    );
    out.count(
        "degrading_preflushes_total",
        "Pre-flushes because of DEGRADING events.",
        state.degrading_preflushes,
    );

    out.head("hook_runs_total", "counter", "Hooks by how they ended.");
    for (result, value) in [
        ("ok", state.hooks_ok),
        ("failed", state.hooks_failed),
        ("timeout", state.hooks_timed_out),
    ] {
        out.line(&format!("hook_runs_total{{result=\"{result}\"}} {value}"));
    }
    out.count(
        "hooks_dropped_total",
        "Occasions without hooks: too many waited.",
        state.hooks_dropped,
    );

    out.head(
        "previous_boot_fatal_time_seconds",
        "gauge",
        "When the fault that ended the previous boot happened.",
    );
    if let Some(reason) = &state.reset_reason {
        let source = escape(&reason.source);
        out.line(&format!(
            "previous_boot_fatal_time_seconds{{source=\"{source}\"}} {}",
            reason.time
        ));
    }
    out.0
}

/// Every name begins so.
const PREFIX: &str = "nullhz_agent_";

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(PREFIX);
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"
        );
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.line(&format!("{name} {value}"));
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(&format!("{name} {value}"));
    }

    fn event(&mut self, name: &str, event: &EventCount, value: u64) {
        let (source, level) = (escape(&event.source), escape(&event.level));
        self.line(&format!(
            "{name}{{source=\"{source}\",level=\"{level}\"}} {value}"
        ));
    }

    fn summary(&mut self, name: &str, help: &str, summary: &Summary) {
        let seconds = |ms: f64| (ms * 1e3).round() / 1e6;
        self.head(&format!("{name}_seconds"), "summary", help);
        for (quantile, ms) in [
            ("0.5", summary.p50_ms),
            ("0.99", summary.p99_ms),
            ("1", summary.max_ms),
        ] {
            let value = match summary.count {
                0 => f64::NAN,
                _ => seconds(ms),
            };
            self.line(&format!(
                "{name}_seconds{{quantile=\"{quantile}\"}} {value}"
            ));
        }
        self.line(&format!("{name}_seconds_sum {}", seconds(summary.sum_ms)));
        self.line(&format!("{name}_seconds_count {}", summary.count));
        self.one(
            &format!("{name}_last_seconds"),
            "gauge",
            &format!("{help} The newest."),
            seconds(summary.last_ms),
        );
    }
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let summary = Summary {
            count: 2,
            sum_ms: 50.5,
            last_ms: 30.25,
            p50_ms: 20.25,
            p99_ms: 30.25,
            max_ms: 30.25,
        };
        State {
            version: "0.1.0".into(),
            up: true,
            pid: 42,
            started: 1_795_182_912.5,
            updated: 1_795_182_920.0,
            realtime: true,
            cpus: "0-1".into(),
            events: vec![EventCount {
                source: "mce".into(),
                level: "degrading".into(),
                records: 3,
                occurrences: 30,
            }],
            events_lost: 4,
            incidents_opened: 2,
            incidents_acked: 1,
            incidents_failed: 1,
            snapshot: summary,
            snapshots_kept: 3,
            hooks_ok: 6,
            last_incident: Some(IncidentReport {
                incident: 2,
                time: 1_795_182_919.25,
                ..IncidentReport::default()
            }),
            reset_reason: Some(ResetReason {
                time: 1_795_182_000.0,
                source: "a \"quoted\" \\ name\nof two lines".into(),
                text: "in words".into(),
                last_incident: 2,
                last_snapshot_id: 300,
            }),
            ..State::default()
        }
    }

    #[test]
    fn the_text_file_is_as_documented() {
        assert_eq!(prometheus(&state()), include_str!("state.golden.prom"));
    }

    #[test]
    fn the_format_is_valid() {
        let text = prometheus(&state());
        assert!(text.ends_with('\n'));
        let mut typed = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(typed.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                let base = name.trim_end_matches("_sum").trim_end_matches("_count");
                assert!(
                    typed.contains(name) || typed.contains(base),
                    "{name} has no type"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn json_comes_back() {
        let json = serde_json::to_string(&state()).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state());
    }

    #[test]
    fn readers_never_see_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/nullhz.prom");
        replace(&path, "one").unwrap();
        let open = fs::File::open(&path).unwrap();
        replace(&path, "another").unwrap();
        assert_eq!(std::io::read_to_string(open).unwrap(), "one");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
