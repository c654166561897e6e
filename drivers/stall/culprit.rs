// SPDX-License-Identifier: GPL-2.0

//! What a stalled rank's process does, from what each of its threads does. Pure logic.
//!
//! The thread that registered runs the training loop, so what it does is the answer, but for two
//! cases. It sleeps and another thread is stuck in the kernel: the loop waits for that one. It is
//! dead and others are not: the answer is theirs.
//!
//! A disk that is merely busy puts threads into D state all the time. Stuck is only who has not run
//! in between: as for the detector of hung tasks (kernel/hung_task.c), looks that are long enough
//! apart found it in D state, and it was switched to and from no more often at the last one than at
//! the first. No other thread than the loop's is said to be in D state before
//! that, and no thread's D state speaks against the node.

use super::abi::Culprit;

/// A thread and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// In the initial namespace.
    pub tid: i32,
    /// What it does.
    pub class: Culprit,
    /// How often it has been switched away from, by its own will or not.
    pub switches: u64,
}

impl Thread {
    /// None was seen.
    pub const NONE: Self = Thread {
        tid: 0,
        class: Culprit::Unknown,
        switches: 0,
    };
}

/// Nobody is stuck who has not been in D state for so long without having run, ns.
pub const STUCK_NS: u64 = 1_000_000_000;

/// How many threads in D state, besides the loop's, a look remembers for the next one.
const BLOCKED: usize = 8;

/// A thread in D state.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    tid: i32,
    switches: u64,
    /// The first look that found it there, and with as many switches.
    since_ns: u64,
}

/// A look at all threads of a process.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    now_ns: u64,
    /// Who has been in D state for so long without having run is stuck.
    stuck_ns: u64,
    /// The one that registered.
    main: Thread,
    /// Of the others, the one that says most.
    other: Thread,
    /// `main`, if it is in D state.
    main_blocked: Option<Blocked>,
    /// Of the others those in D state, as far as there is room.
    blocked: [Option<Blocked>; BLOCKED],
}

/// How much another thread's class says.
fn weight(class: Culprit) -> u32 {
    match class {
        Culprit::Unknown | Culprit::Exited => 0,
        Culprit::Sleeping => 1,
        Culprit::Spinning => 2,
        Culprit::Stopped => 3,
        Culprit::Frozen => 4,
        Culprit::Disk => 5,
    }
}

impl Survey {
    /// A look at `now_ns` at the process whose thread `main` registered. A thread is stuck after
    /// `stuck_ns`, but not before [`STUCK_NS`].
    pub fn new(main: i32, now_ns: u64, stuck_ns: u64) -> Self {
        Survey {
            now_ns,
            stuck_ns: stuck_ns.max(STUCK_NS),
            main: Thread {
                tid: main,
                // A thread that is not found is gone.
                class: Culprit::Exited,
                ..Thread::NONE
            },
            other: Thread::NONE,
            main_blocked: None,
            blocked: [None; BLOCKED],
        }
    }

    /// `thread`, if it is in D state, and since when, with the look `before`.
    fn block(&self, thread: &Thread, before: Option<&Survey>) -> Option<Blocked> {
        let mut known = before
            .into_iter()
            .flat_map(|before| before.blocked.iter().chain([&before.main_blocked]))
            .flatten();
        let same = known.find(|known| (known.tid, known.switches) == (thread.tid, thread.switches));
        (thread.class == Culprit::Disk).then_some(Blocked {
            tid: thread.tid,
            switches: thread.switches,
            since_ns: same.map_or(self.now_ns, |known| known.since_ns),
        })
    }

    fn stuck(&self, blocked: Option<Blocked>) -> bool {
        blocked.is_some_and(|since| self.now_ns.saturating_sub(since.since_ns) >= self.stuck_ns)
    }

    /// Adds a thread, of which the look `before`, if there was one, may know.
    pub fn add(&mut self, mut thread: Thread, before: Option<&Survey>) {
        let blocked = self.block(&thread, before);
        if thread.tid == self.main.tid {
            self.main = thread;
            self.main_blocked = blocked;
            return;
        }
        if blocked.is_some() {
            if let Some(free) = self.blocked.iter_mut().find(|place| place.is_none()) {
                *free = blocked;
            }
            if !self.stuck(blocked) {
                thread.class = Culprit::Sleeping;
            }
        }
        if weight(thread.class) > weight(self.other.class) {
            self.other = thread;
        }
    }

    /// What the process does, and which thread tells so.
    pub fn culprit(&self) -> Thread {
        let instead = match self.main.class {
            Culprit::Exited => weight(self.other.class) != 0,
            Culprit::Sleeping => self.other.class == Culprit::Disk,
            _ => false,
        };
        if instead {
            self.other
        } else {
            self.main
        }
    }

    /// Whether the process cannot go on because a thread of it is stuck in the kernel: evidence
    /// against the node.
    pub fn is_stuck(&self) -> bool {
        // Of the others, only one that is stuck is said to be in D state.
        let culprit = self.culprit();
        culprit.class == Culprit::Disk
            && (culprit.tid != self.main.tid || self.stuck(self.main_blocked))
    }
}
