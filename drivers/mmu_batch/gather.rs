// SPDX-License-Identifier: GPL-2.0

//! Unmaps that a driver itself wanted: zapped already, and kept until their flush. Pure logic.
//!
//! ```text
//!   defer --> zapped, ticket --> kept --> some flush finishes the ticket --> taken, released
//!                                  |               ^
//!                                  +-- is due -----+
//! ```
//!
//! [`Gather`] says when to drain, and which unmaps may be released; it waits for nothing itself.
//! Unmaps are released in the order in which they were deferred.

use super::combine::Ticket;
use core::ops::DerefMut;

/// Why deferred unmaps are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Work is given to the device that must not see what was unmapped.
    Submit = 0,
    /// The addresses are wanted again.
    Reuse = 1,
    /// There is much to give back.
    Size = 2,
    /// The first one has waited for the window.
    Time = 3,
    /// Memory is short.
    Shrinker = 4,
    /// The space, its process or the device ends.
    Release = 5,
}

/// How many causes there are.
pub const CAUSES: usize = 6;

/// When to drain, at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After that many ns; 0: at once.
    pub window_ns: u64,
    /// When that many unmaps, or more, are kept.
    pub unmaps: usize,
    /// When that many pages, or more, are.
    pub pages: u64,
}

/// One unmap.
#[derive(Clone, Copy, Debug)]
pub struct Unmap<T> {
    /// How many pages it gives back.
    pub pages: u64,
    /// Taken after its zap.
    pub ticket: Ticket,
    /// What has to be released.
    pub held: T,
}

/// What [`Gather::push()`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: somebody was asked before.
    Kept,
    /// Somebody has to look again at that time ([`Gather::due()`]).
    WakeAt(u64),
    /// A drain, now.
    Drain(Cause),
}

/// What somebody who looks in time has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing is kept.
    Never,
    /// Come back at that time.
    At(u64),
    /// Wait for that ticket, and release what is finished.
    Now(Ticket),
}

/// The unmaps of one device that are kept, in a ring of places that are there from the beginning.
///
/// # Invariants
///
/// - The `len` places from `head` on, and no others, hold an unmap; `pages` is the sum of theirs.
/// - If one is held, `deadline` is when the first one has waited for the window, and `newest` the
///   ticket that finishes all of them. If none is, `squeezed` is false.
pub struct Gather<B> {
    places: B,
    head: usize,
    len: usize,
    pages: u64,
    deadline: u64,
    newest: Ticket,
    squeezed: bool,
    deferred: u64,
    deferred_pages: u64,
    drains: [u64; CAUSES],
}

impl<T, B: DerefMut<Target = [Option<Kept<T>>]>> Gather<B> {
    /// Nothing yet, in `places`, which are empty. [`None`] if there are none.
    pub fn new(places: B) -> Option<Self> {
        if places.is_empty() {
            return None;
        }
        // INVARIANT: nothing is held.
        Some(Gather {
            places,
            head: 0,
            len: 0,
            pages: 0,
            deadline: 0,
            newest: Ticket::FINISHED,
            squeezed: false,
            deferred: 0,
            deferred_pages: 0,
            drains: [0; CAUSES],
        })
    }

    /// The place of the `n`th that is kept.
    fn index(&self, n: usize) -> usize {
        let capacity = self.places.len();
        let at = self.head.saturating_add(n);
        at.checked_rem(capacity).unwrap_or(0)
    }

    fn nth(&self, n: usize) -> Option<&Kept<T>> {
        self.places.get(self.index(n))?.as_ref()
    }

    /// Keeps `unmap`, which was zapped. When there is no place, it comes back: the caller waits for
    /// its ticket, and releases it.
    pub fn push(
        &mut self,
        unmap: Unmap<T>,
        now_ns: u64,
        limits: &Limits,
    ) -> Result<Next, Unmap<T>> {
        // The one that comes back is deferred as well, if only until its caller has waited.
        self.deferred = self.deferred.saturating_add(1);
        self.deferred_pages = self.deferred_pages.saturating_add(unmap.pages);
        let index = self.index(self.len);
        let Some(place) = self.places.get_mut(index).filter(|place| place.is_none()) else {
            return Err(unmap);
        };
        let deadline = now_ns.saturating_add(limits.window_ns);
        self.newest = self.newest.max(unmap.ticket);
        // INVARIANT: one more at the end.
        self.pages = self.pages.saturating_add(unmap.pages);
        *place = Some(Kept { unmap, deadline });
        self.len = self.len.saturating_add(1);
        if self.len == 1 {
            self.deadline = deadline;
        }
        let most = limits.unmaps.min(self.places.len());
        if self.pages >= limits.pages || self.len >= most {
            return Ok(Next::Drain(Cause::Size));
        }
        Ok(match limits.window_ns {
            0 => Next::Drain(Cause::Time),
            _ if self.len > 1 => Next::Kept,
            _ => Next::WakeAt(deadline),
        })
    }

    /// What has to be done at `now_ns`.
    pub fn due(&self, now_ns: u64) -> Due {
        match self.last_ticket() {
            None => Due::Never,
            Some(_) if now_ns < self.deadline && !self.squeezed => Due::At(self.deadline),
            Some(ticket) => Due::Now(ticket),
        }
    }

    /// Memory is short: what is kept is due now. Whether anything is.
    pub fn squeeze(&mut self) -> bool {
        self.squeezed = self.len > 0;
        self.squeezed
    }

    /// Why what is due is.
    pub fn cause(&self) -> Cause {
        match self.squeezed {
            true => Cause::Shrinker,
            false => Cause::Time,
        }
    }

    /// The ticket that finishes all that are kept.
    pub fn last_ticket(&self) -> Option<Ticket> {
        (self.len > 0).then_some(self.newest)
    }

    /// Counts a drain, of all that are kept.
    pub fn count(&mut self, cause: Cause) {
        self.squeezed = false;
        if let Some(count) = self.drains.get_mut(cause as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Takes the first one away, if its ticket is among those that `finished` finishes.
    pub fn pop(&mut self, finished: Ticket) -> Option<Unmap<T>> {
        let place = self.places.get_mut(self.head)?;
        let kept = place.take_if(|kept| kept.unmap.ticket <= finished)?;
        // INVARIANT: the first one is gone, and the next is the first.
        self.head = self.index(1);
        self.len = self.len.saturating_sub(1);
        self.pages = self.pages.saturating_sub(kept.unmap.pages);
        self.deadline = self.nth(0).map_or(0, |next| next.deadline);
        self.squeezed &= self.len > 0;
        Some(kept.unmap)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pages are kept.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// How many were deferred since the beginning, and their pages.
    pub fn deferred(&self) -> (u64, u64) {
        (self.deferred, self.deferred_pages)
    }

    /// How many drains were counted, by [`Cause`].
    pub fn drains(&self) -> &[u64; CAUSES] {
        &self.drains
    }
}

/// An unmap in its place.
pub struct Kept<T> {
    unmap: Unmap<T>,
    deadline: u64,
}
