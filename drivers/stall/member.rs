// SPDX-License-Identifier: GPL-2.0

//! A registered rank as the kernel sees it: its page, its thread, its process.

use crate::abi::{self, Culprit, Page, Stall, NAME_SIZE};
use crate::culprit::{Survey, Thread};
use crate::ffi;
use core::mem::offset_of;
use kernel::{
    cpu::CpuId,
    current,
    page::{SharedPage, Word},
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{AtomicFlag, Relaxed},
        rcu,
    },
    task::{State, Task}, //
};

const STEP: Word<u64> = Word::new(offset_of!(Page, step));
const PROGRESS: Word<u64> = Word::new(offset_of!(Page, progress));
const PHASE: Word<u32> = Word::new(offset_of!(Page, phase));
const ACK: Word<u32> = Word::new(offset_of!(Page, checkpoint_ack));
const REQUEST: Word<u32> = Word::new(offset_of!(Page, checkpoint_request));
const STATE: Word<u32> = Word::new(offset_of!(Page, state));
const INCIDENT: Word<u64> = Word::new(offset_of!(Page, incident));
const DEADLINE: Word<u64> = Word::new(offset_of!(Page, deadline_ns));
const SAMPLED: Word<u64> = Word::new(offset_of!(Page, sampled_ns));

/// Threads of a process that are looked at: who has more has hidden the culprit from us, but
/// cannot keep the sampler busy.
pub(crate) const THREADS: usize = 256;

/// What the witness is asked to do for a rank, each once per request.
pub(crate) struct Errands {
    /// Log the stacks of its process.
    pub(crate) stacks: AtomicFlag,
    /// Log the stack of its thread, on whatever CPU that runs.
    pub(crate) backtrace: AtomicFlag,
    /// Send its process the signal that the policy asks for.
    pub(crate) signal: AtomicFlag,
}

impl Errands {
    /// Whether anything is asked for.
    pub(crate) fn any(&self) -> bool {
        [&self.stacks, &self.backtrace, &self.signal]
            .iter()
            .any(|errand| errand.load(Relaxed))
    }

    /// The rank has recovered: it is none of the witness's business any more.
    pub(crate) fn cancel(&self) {
        for errand in [&self.stacks, &self.backtrace, &self.signal] {
            errand.store(false, Relaxed);
        }
    }
}

/// A registered rank. The detector's part of it is in the [`Table`](crate::table::Table).
pub(crate) struct Member {
    /// Global rank.
    pub(crate) rank: u32,
    /// Job.
    pub(crate) name: [u8; NAME_SIZE],
    /// The thread that registered.
    pub(crate) task: ARef<Task>,
    page: SharedPage,
    pub(crate) errands: Errands,
}

/// What a look at a process found.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) survey: Survey,
    pub(crate) culprit: Thread,
    pub(crate) comm: [u8; 16],
    /// Where the culprit runs, or ran last.
    pub(crate) cpu: CpuId,
}

/// What a thread does.
pub(crate) fn class(task: &Task) -> Culprit {
    match task.state() {
        State::Running | State::Runnable => Culprit::Spinning,
        State::Interruptible | State::Idle => Culprit::Sleeping,
        State::Uninterruptible => Culprit::Disk,
        State::Stopped | State::Traced => Culprit::Stopped,
        State::Frozen => Culprit::Frozen,
        State::Exited => Culprit::Exited,
    }
}

fn thread(task: &Task) -> Thread {
    Thread {
        tid: task.pid(),
        class: class(task),
        // After the class: who is in D state is counted as switched from.
        switches: ffi::switches(task),
    }
}

impl Member {
    /// The calling thread becomes rank `rank` of job `name`.
    pub(crate) fn new(rank: u32, name: [u8; NAME_SIZE]) -> Result<Self> {
        Ok(Self {
            rank,
            name,
            task: ARef::from(&**current!()),
            page: SharedPage::new()?,
            errands: Errands {
                stacks: AtomicFlag::new(false),
                backtrace: AtomicFlag::new(false),
                signal: AtomicFlag::new(false),
            },
        })
    }

    /// Whether both have the same rank of the same job.
    pub(crate) fn is_same_rank(&self, other: &Member) -> bool {
        self.rank == other.rank && self.name == other.name
    }

    /// The job's name.
    pub(crate) fn job(&self) -> &str {
        // It was checked to be ASCII.
        core::str::from_utf8(abi::text(&self.name)).unwrap_or_default()
    }

    /// The page.
    pub(crate) fn page(&self) -> &SharedPage {
        &self.page
    }

    /// Step, progress and phase as they are in the page now. Not to be trusted.
    #[inline]
    pub(crate) fn heartbeat(&self) -> (u64, u64, u32) {
        (
            self.page.word(STEP).load(Relaxed),
            self.page.word(PROGRESS).load(Relaxed),
            self.page.word(PHASE).load(Relaxed),
        )
    }

    /// The checkpoint request that the trainer says it has answered. Not to be trusted.
    pub(crate) fn checkpoint_ack(&self) -> u32 {
        self.page.word(ACK).load(Relaxed)
    }

    /// Asks for a checkpoint.
    pub(crate) fn request_checkpoint(&self, request: u32) {
        self.page.word(REQUEST).store(request, Relaxed);
    }

    /// Tells the trainer how it is seen.
    #[inline]
    pub(crate) fn publish(&self, state: u32, deadline_ns: u64, now_ns: u64) {
        self.page.word(STATE).store(state, Relaxed);
        self.page.word(DEADLINE).store(deadline_ns, Relaxed);
        self.page.word(SAMPLED).store(now_ns, Relaxed);
    }

    /// Tells the trainer the incident that its stall belongs to, 0: none.
    pub(crate) fn publish_incident(&self, incident: u64) {
        self.page.word(INCIDENT).store(incident, Relaxed);
    }

    /// Whether its process runs its program no more: all of its threads have begun to exit, and may
    /// be stuck in that, where a driver does not let go of what they had open.
    #[inline]
    pub(crate) fn is_exiting(&self) -> bool {
        if !self.task.is_exiting() {
            return false;
        }
        let rcu = rcu::read_lock();
        let mut threads = self.task.threads(&rcu);
        // Who has more is not known to exit: zombies whose tracer does not wait for them stay.
        threads.by_ref().take(THREADS).all(|task| task.is_exiting()) && threads.next().is_none()
    }

    /// Whether no thread of its process is left, but for zombies.
    pub(crate) fn is_gone(&self) -> bool {
        let gone = |task: &Task| task.state() == State::Exited;
        let rcu = rcu::read_lock();
        let mut threads = self.task.threads(&rcu);
        gone(&self.task) && threads.by_ref().take(THREADS).all(gone) && threads.next().is_none()
    }

    /// Looks at the threads of its process at `now`, after the look `before`; see
    /// [`Survey::new()`] for `stuck_ns`. Does not sleep.
    pub(crate) fn look(&self, now: u64, stuck_ns: u64, before: Option<&Survey>) -> Seen {
        let rcu = rcu::read_lock();
        let mut survey = Survey::new(self.task.pid(), now, stuck_ns);
        survey.add(thread(&self.task), before);
        for task in self.task.threads(&rcu).take(THREADS) {
            survey.add(thread(task), before);
        }
        let culprit = survey.culprit();
        let mut threads = self.task.threads(&rcu).take(THREADS);
        let task = threads.find(|task| task.pid() == culprit.tid);
        let task = task.unwrap_or(&self.task);
        Seen {
            survey,
            culprit,
            comm: *task.comm().as_bytes(),
            cpu: task.cpu(),
        }
    }

    /// The part of an event's payload that says who it is.
    pub(crate) fn introduce(&self) -> Stall {
        Stall {
            rank: self.rank,
            name: self.name,
            pid: self.task.tgid(),
            tid: self.task.pid(),
            comm: *self.task.comm().as_bytes(),
            ..Stall::ZERO
        }
    }
}
