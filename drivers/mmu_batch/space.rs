// SPDX-License-Identifier: GPL-2.0

//! The memory of a process as a device sees it.

use crate::combine::{Ticket, Zap};
use crate::device::{Device, Visit};
use crate::ffi;
use crate::passes::Passes;
use crate::spans::Span;
use crate::trace::Outcome;
use core::ops::Range;
use kernel::{
    current,
    mm::{Mm, MmWithUser},
    prelude::*,
    sync::{
        aref::ARef,
        lock::{mutex::MutexBackend, Guard},
        new_mutex,
        Arc,
        Mutex, //
    }, //
};

/// What the lock of a space protects here; for the driver it is its page table.
pub(crate) struct State {
    /// Of what the driver itself has unmapped last.
    deferred: Ticket,
    /// The addresses of all such unmaps whose tickets may not be finished, and those between them.
    unmapped: Range<u64>,
    /// Of what was zapped last, for whatever reason.
    pub(crate) last: Ticket,
    passes: Passes,
}

impl State {
    const NEW: State = State {
        deferred: Ticket::FINISHED,
        unmapped: 0..0,
        last: Ticket::FINISHED,
        passes: Passes::NONE,
    };

    /// The driver itself has unmapped `range`, which `ticket` finishes.
    pub(crate) fn unmapped(&mut self, device: &Device, range: Range<u64>, ticket: Ticket) {
        self.unmapped = if device.is_finished(self.deferred) {
            range
        } else {
            let start = self.unmapped.start.min(range.start);
            start..self.unmapped.end.max(range.end)
        };
        self.deferred = ticket;
        self.last = ticket;
    }

    /// What finishes all unmaps of the driver's own in `span`.
    fn deferred_in(&self, span: &Span) -> Ticket {
        match self.unmapped.start < span.end && span.start < self.unmapped.end {
            true => self.deferred,
            false => Ticket::FINISHED,
        }
    }
}

/// A space.
#[pin_data]
pub(crate) struct Space {
    mm: ARef<Mm>,
    tag: u64,
    #[pin]
    state: Mutex<State>,
    /// Goes last: it lets the driver and the device go.
    visit: Visit,
}

/// The lock of a space, held.
pub(crate) type Locked<'a> = Guard<'a, State, MutexBackend>;

impl Space {
    /// Makes a space of `mm`. Process context, may sleep.
    pub(crate) fn new(device: Arc<Device>, mm: &Mm, tag: u64) -> Result<Arc<Self>> {
        let visit = Visit::new(device)?;
        Arc::pin_init(
            pin_init!(Self {
                mm: mm.into(),
                tag,
                state <- new_mutex!(
                    State::NEW,
                    "nullhz_mmu_batch_space"
                ),
                visit,
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn device(&self) -> &Device {
        self.visit.device()
    }

    /// The memory, if it is still in use. May be its last user: the memory may go when the
    /// reference is dropped, which must not happen with a lock held.
    pub(crate) fn memory(&self) -> Option<ARef<MmWithUser>> {
        self.mm.mmget_not_zero()
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> Locked<'_> {
        self.state.lock()
    }

    /// The lock, if nobody has it.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        self.state.try_lock()
    }

    /// The lock, which some C code has not given back yet.
    pub(crate) fn raw_lock(&self) -> &Mutex<State> {
        &self.state
    }

    /// What a flush of `range` of this space is called.
    pub(crate) fn span(&self, range: &Range<u64>) -> Span {
        Span {
            start: range.start,
            end: range.end,
            tag: self.tag,
        }
    }
}

/// What the callbacks of an event for an interval know of it.
pub(crate) struct Hit<'a> {
    pub(crate) space: &'a Space,
    /// The ticket of what was zapped last in the interval; changes under the lock.
    pub(crate) last: &'a crate::interval::Last,
    /// First byte of the interval.
    pub(crate) at: u64,
    /// The event's own range, of which `span` is in the interval.
    pub(crate) whole: Range<u64>,
    pub(crate) span: Span,
    pub(crate) kind: u32,
    /// No event, but the interval's end: not counted.
    pub(crate) removal: bool,
}

/// What the first pass of an event leaves to do in an interval.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// Nothing: it has nothing in the TLB.
    Nothing,
    /// The ticket has to be waited for.
    Wait(Ticket),
    /// An earlier interval of the same event waits for it already: its second pass is before the
    /// event goes on as well, as are all.
    Same(Ticket),
}

impl Left {
    pub(crate) fn ticket(self) -> Option<Ticket> {
        match self {
            Left::Nothing => None,
            Left::Wait(ticket) | Left::Same(ticket) => Some(ticket),
        }
    }
}

impl Hit<'_> {
    /// Takes the lock, before something is zapped. May sleep.
    pub(crate) fn lock(&self) -> (Locked<'_>, Zap) {
        self.begin(self.space.lock())
    }

    /// The same without sleeping, if nobody has the lock.
    pub(crate) fn try_lock(&self) -> Option<(Locked<'_>, Zap)> {
        self.space.try_lock().map(|locked| self.begin(locked))
    }

    #[inline]
    fn begin<'a>(&self, mut state: Locked<'a>) -> (Locked<'a>, Zap) {
        let device = self.space.device();
        if !self.removal {
            let thread = current!().pid();
            let (start, end) = (self.whole.start, self.whole.end);
            if state.passes.begins(thread, start, end, self.at) {
                device.counters.events.add(1);
            }
            device.counters.intervals.add(1);
        }
        let zap = Zap::begin(device, self.span);
        (state, zap)
    }

    /// After it was zapped. Unlocks.
    pub(crate) fn zapped(&self, mut state: Locked<'_>, zap: Zap, live: bool) -> Left {
        let device = self.space.device();
        let mut last = self.last_of(&state);
        let Some(ticket) = zap.done(device, self.span, &mut last, live) else {
            drop(state);
            if !self.removal {
                self.nothing();
            }
            return Left::Nothing;
        };
        self.last.set(&mut state, last);
        state.last = state.last.max(last);
        let same = !self.removal && state.passes.waits_anyway(ticket.into_raw());
        drop(state);
        if live {
            self.trace(Outcome::Ticket, Some(ticket));
        } else if !self.removal {
            device.counters.joined.add(1);
            self.trace(Outcome::Joined, Some(ticket));
        }
        match same {
            true => Left::Same(ticket),
            false => Left::Wait(ticket),
        }
    }

    /// Whether something that was zapped before may still be in the TLB.
    pub(crate) fn in_flight(&self, state: &State) -> bool {
        !self.space.device().is_finished(self.last_of(state))
    }

    /// An event that must not block has found nothing live, and nothing in flight.
    pub(crate) fn nothing(&self) {
        self.space.device().counters.elided.add(1);
        self.trace(Outcome::Elided, None);
    }

    /// An event that must not block would have to.
    pub(crate) fn would_block(&self) {
        self.space.device().counters.would_block.add(1);
        self.trace(Outcome::WouldBlock, None);
    }

    /// The later one of the interval's own zaps and of the driver's unmaps, which do not say to
    /// what interval they belong.
    fn last_of(&self, state: &State) -> Ticket {
        self.last.get(state).max(state.deferred_in(&self.span))
    }

    fn trace(&self, outcome: Outcome, ticket: Option<Ticket>) {
        ffi::trace_event(
            self.space.device().name(),
            &self.span,
            self.kind,
            outcome,
            ticket,
        );
    }
}
