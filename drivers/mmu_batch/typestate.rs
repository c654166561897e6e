// SPDX-License-Identifier: GPL-2.0

//! What a driver may do in an invalidation, in types: only `core`, so that the ways to misuse them
//! are tests that must not compile.
//!
//! ```text
//!   Event -+- Blockable --lock()--> Guard --zap()--> Zapped -+-> Ticket --wait()--+
//!          |                                                 |      |             |
//!          |                                       (nothing) |  Pass1::Later      |
//!          |                                                 +-> Flushed <--------+
//!          |                      (nothing)                         |
//!          +- Peek --check()--+----------------------> Flushed -----+--> Pass1::Done
//!                             +-> NonBlockable ------------------------> Pass1::WouldBlock
//! ```
//!
//! Each is worth something for one callback only: its lifetime `'e` is the callback's, invariant,
//! so that it can neither be kept nor be used for another. None can be made by a driver.
//!
//! - A callback ends with [`Flushed`], with a [`Ticket`] that the second pass waits for, or, only
//!   if it must not sleep, with the evidence of that: [`NonBlockable`].
//! - There is a [`Ticket`] only after a zap, which only the [`Guard`] of the shadow page table
//!   does.
//! - [`Peek`], all there is in a callback that must not sleep, has nothing that sleeps.
//! - What can be deferred is a [`DriverUnmap`], which takes the pages and the addresses with it. A
//!   callback has none.
//!
//! A driver that zaps, and does nothing else, needs none of that: it has [`ZapOps`], and the
//! library takes the lock, the ticket and the time to wait.
//!
//! One rule is not in the types. A callback has its interval's operations by reference, and cannot
//! drop what is in there; but nothing stops it from looking up an interval elsewhere, behind a lock
//! of the driver, and dropping that. It would wait for itself.

use super::place::Place;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Range, //
};

/// Whether there was, or is, a translation in a range of the shadow page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the flush depends on it"]
pub enum Live {
    /// None.
    Nothing,
    /// At least one.
    Something,
}

impl Live {
    /// `Something` if `there` is.
    pub const fn when(there: bool) -> Self {
        match there {
            true => Live::Something,
            false => Live::Nothing,
        }
    }

    /// Whether it is `Something`.
    pub const fn any(self) -> bool {
        matches!(self, Live::Something)
    }
}

/// What the library does for a callback that has zapped. For the library and its tests: drivers
/// have what calls it.
pub trait Finish {
    /// Sleeps until the ticket is finished.
    fn wait(&self);
}

/// What the library does for a callback whose shadow page table is an `S`. For the library and its
/// tests, too.
pub trait Pass<S>: Finish {
    /// First byte of what changes in the interval, and the one behind the last.
    fn range(&self) -> Range<u64>;
    /// Why: a value of `enum mmu_notifier_event`.
    fn kind(&self) -> u32;
    /// Takes the lock of the shadow page table. In a callback that must not sleep: only if it is
    /// free; false if it is not.
    fn lock(&self) -> bool;
    /// Calls `f` with the shadow page table, once. The lock is held.
    fn shadow(&self, f: &mut dyn FnMut(&mut S));
    /// Gives up the lock.
    fn unlock(&self);
    /// Takes a ticket, if anything was `live` or is still in flight, and gives up the lock. Returns
    /// whether there is a ticket.
    fn zapped(&self, live: bool) -> bool;
    /// Whether anything that was zapped before may still be in the TLB. The lock is held.
    fn in_flight(&self) -> bool;
}

/// Belongs to one callback, is not another's, and stays in its thread.
type Mark<'e> = PhantomData<*mut &'e mut ()>;

/// What a driver does when the CPU's page tables change in an interval.
pub trait IntervalOps: Send + Sync + 'static {
    /// The page table that the interval has its translations in. Protected by its space's lock.
    type Shadow: Send;

    /// Whether [`finish()`](Self::finish) must be called for each interval. If it does nothing but
    /// wait, as it does unless the driver has its own, then false saves time: the library waits
    /// itself, and once where several intervals of an event wait for the same flush.
    const SECOND_PASS: bool = true;

    /// The first pass: zaps. What is zapped in the intervals of one event is flushed together.
    ///
    /// Process context. Must not allocate memory that has to be reclaimed, nor drop an interval.
    fn start<'e>(&self, event: Event<'e, Self::Shadow>) -> Pass1<'e>;

    /// The second pass, after the first one of all intervals of the event: waits for the flush, and
    /// may do then what has to come after it.
    ///
    /// Process context, as [`start()`](Self::start); may sleep.
    fn finish<'e>(&self, ticket: Ticket<'e>) -> Flushed<'e> {
        ticket.wait()
    }
}

/// What a driver does for its intervals that only zaps. Less can be said than with [`IntervalOps`],
/// so that there is nothing to get wrong, and it costs least: an event that concerns one interval
/// is flushed in its first pass.
///
/// `Interval::new()` takes it as [`Zaps`].
pub trait ZapOps: Send + Sync + 'static {
    /// The page table that the interval has its translations in. Protected by its space's lock.
    type Shadow: Send;

    /// Whether [`flushed()`](Self::flushed) does anything, and must be called for each interval.
    const TELL_FLUSHED: bool = false;

    /// Removes what `table` has in `range`; whether there was anything. If not, nothing is flushed.
    ///
    /// Process context, with the space's lock held; may sleep. Must not allocate memory that has to
    /// be reclaimed, nor drop an interval.
    fn zap(&self, table: &mut Self::Shadow, range: Range<u64>) -> Live;

    /// Whether `table` has anything in `range`. For an event that must not block, if the space's
    /// lock is free: when there is nothing, the memory management goes on, otherwise it does
    /// without, or comes again.
    ///
    /// Must not sleep. [`Live::Something`] unless the driver looks.
    fn live(&self, table: &Self::Shadow, range: Range<u64>) -> Live {
        let _ = (table, range);
        Live::Something
    }

    /// What was zapped in `range` is out of the TLB: unmap DMA, drop what was kept for it. May be
    /// called where [`zap()`](Self::zap) has found nothing.
    ///
    /// Process context, without the space's lock; may sleep. Must not allocate memory that has to
    /// be reclaimed, nor drop an interval.
    fn flushed(&self, range: Range<u64>) {
        let _ = range;
    }
}

/// What has [`ZapOps`], as an interval takes it.
pub struct Zaps<Z>(pub Z);

/// A change of the CPU's page tables that an interval hears of.
pub enum Event<'e, S> {
    /// The callback may sleep.
    Blockable(Blockable<'e, S>),
    /// The callback must not sleep, and may go on only if there is nothing to do.
    NonBlockable(Peek<'e, S>),
}

impl<'e, S> Event<'e, S> {
    /// The event of a callback that `pass` is for.
    pub(super) fn new(pass: &'e dyn Pass<S>, blockable: bool) -> Self {
        let mark = PhantomData;
        match blockable {
            true => Event::Blockable(Blockable { pass, mark }),
            false => Event::NonBlockable(Peek { pass, mark }),
        }
    }

    /// First byte of what changes in the interval, and the one behind the last.
    pub fn range(&self) -> Range<u64> {
        match self {
            Event::Blockable(event) => event.range(),
            Event::NonBlockable(event) => event.range(),
        }
    }
}

/// An event whose callback may sleep.
#[must_use = "the shadow page table has to be zapped"]
pub struct Blockable<'e, S> {
    pass: &'e dyn Pass<S>,
    mark: Mark<'e>,
}

impl<'e, S> Blockable<'e, S> {
    /// First byte of what changes in the interval, and the one behind the last.
    pub fn range(&self) -> Range<u64> {
        self.pass.range()
    }

    /// Why: a value of `enum mmu_notifier_event`.
    pub fn kind(&self) -> u32 {
        self.pass.kind()
    }

    /// Takes the lock of the shadow page table. Sleeps until it is free.
    pub fn lock(self) -> Guard<'e, S> {
        // True: this callback waits for it.
        self.pass.lock();
        Guard {
            pass: self.pass,
            mark: self.mark,
        }
    }

    /// [`lock()`](Self::lock), [`zap()`](Guard::zap) and [`settle()`](Zapped::settle).
    pub fn zap(self, zap: impl FnOnce(&mut S, Range<u64>) -> Live) -> Pass1<'e> {
        self.lock().zap(zap).settle()
    }
}

/// The locked shadow page table, before it is zapped.
#[must_use = "the shadow page table has to be zapped"]
pub struct Guard<'e, S> {
    pass: &'e dyn Pass<S>,
    mark: Mark<'e>,
}

impl<'e, S> Guard<'e, S> {
    /// Has `zap` remove what the shadow page table has in the range, and say whether there was
    /// anything. Takes a ticket, and unlocks.
    pub fn zap(self, zap: impl FnOnce(&mut S, Range<u64>) -> Live) -> Zapped<'e> {
        // Unlocked by what takes the ticket.
        let guard = ManuallyDrop::new(self);
        let range = guard.pass.range();
        let live = shadow(guard.pass, |table| zap(table, range));
        // Without an answer, the worst.
        let ticket = guard.pass.zapped(live.is_none_or(Live::any));
        Zapped {
            ticket: ticket.then(|| Ticket::new(guard.pass)),
        }
    }
}

impl<S> Drop for Guard<'_, S> {
    fn drop(&mut self) {
        self.pass.unlock();
    }
}

/// Calls `f` with the shadow page table.
fn shadow<S, R>(pass: &dyn Pass<S>, f: impl FnOnce(&mut S) -> R) -> Option<R> {
    let mut f = Some(f);
    let mut result = None;
    pass.shadow(&mut |table| result = f.take().map(|f| f(table)));
    result
}

/// The range was zapped.
#[must_use = "the callback ends with what it settles to"]
pub struct Zapped<'e> {
    ticket: Option<Ticket<'e>>,
}

impl<'e> Zapped<'e> {
    /// The ticket; or the proof that nothing of the range is in the TLB, since nothing was live,
    /// and nothing that was zapped before is still in flight.
    pub fn ticket(self) -> Result<Ticket<'e>, Flushed<'e>> {
        self.ticket.ok_or(Flushed { mark: PhantomData })
    }

    /// How the first pass ends.
    pub fn settle(self) -> Pass1<'e> {
        match self.ticket() {
            Ok(ticket) => Pass1::Later(ticket),
            Err(flushed) => Pass1::Done(flushed),
        }
    }
}

/// The right, and the duty, to wait for the flush of what was zapped.
#[must_use = "the flush has to be waited for"]
pub struct Ticket<'e> {
    pass: &'e dyn Finish,
    mark: Mark<'e>,
}

impl<'e> Ticket<'e> {
    /// The ticket that `pass` has taken; also for the second pass of the same event.
    pub(super) fn new(pass: &'e dyn Finish) -> Self {
        Ticket {
            pass,
            mark: PhantomData,
        }
    }

    /// Sleeps until the flush is done; does it, if nobody else does.
    pub fn wait(self) -> Flushed<'e> {
        self.pass.wait();
        Flushed { mark: self.mark }
    }
}

/// The proof that nothing of the event's range is in the TLB.
#[must_use = "it is what the callback owes"]
pub struct Flushed<'e> {
    mark: Mark<'e>,
}

/// An event whose callback must not sleep.
#[must_use = "the event has to be answered"]
pub struct Peek<'e, S> {
    pass: &'e dyn Pass<S>,
    mark: Mark<'e>,
}

impl<'e, S> Peek<'e, S> {
    /// First byte of what changes in the interval, and the one behind the last.
    pub fn range(&self) -> Range<u64> {
        self.pass.range()
    }

    /// Why: a value of `enum mmu_notifier_event`.
    pub fn kind(&self) -> u32 {
        self.pass.kind()
    }

    /// Asks `live` whether the shadow page table has anything in the range, if its lock is free. It
    /// must not sleep.
    ///
    /// The proof that there is nothing to do, also for what was zapped before; or the evidence that
    /// the callback would have to sleep.
    pub fn check(
        self,
        live: impl FnOnce(&S, Range<u64>) -> Live,
    ) -> Result<Flushed<'e>, NonBlockable<'e>> {
        if !self.pass.lock() {
            return Err(self.give_up());
        }
        let range = self.pass.range();
        let live = shadow(self.pass, |table| live(table, range));
        let busy = live.is_none_or(Live::any) || self.pass.in_flight();
        self.pass.unlock();
        match busy {
            true => Err(self.give_up()),
            false => Ok(Flushed { mark: self.mark }),
        }
    }

    /// Without looking.
    pub fn give_up(self) -> NonBlockable<'e> {
        NonBlockable { mark: self.mark }
    }
}

/// The evidence that a callback would have to sleep, and must not.
#[must_use = "the event has to be answered"]
pub struct NonBlockable<'e> {
    mark: Mark<'e>,
}

/// How the first pass ends.
pub enum Pass1<'e> {
    /// It would have to sleep: the memory management does without, or comes again.
    WouldBlock(NonBlockable<'e>),
    /// Nothing of the range is in the TLB.
    Done(Flushed<'e>),
    /// The second pass waits for the flush.
    Later(Ticket<'e>),
}

impl<'e> From<Result<Flushed<'e>, NonBlockable<'e>>> for Pass1<'e> {
    fn from(checked: Result<Flushed<'e>, NonBlockable<'e>>) -> Self {
        match checked {
            Ok(flushed) => Pass1::Done(flushed),
            Err(evidence) => Pass1::WouldBlock(evidence),
        }
    }
}

/// Pages that stay where they are, and nobody else's, until this is dropped, by whatever thread
/// waits for unmaps of the device. Dropping it must not be what drops a space, an interval or a
/// device of the library, which would wait for itself.
pub trait Pages: Send + 'static {
    /// How many.
    fn count(&self) -> u64;
}

/// Addresses of the device that nobody else is given until this is dropped, under the same
/// conditions as [`Pages`].
pub trait Lease: Send + 'static {
    /// The first one, and the one behind the last, in bytes.
    fn range(&self) -> Range<u64>;
}

/// What an unmap gives back, in this order.
pub struct Held<P, L> {
    pages: P,
    lease: L,
}

/// A mapping that the driver has made of its own accord, and may remove when it likes: the only
/// thing that can be deferred.
///
/// It owns the pages and the addresses, which come back only after the flush. Made before what it
/// is for is mapped: then unmapping cannot fail.
pub struct DriverUnmap<P: Pages, L: Lease> {
    place: Place<Held<P, L>>,
}

impl<P: Pages, L: Lease> DriverUnmap<P, L> {
    /// For `pages` that will be mapped at `lease`; allocates what is needed to defer it. If there
    /// is no memory they are dropped: nothing may be mapped yet.
    pub fn new(pages: P, lease: L) -> Result<Self, super::place::Error> {
        Ok(DriverUnmap {
            place: Place::new(Held { pages, lease })?,
        })
    }

    /// The pages.
    pub fn pages(&self) -> &P {
        &self.place.pages
    }

    /// The addresses.
    pub fn lease(&self) -> &L {
        &self.place.lease
    }

    /// Unmaps now, with `zap`, and flushes soon. Pages and addresses are dropped after that flush.
    ///
    /// Process context, not in reclaim; may sleep. Without the lock of the shadow page table, and
    /// without any that dropping pages and addresses of this device takes: some may be dropped
    /// before this returns.
    pub fn defer<Q: Queue>(self, queue: &Q, zap: impl FnOnce(&mut Q::Shadow, &P, &L) -> Live) {
        queue.defer(
            self.place,
            |held: &Held<P, L>| (held.lease.range(), held.pages.count()),
            |table, held| zap(table, &held.pages, &held.lease),
        );
    }
}

/// Where unmaps wait for their flush: a space of the library, or of its tests. Drivers call
/// [`DriverUnmap::defer()`].
pub trait Queue {
    /// The shadow page table.
    type Shadow;

    /// Calls `zap` with the shadow page table locked, takes a ticket under the same lock, and drops
    /// `place` when it is finished. `size` tells the addresses and the number of pages.
    fn defer<T: Send + 'static>(
        &self,
        place: Place<T>,
        size: impl FnOnce(&T) -> (Range<u64>, u64),
        zap: impl FnOnce(&mut Self::Shadow, &T) -> Live,
    );
}
