// SPDX-License-Identifier: GPL-2.0
//! The thread for work on the volume that may wait.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::report::Note;
use crate::preflush;
use crate::ranks::{Asking, Watchdogs};
use crate::store::{monotonic_ns, Store};

/// How long a pre-flush may take that nothing waits for.
const PREFLUSH_BUDGET: Duration = Duration::from_secs(30);

/// Work that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Delete the oldest snapshots.
    Rotate,
    /// Write the subvolume's dirty data back.
    Preflush,
    /// Ask the ranks for a checkpoint, and do not wait for it.
    Checkpoint,
}

/// Does what comes until the sender is gone.
pub fn run(
    store: &Store,
    watchdogs: &dyn Watchdogs,
    keep: usize,
    chores: Receiver<Chore>,
    notes: &Sender<Note>,
) {
    for chore in chores {
        let note = match chore {
            Chore::Rotate => rotate(store, keep),
            Chore::Preflush => {
                let begun_ns = monotonic_ns();
                preflush::write_back(&store.layout().subvolume_path(), PREFLUSH_BUDGET);
                Note::Preflushed(monotonic_ns().saturating_sub(begun_ns))
            }
            Chore::Checkpoint => Note::Requested(Asking::now(watchdogs, 0)),
        };
        if notes.send(note).is_err() {
            return;
        }
    }
}

/// Deletes what is too old.
pub fn rotate(store: &Store, keep: usize) -> Note {
    let done = store
        .rotate(keep)
        .and_then(|rotation| Ok((rotation, store.kept()?)));
    match done {
        Ok((rotation, kept)) => Note::Rotated { rotation, kept },
        Err(err) => Note::Trouble(format!("rotation: {err}")),
    }
}
