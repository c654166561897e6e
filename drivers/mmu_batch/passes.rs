// SPDX-License-Identifier: GPL-2.0

//! Which callbacks belong to the same event. Pure logic.
//!
//! The memory management calls one interval after the other, in the order of their first bytes, and
//! does not say which is the first one. It is the first one of an event if the same thread has not
//! just been in an interval before it with the same range.

/// A thread's pass over the intervals of a space.
#[derive(Clone, Copy)]
struct Pass {
    /// 0: nobody's.
    thread: i32,
    start: u64,
    end: u64,
    /// First byte of the interval that it was in last.
    at: u64,
    /// The last ticket that the second pass of one of its intervals waits for.
    ticket: u64,
}

/// The passes of the last few threads; more than these at a time, in one space, and events are
/// counted more than once.
pub struct Passes {
    passes: [Pass; Self::THREADS],
    oldest: usize,
    /// Where the thread is that was here last.
    latest: usize,
}

impl Passes {
    const THREADS: usize = 32;

    /// There was none.
    pub const NONE: Passes = Passes {
        passes: [Pass {
            thread: 0,
            start: 0,
            end: 0,
            at: 0,
            ticket: 0,
        }; Self::THREADS],
        oldest: 0,
        latest: 0,
    };

    /// Whether an event begins: `thread` has come to the interval that begins at `at`, because of
    /// an event with this range.
    pub fn begins(&mut self, thread: i32, start: u64, end: u64, at: u64) -> bool {
        let is_its = |pass: &Pass| pass.thread == thread;
        if !self.passes.get(self.latest).is_some_and(is_its) {
            self.latest = self.passes.iter().position(is_its).unwrap_or(self.oldest);
        }
        let Some(pass) = self.passes.get_mut(self.latest) else {
            return true;
        };
        if is_its(pass) && (pass.start, pass.end) == (start, end) && pass.at < at {
            pass.at = at;
            return false;
        }
        if !is_its(pass) {
            self.oldest = (self.oldest + 1) % Self::THREADS;
        }
        *pass = Pass {
            thread,
            start,
            end,
            at,
            ticket: 0,
        };
        true
    }

    /// The thread that was here last has to wait for `ticket` before its event goes on. Whether it
    /// does so anyway, after the first pass, for an earlier interval of the same event; else it is
    /// known from now on.
    ///
    /// It is right also where [`begins()`](Self::begins) takes two events of a thread for one: then
    /// the first one is over, and all that it had to wait for is finished.
    pub fn waits_anyway(&mut self, ticket: u64) -> bool {
        let Some(pass) = self.passes.get_mut(self.latest) else {
            return false;
        };
        let waits = pass.ticket >= ticket;
        pass.ticket = pass.ticket.max(ticket);
        waits
    }
}
