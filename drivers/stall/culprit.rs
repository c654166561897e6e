// SPDX-License-Identifier: GPL-2.0

//! What a stalled rank's process does, from what each of its threads does. Pure logic.
//!
//! The thread that registered runs the training loop, so what it does is the answer, but for two
//! cases. It sleeps and another thread is stuck in the kernel: the loop waits for that one. It is
//! dead and others are not: the answer is theirs. A disk that is merely busy puts threads into D
//! state all the time; another thread than the loop's counts only when the look before, a rung
//! ago, found it there as well.

use super::abi::Culprit;

/// A thread and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// In the initial namespace.
    pub tid: i32,
    /// What it does.
    pub class: Culprit,
}

impl Thread {
    /// None was seen.
    pub const NONE: Self = Thread {
        tid: 0,
        class: Culprit::Unknown,
    };
}

/// How many stuck threads a look remembers for the next one.
const STUCK: usize = 8;

/// A look at all threads of a process.
#[derive(Clone, Copy, Debug)]
pub struct Survey {
    /// The one that registered.
    main: Thread,
    /// Of the others, the one that says most.
    other: Thread,
    /// In D state in the look before, 0: none.
    before: [i32; STUCK],
    /// In D state in this look.
    stuck: [i32; STUCK],
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
    /// A look at the process whose thread `main` registered, after the look `before`, if any.
    pub fn new(main: i32, before: Option<&Survey>) -> Self {
        Survey {
            main: Thread {
                tid: main,
                // A thread that is not found is gone.
                class: Culprit::Exited,
            },
            other: Thread::NONE,
            before: before.map_or([0; STUCK], |before| before.stuck),
            stuck: [0; STUCK],
        }
    }

    /// Adds a thread.
    pub fn add(&mut self, mut thread: Thread) {
        if thread.tid == self.main.tid {
            self.main = thread;
            return;
        }
        if thread.class == Culprit::Disk {
            let free = self.stuck.iter_mut().find(|tid| **tid == 0);
            if let Some(free) = free {
                *free = thread.tid;
            }
            if !self.before.contains(&thread.tid) {
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
}
