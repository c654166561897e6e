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
use crate::ranks::{Asking, Watchdogs};
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
    /// Whether the ranks were asked for a checkpoint, and what came of it.
    pub asking: Asking,
    /// When the pre-flush began.
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
    /// The ranks to ask for a checkpoint first.
    pub watchdogs: Arc<dyn Watchdogs>,
    /// How long to wait for their answers; zero: they are not asked.
    pub checkpoint_budget: Duration,
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
            asking: Asking::Not,
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
        outcome.asking = self.ask(&left);
        outcome.begun_ns = monotonic_ns();
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

    /// Has the ranks write what is only in their memory.
    fn ask(&self, job: &[Open]) -> Asking {
        if self.checkpoint_budget.is_zero() {
            return Asking::Not;
        }
        let until_ns = wait_until(job, monotonic_ns(), self.checkpoint_budget);
        Asking::now(&*self.watchdogs, until_ns)
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

/// Until when the ranks' answers may be waited for: no longer than the budget,
/// and no longer than half of the time that is left for the first incident. The
/// other half is for the snapshot.
fn wait_until(job: &[Open], now_ns: u64, budget: Duration) -> u64 {
    let left = |open: &Open| {
        // One that has expired on the bus can still be acknowledged, late.
        let deadlines = [open.expires_ns, open.deadline_ns];
        let next = deadlines.into_iter().filter(|deadline| *deadline > now_ns);
        next.min().map_or(0, |next| next - now_ns)
    };
    let half = job.iter().map(left).min().unwrap_or(0) / 2;
    let budget = u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX);
    now_ns.saturating_add(half.min(budget))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(expires_ns: u64, deadline_ns: u64) -> Open {
        Open {
            id: 1,
            opened_ns: 0,
            seen_ns: 0,
            expires_ns,
            deadline_ns,
        }
    }

    #[test]
    fn the_wait_leaves_half_of_the_time_for_the_snapshot() {
        let ns = Duration::from_nanos;
        let job = [open(5_000, 30_000), open(4_000, 30_000)];
        assert_eq!(wait_until(&job, 1_000, ns(2_000)), 2_500);
        assert_eq!(wait_until(&job, 1_000, ns(200)), 1_200);
        // Expired on the bus: the agent's own deadline counts.
        assert_eq!(wait_until(&job[..1], 6_000, ns(2_000)), 8_000);
        assert_eq!(wait_until(&job[..1], 29_000, ns(2_000)), 29_500);
        assert_eq!(wait_until(&job[..1], 31_000, ns(2_000)), 31_000);
    }

    proptest! {
        #[test]
        fn no_deadline_passes_while_waiting(
            job in prop::collection::vec((any::<u64>(), any::<u64>()), 1..5),
            now: u64,
            budget: u64,
        ) {
            let job: Vec<_> = job.into_iter().map(|(expires, deadline)| open(expires, deadline)).collect();
            let until = wait_until(&job, now, Duration::from_nanos(budget));
            prop_assert!(until >= now && until - now <= budget);
            for open in &job {
                for deadline in [open.expires_ns, open.deadline_ns] {
                    prop_assert!(deadline <= now || until <= deadline);
                }
            }
        }
    }
}
