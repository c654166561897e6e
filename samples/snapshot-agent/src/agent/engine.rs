// SPDX-License-Identifier: GPL-2.0
//! Which incidents are to be dealt with, and how far that has got. Decides and
//! remembers; does nothing by itself.
//!
//! ```text
//!            open()          next_job()             finish()
//!  unknown ─────────► waiting ─────────► in work ─────────────► settled
//!     │                  │                  │                      ▲
//!     │ settle()         └── expire() ──────┴── expire() ──────────┤
//!     └────────────────────────────────────────────────────────────┘
//! ```
//! One snapshot is taken at a time. Incidents that are opened while it is taken
//! wait, and all that wait then share the next one.

use std::collections::VecDeque;

use nix::errno::Errno;

/// Incidents remembered as settled. A storm joins the newest ones; should an
/// older one come up again, the bus is asked about it. More than the bus itself
/// remembers (64), so that it has forgotten what was told and is not here.
const SETTLED: usize = 256;

/// An unacknowledged incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its id.
    pub id: u64,
    /// When the bus opened it (CLOCK_MONOTONIC, ns).
    pub opened_ns: u64,
    /// When the agent learnt of it (CLOCK_MONOTONIC, ns).
    pub seen_ns: u64,
    /// When the bus calls it expired (CLOCK_MONOTONIC, ns).
    pub expires_ns: u64,
    /// When it is acknowledged as failed (CLOCK_MONOTONIC, ns).
    pub deadline_ns: u64,
}

/// How an incident came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The incident.
    pub open: Open,
    /// Id of the snapshot that answers it, or why there is none.
    pub result: Result<u64, Errno>,
}

/// The agent's view of the incidents.
#[derive(Debug, Default)]
pub struct Engine {
    waiting: Vec<Open>,
    /// Incidents of the snapshot that is being taken; empty when it is late for
    /// all of them.
    in_work: Vec<Open>,
    busy: bool,
    settled: VecDeque<u64>,
}

impl Engine {
    /// Whether nothing is known about the incident `id`, so that the bus has to
    /// be asked.
    pub fn is_unknown(&self, id: u64) -> bool {
        let known = |open: &Open| open.id == id;
        !(self.settled.iter().rev().any(|settled| *settled == id)
            || self.waiting.iter().any(known)
            || self.in_work.iter().any(known))
    }

    /// An unacknowledged incident was found.
    pub fn open(&mut self, open: Open) {
        if self.is_unknown(open.id) {
            self.waiting.push(open);
        }
    }

    /// An incident needs nothing, or nothing more.
    pub fn settle(&mut self, id: u64) {
        if self.settled.len() == SETTLED {
            self.settled.pop_front();
        }
        self.settled.push_back(id);
        self.waiting.retain(|open| open.id != id);
        self.in_work.retain(|open| open.id != id);
    }

    /// The incidents to take a snapshot for now; none when there are none or
    /// one is being taken.
    pub fn next_job(&mut self) -> Option<Vec<Open>> {
        if self.busy || self.waiting.is_empty() {
            return None;
        }
        self.busy = true;
        self.in_work = std::mem::take(&mut self.waiting);
        Some(self.in_work.clone())
    }

    /// The job is done: of its results, those that are still to be
    /// acknowledged.
    pub fn finish(&mut self, results: Vec<Settled>) -> Vec<Settled> {
        let mut due = Vec::new();
        for settled in results {
            if self.in_work.iter().any(|open| open.id == settled.open.id) {
                self.settle(settled.open.id);
                due.push(settled);
            }
        }
        // The job answered each of its incidents.
        self.in_work.clear();
        self.busy = false;
        due
    }

    /// The incidents whose deadline has passed at `now_ns`, to be acknowledged
    /// as failed.
    pub fn expire(&mut self, now_ns: u64) -> Vec<Settled> {
        let late = |open: &&Open| open.deadline_ns <= now_ns;
        let all = self.waiting.iter().chain(&self.in_work);
        let due: Vec<_> = all.filter(late).copied().collect();
        let fail = |open: Open| {
            self.settle(open.id);
            Settled {
                open,
                result: Err(Errno::ETIMEDOUT),
            }
        };
        due.into_iter().map(fail).collect()
    }

    /// The next deadline.
    pub fn deadline_ns(&self) -> Option<u64> {
        let all = self.waiting.iter().chain(&self.in_work);
        all.map(|open| open.deadline_ns).min()
    }

    /// Whether a snapshot is being taken or due.
    pub fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(id: u64, deadline_ns: u64) -> Open {
        Open {
            id,
            opened_ns: id,
            seen_ns: id,
            expires_ns: deadline_ns,
            deadline_ns,
        }
    }

    fn done(job: &[Open], result: Result<u64, Errno>) -> Vec<Settled> {
        job.iter()
            .map(|open| Settled {
                open: *open,
                result,
            })
            .collect()
    }

    #[test]
    fn a_storm_within_an_incident_is_one_job() {
        let mut engine = Engine::default();
        for _ in 0..10_000 {
            engine.open(open(1, 100));
        }
        let job = engine.next_job().unwrap();
        assert_eq!(job, [open(1, 100)]);
        engine.open(open(1, 100));
        assert_eq!(engine.next_job(), None);
        assert_eq!(engine.finish(done(&job, Ok(300))), done(&job, Ok(300)));
        assert!(!engine.is_unknown(1));
        assert_eq!(engine.next_job(), None);
        assert!(engine.is_idle());
    }

    #[test]
    fn incidents_that_wait_share_the_next_snapshot() {
        let mut engine = Engine::default();
        engine.open(open(1, 100));
        let first = engine.next_job().unwrap();
        engine.open(open(2, 100));
        engine.open(open(3, 100));
        assert_eq!(engine.next_job(), None);
        engine.finish(done(&first, Ok(300)));
        assert_eq!(engine.next_job().unwrap(), [open(2, 100), open(3, 100)]);
    }

    #[test]
    fn a_late_snapshot_is_not_acknowledged_twice() {
        let mut engine = Engine::default();
        engine.open(open(1, 100));
        let job = engine.next_job().unwrap();
        engine.open(open(2, 200));
        assert_eq!(engine.deadline_ns(), Some(100));
        assert_eq!(engine.expire(99), []);
        assert_eq!(
            engine.expire(100),
            done(&[open(1, 100)], Err(Errno::ETIMEDOUT))
        );
        assert_eq!(engine.expire(100), []);
        // It is stuck: the one that waits cannot begin, and runs out as well.
        assert_eq!(engine.next_job(), None);
        assert_eq!(engine.expire(250).len(), 1);
        assert_eq!(engine.deadline_ns(), None);
        assert_eq!(engine.finish(done(&job, Ok(300))), []);
        engine.open(open(3, 400));
        assert_eq!(engine.next_job().unwrap(), [open(3, 400)]);
    }

    #[test]
    fn what_another_acknowledged_is_dropped() {
        let mut engine = Engine::default();
        engine.open(open(1, 100));
        engine.settle(1);
        assert_eq!(engine.next_job(), None);
    }

    proptest! {
        /// Whatever happens in whatever order, every incident is settled
        /// exactly once, and none is forgotten.
        #[test]
        fn every_incident_is_settled_once(
            steps in prop::collection::vec((0u8..4, 1u64..20), 1..200)
        ) {
            let mut engine = Engine::default();
            let mut settled = Vec::new();
            let mut opened = std::collections::BTreeSet::new();
            let mut job: Option<Vec<Open>> = None;
            for (now, (step, id)) in (0..).zip(steps) {
                match step {
                    0 | 1 => {
                        opened.insert(id);
                        engine.open(open(id, now + id));
                    }
                    2 => match job.take() {
                        Some(running) => settled.extend(engine.finish(done(&running, Ok(1)))),
                        None => job = engine.next_job(),
                    },
                    _ => settled.extend(engine.expire(now)),
                }
            }
            if let Some(running) = job {
                settled.extend(engine.finish(done(&running, Ok(1))));
            }
            if let Some(last) = engine.next_job() {
                settled.extend(engine.finish(done(&last, Ok(1))));
            }
            let mut ids: Vec<_> = settled.iter().map(|settled| settled.open.id).collect();
            ids.sort_unstable();
            prop_assert_eq!(ids, opened.into_iter().collect::<Vec<_>>());
            prop_assert!(engine.is_idle());
        }
    }
}
