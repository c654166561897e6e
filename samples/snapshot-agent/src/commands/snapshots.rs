// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent snapshots`.

use chrono::{Local, SecondsFormat};
use serde::Serialize;

use super::{print, print_json};
use crate::error::Result;
use crate::snapshot::{Snapshot, State};
use crate::store::{self, Layout};
use crate::view;

/// A snapshot as JSON.
#[derive(Debug, Serialize)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// When it was begun, RFC 3339, UTC.
    pub time: String,
    /// The incident that it was taken for.
    pub incident: u64,
    /// `valid`, `writable` (somebody changed it; not the agent's any more) or
    /// `foreign` (no subvolume).
    pub state: &'static str,
    /// BTRFS subvolume id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// UUID of the subvolume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The transaction that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<u64>,
}

impl SnapshotView {
    /// The view of a snapshot.
    pub fn new(layout: &Layout, snapshot: &Snapshot) -> Self {
        let name = snapshot.name.to_string();
        Self {
            path: layout.snapshots_path().join(&name).display().to_string(),
            time: snapshot
                .name
                .utc()
                .to_rfc3339_opts(SecondsFormat::Millis, true),
            incident: snapshot.name.incident,
            state: state_name(snapshot.state()),
            id: snapshot.info.map(|info| info.id),
            uuid: snapshot.info.map(|info| view::uuid(&info.uuid)),
            transaction: snapshot.info.map(|info| info.created),
            name,
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Valid => "valid",
        State::Writable => "writable",
        State::Foreign => "foreign",
    }
}

/// Lists the snapshots, oldest first.
///
/// # Errors
///
/// Those of [`store::list_only`].
pub fn run(layout: &Layout, json: bool) -> Result<()> {
    let snapshots = store::list_only(layout)?;
    if json {
        for snapshot in &snapshots {
            print_json(&SnapshotView::new(layout, snapshot))?;
        }
        return Ok(());
    }
    if snapshots.is_empty() {
        return print(&format!(
            "no snapshots in {}",
            layout.snapshots_path().display()
        ));
    }
    for line in table(&snapshots) {
        print(&line)?;
    }
    Ok(())
}

/// A table for people, in local time.
pub fn table(snapshots: &[Snapshot]) -> Vec<String> {
    let head = format!(
        "{:<30} {:>8} {:>8}  {:<8}  NAME",
        "TIME", "INCIDENT", "ID", "STATE"
    );
    let row = |snapshot: &Snapshot| {
        let time = snapshot.name.utc().with_timezone(&Local);
        format!(
            "{:<30} {:>8} {:>8}  {:<8}  {}",
            time.format("%Y-%m-%d %H:%M:%S%.3f %:z").to_string(),
            snapshot.name.incident,
            snapshot.info.map_or("-".into(), |info| info.id.to_string()),
            state_name(snapshot.state()),
            snapshot.name,
        )
    };
    std::iter::once(head)
        .chain(snapshots.iter().map(row))
        .collect()
}
