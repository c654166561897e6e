// SPDX-License-Identifier: GPL-2.0

//! The memory of a process as a device sees it.

use crate::block::{Blocks, Members};
use crate::combine::{Owed, Ticket, Zap};
use crate::device::{Device, Visit};
use crate::ffi;
use crate::interval::{kind_of, Last};
use crate::passes::Passes;
use crate::spans::Span;
use crate::trace::Outcome;
use core::ops::Range;
use kernel::{
    current,
    mm::{
        interval::{Event, Kind},
        Mm,
        MmWithUser, //
    },
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
    pub(crate) members: Members,
    passes: Passes,
}

impl State {
    fn new() -> State {
        State {
            deferred: Ticket::FINISHED,
            unmapped: 0..0,
            last: Ticket::FINISHED,
            members: Members::new(),
            passes: Passes::NONE,
        }
    }

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
    /// Never taken in a callback: notifiers are registered and removed under it.
    #[pin]
    blocks: Mutex<Blocks>,
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
                state <- new_mutex!(State::new(), "nullhz_mmu_batch_space"),
                blocks <- new_mutex!(Blocks::new(), "nullhz_mmu_batch_blocks"),
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

    /// Its blocks. Process context, not in a callback; may sleep.
    pub(crate) fn blocks(&self) -> Guard<'_, Blocks, MutexBackend> {
        self.blocks.lock()
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

/// What the callbacks of an event for a notifier know of it.
pub(crate) struct Hit<'a> {
    pub(crate) space: &'a Space,
    /// The ticket of what was zapped last in what the notifier watches; changes under the lock.
    last: &'a Last,
    /// First byte of what the notifier watches.
    at: u64,
    /// The event's own range.
    whole: Range<u64>,
    /// What of it the notifier watches, or less, if nothing was in the rest.
    pub(crate) span: Span,
    pub(crate) kind: u32,
    /// How many intervals it has hit.
    pub(crate) intervals: u64,
    /// The event hits no other notifier of the space, unless they overlap.
    alone: bool,
    /// No event, but an interval's end: not counted.
    removal: bool,
}

/// What the first pass of an event leaves to do for a notifier.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// Nothing: it has nothing in the TLB.
    Nothing,
    /// Nothing any more: it was flushed.
    Flushed,
    /// The ticket has to be waited for.
    Wait(Ticket),
    /// An earlier notifier of the same event waits for it already: its second pass is before the
    /// event goes on as well, as are all.
    Same(Ticket),
}

impl Left {
    pub(crate) fn ticket(self) -> Option<Ticket> {
        match self {
            Left::Nothing | Left::Flushed => None,
            Left::Wait(ticket) | Left::Same(ticket) => Some(ticket),
        }
    }
}

impl<'a> Hit<'a> {
    /// Of an event, for a notifier that watches from `at` on.
    pub(crate) fn new(space: &'a Space, last: &'a Last, at: u64, event: &Event<'_>) -> Self {
        let (whole, range) = (event.range(), event.overlap());
        Self {
            space,
            last,
            at,
            alone: whole == range,
            whole: whole.start as u64..whole.end as u64,
            span: space.span(&(range.start as u64..range.end as u64)),
            kind: kind_of(event.kind()),
            intervals: 1,
            removal: false,
        }
    }

    /// Of an interval that ends.
    pub(crate) fn removal(space: &'a Space, last: &'a Last, range: &Range<u64>) -> Self {
        Self {
            space,
            last,
            at: range.start,
            alone: true,
            whole: range.clone(),
            span: space.span(range),
            kind: kind_of(Kind::Release),
            intervals: 1,
            removal: true,
        }
    }

    /// There was nothing in the rest of its span.
    pub(crate) fn narrow(&mut self, range: Range<u64>) {
        self.span = self.space.span(&range);
    }

    /// Takes the lock, before something is zapped. May sleep.
    pub(crate) fn lock(&self) -> (Locked<'a>, Zap) {
        let state = self.space.lock();
        (state, Zap::begin(self.space.device(), self.span))
    }

    /// The same without sleeping, if nobody has the lock.
    pub(crate) fn try_lock(&self) -> Option<(Locked<'a>, Zap)> {
        let state = self.space.try_lock()?;
        Some((state, Zap::begin(self.space.device(), self.span)))
    }

    /// Counts the event, if this is the first notifier that it hits, and the intervals.
    pub(crate) fn count(&self, state: &mut State) {
        if self.removal {
            return;
        }
        let device = self.space.device();
        if self.alone || self.begins(state) {
            device.counters.events.add(1);
        }
        device.counters.intervals.add(self.intervals);
    }

    /// Whether this is the first notifier that the event hits.
    fn begins(&self, state: &mut State) -> bool {
        let thread = current!().pid();
        let (start, end) = (self.whole.start, self.whole.end);
        state.passes.begins(thread, start, end, self.at)
    }

    /// After it was zapped. Unlocks.
    pub(crate) fn zapped(&self, state: Locked<'_>, zap: Zap, live: bool) -> Left {
        let mut last = self.last_of(&state);
        match zap.done(self.space.device(), self.span, &mut last, live) {
            Some(ticket) => self.ticket(state, ticket, live),
            None => self.without_flush(state),
        }
    }

    /// The same for a caller that waits next, and does nothing before it: also flushes, or waits
    /// for who does, if the event hits this notifier only, so that nothing comes between its
    /// passes. May sleep.
    pub(crate) fn zapped_and_waits(&self, mut state: Locked<'_>, zap: Zap, live: bool) -> Left {
        if !self.alone {
            return self.zapped(state, zap, live);
        }
        let device = self.space.device();
        let mut last = self.last_of(&state);
        match zap.done_at_once(device, self.span, &mut last, live) {
            Owed::Nothing => self.without_flush(state),
            Owed::Flush(closed) => {
                self.note(&mut state, last);
                drop(state);
                ffi::trace_event(self, Outcome::Ticket, Some(last));
                closed.flush();
                ffi::trace_wait(device.name(), last, true);
                Left::Flushed
            }
            Owed::Ticket(ticket) => {
                let _ = self.ticket(state, ticket, live);
                device.wait(ticket);
                Left::Flushed
            }
        }
    }

    /// `last` is the ticket of what was zapped last.
    fn note(&self, state: &mut State, last: Ticket) {
        self.last.set(state, last);
        state.last = state.last.max(last);
    }

    fn without_flush(&self, state: Locked<'_>) -> Left {
        drop(state);
        if !self.removal {
            self.nothing();
        }
        Left::Nothing
    }

    fn ticket(&self, mut state: Locked<'_>, ticket: Ticket, live: bool) -> Left {
        self.note(&mut state, ticket);
        let same = !self.alone && state.passes.waits_anyway(ticket.into_raw());
        drop(state);
        if live {
            ffi::trace_event(self, Outcome::Ticket, Some(ticket));
        } else if !self.removal {
            let counters = &self.space.device().counters;
            counters.joined.add(self.intervals);
            ffi::trace_event(self, Outcome::Joined, Some(ticket));
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
        self.space.device().counters.elided.add(self.intervals);
        ffi::trace_event(self, Outcome::Elided, None);
    }

    /// An event that must not block would have to.
    pub(crate) fn would_block(&self) {
        self.space.device().counters.would_block.add(1);
        ffi::trace_event(self, Outcome::WouldBlock, None);
    }

    /// The later one of the notifier's own zaps and of the driver's unmaps, which do not say to
    /// what interval they belong. An event hits all notifiers of its range; who removes an interval
    /// has only this one, and another one may have zapped what was there.
    fn last_of(&self, state: &State) -> Ticket {
        match self.removal {
            true => state.last,
            false => self.last.get(state).max(state.deferred_in(&self.span)),
        }
    }
}
