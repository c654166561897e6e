// SPDX-License-Identifier: GPL-2.0

//! The thread that does for a stalled rank what the sampler must not wait for: stacks to the kernel
//! log, and signals.

use crate::abi::{self, Culprit};
use crate::member::{class, Member, THREADS};
use crate::monitor::Monitor;
use crate::table::Entry;
use kernel::{
    cpu,
    kthread::{Handler, Next},
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{AtomicFlag, Relaxed},
        new_mutex, rcu, Arc, Mutex,
    },
    task::{State, Task},
    time::{Instant, Monotonic}, //
};

/// `SCHED_FIFO` priority: below the sampler.
pub(crate) const PRIORITY: u8 = 79;
/// Stacks of one process at most.
pub(crate) const STACKS: usize = 64;
/// The rate is counted over so many seconds.
const MINUTE_S: i64 = 60;

/// How many processes have been shown of late.
struct Rate {
    since: Instant<Monotonic>,
    shown: u32,
}

struct Notes {
    rate: Rate,
    /// Threads that are about to be shown: room for [`STACKS`].
    tasks: KVec<ARef<Task>>,
}

/// The thread's work.
#[pin_data]
pub(crate) struct Witness {
    monitor: Arc<Monitor>,
    #[pin]
    notes: Mutex<Notes>,
}

/// Whether something is wanted, once.
fn take(flag: &AtomicFlag) -> bool {
    flag.load(Relaxed) && flag.xchg(false, Relaxed)
}

impl Witness {
    pub(crate) fn new(monitor: Arc<Monitor>) -> Result<impl PinInit<Self>> {
        let notes = Notes {
            rate: Rate {
                since: Instant::now(),
                shown: 0,
            },
            tasks: KVec::with_capacity(STACKS, GFP_KERNEL)?,
        };
        Ok(pin_init!(Self {
            monitor,
            notes <- new_mutex!(notes, "nullhz_stall_notes"),
        }))
    }

    /// A rank with an errand, and its place: the first from place `from` on, or else of all.
    /// Between two calls ranks come and go, and others move up.
    fn next(&self, from: usize) -> Option<(usize, Arc<Member>)> {
        let table = self.monitor.table.lock();
        let all = || table.entries.iter().enumerate();
        let asked = |(_, entry): &(usize, &Entry)| entry.member.errands.any();
        let next = all().skip(from).find(asked).or_else(|| all().find(asked));
        next.map(|(index, entry)| (index, entry.member.clone()))
    }

    fn serve(&self, member: &Arc<Member>) {
        if take(&member.errands.stacks) {
            self.show(member);
        }
        if take(&member.errands.backtrace) {
            backtrace(member);
        }
        if member.errands.signal.load(Relaxed) {
            self.signal(member);
        }
    }

    /// Logs the stacks of a process's threads: the one that registered, then those that cannot go
    /// on, then others.
    fn show(&self, member: &Member) {
        let tunables = &self.monitor.tunables;
        let counters = &self.monitor.counters;
        let most = (tunables.stack_threads.load(Relaxed) as usize).min(STACKS);
        let mut notes = self.notes.lock();
        let Notes { rate, tasks } = &mut *notes;
        if rate.since.elapsed().as_nanos() / 1_000_000_000 >= MINUTE_S {
            rate.since = Instant::now();
            rate.shown = 0;
        }
        if rate.shown >= tunables.stacks_per_minute.load(Relaxed) {
            counters.stacks_skipped.add(1);
            return;
        }
        rate.shown = rate.shown.saturating_add(1);
        counters.stacks.add(1);

        collect(member, most, tasks);
        pr_warn!(
            "rank {} of {} is suspect: stacks of process {}\n",
            member.rank,
            member.job(),
            member.task.tgid()
        );
        for task in tasks.iter() {
            task.show();
        }
        tasks.clear();
    }

    fn signal(&self, member: &Arc<Member>) {
        // To the end: who is seen to go on, or has left, is not signalled any more.
        let table = self.monitor.table.lock();
        let index = table.find(member);
        let entry = index.and_then(|index| table.entries.get(index));
        let stalled = entry.is_some_and(|entry| entry.rank.state() >= abi::State::NoAck);
        if !take(&member.errands.signal) || !stalled {
            return;
        }
        let Some(signal) = self.monitor.tunables.policy().signal() else {
            return;
        };
        match member.task.signal_process(signal) {
            Ok(()) => self.monitor.counters.signals.add(1),
            Err(error) => pr_warn!("rank {}: no signal: {error:?}\n", member.rank),
        }
    }
}

/// Fills `tasks` with `most` of a process's threads, the most telling first.
fn collect(member: &Member, most: usize, tasks: &mut KVec<ARef<Task>>) {
    tasks.clear();
    let main: &Task = &member.task;
    let mut add = |task: &Task| {
        if tasks.len() < most {
            // There is room for more than `most`.
            let _ = tasks.push_within_capacity(ARef::from(task));
        }
    };
    add(main);
    let rcu = rcu::read_lock();
    for stuck in [true, false] {
        for task in main
            .threads(&rcu)
            .take(THREADS)
            .filter(|task| *task != main)
        {
            let able = matches!(class(task), Culprit::Spinning | Culprit::Sleeping);
            if able != stuck {
                add(task);
            }
        }
    }
}

/// Logs what a rank's thread does right now, by an interrupt to its CPU, which may be isolated: the
/// rank is stalled anyway.
fn backtrace(member: &Member) {
    if member.task.state() == State::Running {
        let cpu = member.task.cpu();
        if !cpu::backtrace(cpu) {
            pr_warn!(
                "rank {}: CPU {} cannot be asked\n",
                member.rank,
                cpu.as_u32()
            );
        }
    }
}

impl Handler for Witness {
    fn run(&self) -> Next {
        let mut from = 0;
        // Ends: serving a rank takes its errands, and it has another one a rung later only.
        while let Some((index, member)) = self.next(from) {
            self.serve(&member);
            from = index;
        }
        Next::UntilWoken
    }
}
