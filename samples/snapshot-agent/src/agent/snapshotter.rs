// SPDX-License-Identifier: GPL-2.0
//! The thread that takes the snapshots. It is apart from the loop because
//! nothing can interrupt a snapshot whose disk hangs: the loop goes on, feeds
//! the watchdog and acknowledges the failure when the deadline comes.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use super::engine::{Open, Settled};
use super::rt;
use crate::preflush::{self, Flushed};
use crate::snapshot::Name;
use crate::store::{self, monotonic_ns, Store};

/// How a job went; the times are CLOCK_MONOTONIC, ns.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of each incident.
    pub results: Vec<Settled>,
    /// The snapshot that was taken; `None` when there was one already, or none
    /// could be taken.
    pub name: Option<Name>,
    /// When the thread began.
    pub begun_ns: u64,
    /// What the pre-flush did.
    pub flushed: Flushed,
    /// When the pre-flush was done.
    pub flushed_ns: u64,
    /// When the snapshot was on disk.
    pub durable_ns: u64,
}

/// What the thread works with.
pub struct Snapshotter {
    /// The volume.
    pub store: Store,
    /// Of this boot.
    pub boot_id: [u8; 16],
    /// CLOCK_MONOTONIC when the agent started: a snapshot may exist already for
    /// what was opened before.
    pub started_ns: u64,
    /// How long the pre-flush may take.
    pub preflush_budget: Duration,
}

impl Snapshotter {
    /// Takes a snapshot for each list of incidents that comes, until the sender
    /// is gone.
    pub fn run(
        mut self,
        rt: rt::Settings,
        jobs: Receiver<Vec<Open>>,
        out: SyncSender<Outcome>,
        done: Arc<EventFd>,
    ) {
        rt.apply();
        for job in jobs {
            if out.send(self.answer(&job)).is_err() || done.write(1).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, job: &[Open]) -> Outcome {
        let begun_ns = monotonic_ns();
        let mut outcome = Outcome {
            results: Vec::with_capacity(job.len()),
            name: None,
            begun_ns,
            flushed: Flushed::default(),
            flushed_ns: begun_ns,
            durable_ns: begun_ns,
        };
        let mut left = Vec::with_capacity(job.len());
        for open in job {
            match self.existing(open) {
                Some(id) => outcome.results.push(Settled {
                    open: *open,
                    result: Ok(id),
                }),
                None => left.push(*open),
            }
        }
        let Some(first) = left.first() else {
            return outcome;
        };
        let name = store::name_now(first.id, &self.boot_id);
        let path = self.store.layout().subvolume_path();
        outcome.flushed = preflush::start_write_back(&path, self.preflush_budget);
        outcome.flushed_ns = monotonic_ns();
        let taken = self.store.take(name);
        outcome.durable_ns = monotonic_ns();
        outcome.name = taken.is_ok().then_some(name);
        let result = taken.map(|taken| taken.info.id);
        outcome
            .results
            .extend(left.into_iter().map(|open| Settled { open, result }));
        outcome
    }

    /// The snapshot that a former life of the agent took for an incident.
    fn existing(&mut self, open: &Open) -> Option<u64> {
        if open.opened_ns >= self.started_ns {
            return None;
        }
        // A list that cannot be read is as good as an empty one: the snapshot
        // is then taken once more, or fails with the same error.
        let taken = self.store.answer(&self.boot_id, open.opened_ns).ok()??;
        Some(taken.info.id)
    }
}
