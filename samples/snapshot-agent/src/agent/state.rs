// SPDX-License-Identifier: GPL-2.0
//! What the agent tells the world about itself: a JSON file for
//! `nullhz-agent status` and scripts; see also [`prometheus`](super::prometheus).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{fchown, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::Summary;
use crate::error::{Error, Result};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Version of the agent.
    pub version: String,
    /// False when it has ended properly.
    pub up: bool,
    /// Its process.
    pub pid: u32,
    /// The boot that it runs in.
    pub boot_id: String,
    /// The newest record that it has told of, or that needed no telling.
    pub last_seq: u64,
    /// The newest incident whose outcome it has told, with what was settled when
    /// an agent first ran; not known from an older agent.
    pub told_incident: Option<u64>,
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
    /// From the request for a checkpoint to the last answer that was waited for.
    pub checkpoint: Summary,
    /// From the request for a checkpoint to the snapshot on disk.
    pub request_to_snapshot: Summary,
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
    /// Pre-flushes because of DEGRADING and SUSPECT events.
    pub degrading_preflushes: u64,
    /// Requests to the ranks for a checkpoint.
    pub checkpoint_requests: u64,
    /// The stall watchdog, when there is one.
    pub stall: Option<StallState>,
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
    /// What the ranks were asked for, when they were.
    #[serde(default)]
    pub checkpoint: Option<CheckpointReport>,
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

/// A request for a checkpoint before a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// Its number.
    pub request: u32,
    /// Ranks that were asked.
    pub asked: u32,
    /// Of those, how many answered in time: their checkpoint is on disk.
    pub answered: u32,
    /// Of those, how many left or crashed meanwhile.
    pub gone: u32,
    /// Why the agent went on: `answered`, `stalled` (who owed an answer could
    /// not give one) or `out-of-time`.
    pub end: String,
    /// How long it waited.
    pub wait_ms: f64,
    /// From the request to the snapshot on disk.
    pub to_snapshot_ms: f64,
}

/// The stall watchdog at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StallState {
    /// Ranks that it watches.
    pub ranks: u32,
    /// Of those, how many are stalled.
    pub stalled: u32,
    /// Whether a hardware watchdog will reset the node.
    pub armed: bool,
    /// Watchdog resets within the budget's window.
    pub resets: u32,
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

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// All users.
    All,
    /// Root and this group.
    Group(u32),
}

/// Replaces the contents of the file at `path` so that readers see the old or
/// the new one. Others may be able to write to its directory, as to
/// node_exporter's: what they put there is replaced, never followed.
///
/// # Errors
///
/// `Io`.
pub fn replace(path: &Path, text: &str, readers: Readers) -> Result<()> {
    // node_exporter reads *.prom only, so that it does not see this one.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let what = || format!("{}: write", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::io(what()))?;
    }
    match fs::remove_file(&temporary) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(Error::io(what())(err)),
        _ => {}
    }
    let mode = match readers {
        Readers::All => 0o644,
        Readers::Group(_) => 0o640,
    };
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(Error::io(what()))?;
    if let Readers::Group(group) = readers {
        // An agent that may not do this keeps its own: no more readers.
        let _ = fchown(&file, None, Some(group));
    }
    file.write_all(text.as_bytes()).map_err(Error::io(what()))?;
    fs::rename(&temporary, path).map_err(Error::io(what()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A state with something in each place.
    pub fn state() -> State {
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
            told_incident: Some(2),
            incidents_opened: 2,
            incidents_acked: 1,
            incidents_failed: 1,
            snapshot: summary,
            checkpoint: summary,
            request_to_snapshot: summary,
            snapshots_kept: 3,
            checkpoint_requests: 2,
            stall: Some(StallState {
                ranks: 4,
                stalled: 1,
                armed: true,
                resets: 2,
            }),
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
    fn json_comes_back() {
        let json = serde_json::to_string(&state()).unwrap();
        assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state());
    }

    #[test]
    fn the_file_of_an_older_agent_is_read() {
        let mut json = serde_json::to_value(state()).unwrap();
        for new in [
            "told_incident",
            "checkpoint",
            "request_to_snapshot",
            "checkpoint_requests",
            "stall",
        ] {
            json.as_object_mut().unwrap().remove(new).unwrap();
        }
        json["last_incident"]
            .as_object_mut()
            .unwrap()
            .remove("checkpoint")
            .unwrap();
        let old: State = serde_json::from_value(json).unwrap();
        assert_eq!((old.stall, old.last_seq), (None, state().last_seq));
    }

    #[test]
    fn readers_never_see_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/nullhz.prom");
        replace(&path, "one", Readers::All).unwrap();
        let open = fs::File::open(&path).unwrap();
        replace(&path, "another", Readers::Group(0)).unwrap();
        assert_eq!(std::io::read_to_string(open).unwrap(), "one");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, precious] = ["nullhz.prom", "precious"].map(|name| dir.path().join(name));
        fs::write(&precious, "kept").unwrap();
        for link in ["nullhz.prom.tmp", "nullhz.prom"] {
            std::os::unix::fs::symlink(&precious, dir.path().join(link)).unwrap();
            replace(&path, "new", Readers::All).unwrap();
            assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            fs::remove_file(&path).unwrap();
        }
    }
}
