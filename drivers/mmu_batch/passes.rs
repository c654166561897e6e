// SPDX-License-Identifier: GPL-2.0

//! Which callbacks belong to the same event. Pure logic.
//!
//! The memory management calls one interval after the other, in the order of their first bytes, and
//! does not say which is the first one. It is the first one of an event if the same thread has not
//! just been in an interval before it with the same range.

/// A thread's pass over the intervals of a space.
#[derive(Clone, Copy)]
struct Pass {
    thread: i32,
    start: u64,
    end: u64,
    /// First byte of the interval that it was in last.
    at: u64,
}

/// The passes of the last few threads; more than these at a time, in one space, and events are
/// counted more than once.
pub struct Passes {
    passes: [Option<Pass>; Self::THREADS],
    oldest: usize,
}

impl Passes {
    const THREADS: usize = 32;

    /// There was none.
    pub const NONE: Passes = Passes {
        passes: [None; Self::THREADS],
        oldest: 0,
    };

    /// Whether an event begins: `thread` has come to the interval that begins at `at`, because of
    /// an event with this range.
    pub fn begins(&mut self, thread: i32, start: u64, end: u64, at: u64) -> bool {
        let pass = Pass {
            thread,
            start,
            end,
            at,
        };
        let mut known = self.passes.iter_mut().flatten();
        if let Some(known) = known.find(|known| known.thread == thread) {
            let goes_on = (known.start, known.end) == (start, end) && known.at < at;
            *known = pass;
            return !goes_on;
        }
        if let Some(place) = self.passes.get_mut(self.oldest) {
            *place = Some(pass);
        }
        self.oldest = (self.oldest + 1) % Self::THREADS;
        true
    }
}
