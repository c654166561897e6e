// SPDX-License-Identifier: GPL-2.0

//! Many invalidations, one flush. Pure logic: the kernel, the tests and the model checker each
//! bring a [`Platform`] and run what is written here.
//!
//! Whoever has zapped translations in a page table of the device takes a *ticket*: the number of
//! the next *generation*, which is what one flush finishes.
//!
//! ```text
//!   zap, ticket g + 1 --+
//!   zap, ticket g + 1 --+--> close g + 1 --> flush its spans --> finished = g + 1
//!   zap, ticket g + 1 --+    (the leader)    (or everything)     all tickets up to it go on
//!                                              |
//!   zap, ticket g + 2 -------------------------+
//! ```
//!
//! What makes it right:
//!
//! 1. A ticket is taken *after* the zap, and under the same hold of the lock that protects the page
//!    table, so that who finds nothing to zap there knows the ticket of who was faster
//!    ([`Zap::done()`]).
//! 2. The leader closes the generation *before* it flushes: a ticket that is taken later belongs to
//!    the next one.
//! 3. It publishes the generation *after* the acknowledgement, with release, and it is read with
//!    acquire: what was reachable through the TLB before is not after.
//! 4. Leaders take turns under a lock, so that generations finish in their order. They count to
//!    2^64 and do not wrap.
//!
//! Nobody is lost: a waiter that finds somebody leading is counted, and then sleeps in the queue of
//! its generation, of which there are two: the one being flushed, and the next. A leader that is
//! done wakes all of its own, and one of the next, who then leads. [`Platform::released()`] is
//! counted up after the lead was given up and before that, so that a waiter which was refused the
//! lead and has not slept yet does not. Who is counted asks for the lead again before it sleeps,
//! so that a leader need wake nobody when it finds none counted.
//!
//! Who finds that nobody leads does so at once, and is not counted: what a flush costs that nobody
//! shares is taking a ticket, closing a generation, and one look for waiters. Who is going to wait
//! as soon as the lock of the page table is free again takes the ticket and closes its generation
//! in one go ([`Zap::done_at_once()`]).
//!
//! Real-time callers do not sleep in a queue. They wait for the lead itself, which passes on their
//! priority to whoever has it.

use super::spans::{Span, Spans};
use core::ops::DerefMut;

#[cfg(all(nullhz_mmu_mutants, not(any(test, CONFIG_KUNIT))))]
compile_error!("nullhz_mmu_mutants breaks the protocol on purpose, and is for test kernels only");

/// The least number of callers, waiting now or served by a flush just before, for which a leader
/// waits for more.
pub const CROWD: u32 = 4;

/// How long a leader waits for more callers before it looks for one who is in a hurry, in ns.
const SLICE_NS: u64 = 10_000;

/// How many classes of tickets per flush are counted; see [`bucket()`].
pub const BUCKETS: usize = 16;

/// For how long a defect that is a few instructions wide is held open, in ns: others' flushes begin
/// meanwhile.
const AJAR_NS: u64 = 2_000_000;

/// The class of a flush that has finished `tickets`: 0 for one, `n` for 2^n and more, up to
/// twice as many; the last is for all above too.
pub fn bucket(tickets: u64) -> usize {
    (tickets.max(1).ilog2() as usize).min(BUCKETS - 1)
}

/// The generation that finishes a zap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// One that has been finished from the beginning.
    pub const FINISHED: Ticket = Ticket(0);

    /// For those who keep it as a number.
    pub const fn into_raw(self) -> u64 {
        self.0
    }

    /// What was [`into_raw()`](Self::into_raw).
    pub const fn from_raw(raw: u64) -> Self {
        Ticket(raw)
    }

    const fn queue(self) -> Queue {
        match self.0 & 1 {
            0 => Queue::Even,
            _ => Queue::Odd,
        }
    }
}

/// Where callers sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Of even generations.
    Even,
    /// Of odd ones.
    Odd,
}

/// How much of a hurry a caller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It may wait for others.
    Patient,
    /// It is reclaiming memory: nobody waits for others on its time.
    Reclaiming,
    /// The same; and who has the lead gets its priority.
    RealTime,
}

/// How [`wait()`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The ticket was finished when it was called.
    Not,
    /// By the flush of another caller.
    Joined,
    /// By a flush of its own.
    Led,
}

/// The flushes so far. They count when their generation is closed, before the device is asked:
/// where a lock is held anyway, so that it costs next to nothing, and the numbers agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub flushes: u64,
    /// Those of everything.
    pub full: u64,
    /// Spans of the others.
    pub spans: u64,
    /// Tickets of all.
    pub tickets: u64,
    /// Those that have waited for more callers.
    pub windowed: u64,
    /// How many by [`bucket()`] of their tickets.
    pub classes: [u64; BUCKETS],
}

impl Totals {
    const NONE: Totals = Totals {
        flushes: 0,
        full: 0,
        spans: 0,
        tickets: 0,
        windowed: 0,
        classes: [0; BUCKETS],
    };

    /// Adds a flush of so many tickets and spans, 0 for everything.
    fn add(&mut self, tickets: u64, spans: usize, windowed: bool) {
        let add = |total: &mut u64, n: u64| *total = total.wrapping_add(n);
        add(&mut self.flushes, 1);
        match spans {
            0 => add(&mut self.full, 1),
            spans => add(&mut self.spans, spans as u64),
        }
        add(&mut self.tickets, tickets);
        add(&mut self.windowed, windowed.into());
        if let Some(class) = self.classes.get_mut(bucket(tickets)) {
            add(class, 1);
        }
    }
}

/// What is added up until the next flush.
///
/// # Invariants
///
/// `spans` has what was zapped for each of the `tickets` that were taken since `closed`.
pub struct Pending {
    spans: Spans,
    totals: Totals,
    tickets: u64,
    closed: u64,
    /// Until when those whom the last crowd's flush has served are expected to be back, in ns.
    crowded_until: u64,
}

impl Pending {
    /// Nothing yet.
    pub const NEW: Pending = Pending {
        spans: Spans::EMPTY,
        totals: Totals::NONE,
        tickets: 0,
        closed: 0,
        crowded_until: 0,
    };

    /// The flushes so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The generation of who zaps now.
    fn next(&self) -> Ticket {
        Ticket(self.closed.saturating_add(1))
    }

    /// One ticket more, for `span`.
    fn add(&mut self, span: Span, ceiling: usize) {
        // INVARIANT: one ticket more, and its span.
        self.spans.add(span, ceiling);
        self.tickets = self.tickets.saturating_add(1);
    }

    /// Ends the generation that is filling; what is to be flushed for it goes to `spans`.
    fn close(&mut self, spans: &mut Spans, windowed: bool) -> Taken {
        self.spans.move_to(spans);
        self.end(self.tickets, spans, windowed)
    }

    /// [`add()`](Self::add) and [`close()`](Self::close), shorter if there is nothing else in it.
    fn add_and_close(
        &mut self,
        span: Span,
        ceiling: impl FnOnce() -> usize,
        spans: &mut Spans,
    ) -> Taken {
        if self.tickets > 0 {
            self.add(span, ceiling());
            return self.close(spans, false);
        }
        spans.set(span);
        self.end(1, spans, false)
    }

    fn end(&mut self, tickets: u64, spans: &Spans, windowed: bool) -> Taken {
        let generation = self.next().0;
        self.totals.add(tickets, spans.list().len(), windowed);
        // INVARIANT: no tickets, no spans.
        self.closed = generation;
        self.tickets = 0;
        Taken {
            generation,
            tickets,
            windowed,
        }
    }
}

/// A generation that nobody can join any more.
struct Taken {
    generation: u64,
    tickets: u64,
    windowed: bool,
}

/// One flush, for traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// The number of the flush, and the ticket that it finishes.
    pub generation: u64,
    /// How many tickets that are.
    pub tickets: u64,
    /// How many spans the device was given, 0 for everything.
    pub spans: usize,
    /// Whether the leader has waited for more callers.
    pub windowed: bool,
    /// How often the device had to be reset before it was rid of its translations, 0 if it has
    /// acknowledged the flush.
    pub resets: u32,
}

/// The device has not done what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// A 64-bit integer that all may access at once.
pub trait Word {
    /// Reads before whatever follows.
    fn load_acquire(&self) -> u64;
    /// Writes after whatever came before.
    fn store_release(&self, value: u64);
    /// Adds `n`, modulo 2^64, after whatever came before and before whatever follows.
    fn add_full(&self, n: u64);
}

/// What the protocol stands on: one device, its locks and its memory.
pub trait Platform {
    /// An atomic integer.
    type Word: Word;
    /// The lead: a sleeping lock with priority inheritance, and under it room for what is flushed.
    type Lead<'a>: DerefMut<Target = Spans>
    where
        Self: 'a;

    /// Calls `f` with the pending state, under a lock that never sleeps.
    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R;
    /// The last generation that was flushed; 0 in the beginning.
    fn finished(&self) -> &Self::Word;
    /// How often the lead was given up.
    fn released(&self) -> &Self::Word;
    /// How many wait, or have asked for the lead and not got it at first.
    fn waiting(&self) -> &Self::Word;
    /// Those of them who are in a hurry.
    fn hurried(&self) -> &Self::Word;

    /// Waits for the lead.
    fn lead(&self) -> Self::Lead<'_>;
    /// Takes the lead if nobody has it.
    fn try_lead(&self) -> Option<Self::Lead<'_>>;
    /// Sleeps in `queue` until `until` says so, which is asked at first and after each wake-up:
    /// under a lock that [`wake_all()`](Self::wake_all) and [`wake_one()`](Self::wake_one) take
    /// before they wake, so that a change which is made before they are called is not missed.
    fn sleep(&self, queue: Queue, until: impl Fn() -> bool);
    /// Wakes all who sleep in `queue`.
    fn wake_all(&self, queue: Queue);
    /// Wakes who has slept longest in `queue`.
    fn wake_one(&self, queue: Queue);

    /// Throws the translations of `spans`, or all if it is empty, out of the TLB. Returns after
    /// the device has acknowledged it, and no walk that was under way can bring one back.
    fn flush(&self, spans: &[Span]) -> Result<(), Unanswered>;
    /// Makes all translations unusable, for a device that has not answered.
    fn reset(&self) -> Result<(), Unanswered>;
    /// Waits before the next reset, after `failed` of them have.
    fn back_off(&self, failed: u32);
    /// Called after each flush, before anybody goes on.
    fn flushed(&self, round: &Round);

    /// How many spans a flush may have; see [`Spans::add()`].
    fn ceiling(&self) -> usize;
    /// How long a leader waits for more callers, in ns; 0: not at all.
    fn window_ns(&self) -> u64;
    /// A clock, in ns.
    fn now_ns(&self) -> u64;
    /// Sleeps for about that long.
    fn pause_ns(&self, ns: u64);

    /// What is broken on purpose.
    #[cfg(any(test, nullhz_mmu_mutants))]
    fn mutant(&self) -> Option<Mutant>;
}

/// Defects that the model and the oracle have to find.
#[cfg(any(test, nullhz_mmu_mutants))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The generation is published before the device is flushed.
    PublishBeforeFlush = 1,
    /// The ticket is taken before the zap.
    TicketBeforeZap = 2,
    /// The generation is closed after the flush.
    SnapshotAfterFlush = 3,
    /// Who comes during a flush is content with that one.
    JoinInFlight = 4,
    /// The device forgets to wait for walks that are under way.
    NoWalkDrain = 5,
    /// Who finds nothing live does not ask whether it was flushed already.
    ElideInFlight = 6,
}

#[cfg(any(test, nullhz_mmu_mutants))]
impl Mutant {
    /// From a module's parameter; [`None`] for 0 and what there is not.
    pub fn from_number(number: u32) -> Option<Self> {
        [
            Self::PublishBeforeFlush,
            Self::TicketBeforeZap,
            Self::SnapshotAfterFlush,
            Self::JoinInFlight,
            Self::NoWalkDrain,
            Self::ElideInFlight,
        ]
        .into_iter()
        .find(|mutant| *mutant as u32 == number)
    }
}

/// Whether `platform` is to have that defect; a constant in what is built for use.
macro_rules! broken {
    ($platform:expr, $mutant:ident) => {{
        #[cfg(any(test, nullhz_mmu_mutants))]
        let broken = $platform.mutant() == Some(Mutant::$mutant);
        #[cfg(not(any(test, nullhz_mmu_mutants)))]
        let broken = false;
        broken
    }};
}

/// A zap that has begun: the lock of the page table is held.
#[must_use = "the zap needs a ticket"]
pub struct Zap {
    #[cfg(any(test, nullhz_mmu_mutants))]
    early: Option<Ticket>,
}

impl Zap {
    /// Before translations of `span` are zapped.
    pub fn begin<P: Platform>(platform: &P, span: Span) -> Self {
        #[cfg(not(any(test, nullhz_mmu_mutants)))]
        let _ = (platform, span);
        Zap {
            #[cfg(any(test, nullhz_mmu_mutants))]
            early: broken!(platform, TicketBeforeZap).then(|| take(platform, span)),
        }
    }

    /// After those of the same `span` were zapped, with the same lock held. `live`: there was at
    /// least one. `last` is of the page table, protected by its lock: the ticket of what was zapped
    /// there last.
    ///
    /// Returns the ticket to wait for. [`None`]: nothing of the span can be in the TLB.
    pub fn done<P: Platform>(
        self,
        platform: &P,
        span: Span,
        last: &mut Ticket,
        live: bool,
    ) -> Option<Ticket> {
        if live {
            #[cfg(any(test, nullhz_mmu_mutants))]
            let ticket = self.early.unwrap_or_else(|| take(platform, span));
            #[cfg(not(any(test, nullhz_mmu_mutants)))]
            let ticket = take(platform, span);
            *last = ticket;
            return Some(ticket);
        }
        if broken!(platform, ElideInFlight) {
            return None;
        }
        (!is_finished(platform, *last)).then_some(*last)
    }

    /// [`done()`](Self::done) for who is going to give up the lock and then wait, with nothing in
    /// between. If nobody leads, and no more callers are waited for, then the caller leads from
    /// here on, and [`Owed::Flush`] is its generation, closed.
    pub fn done_at_once<'a, P: Platform>(
        self,
        platform: &'a P,
        span: Span,
        last: &mut Ticket,
        live: bool,
    ) -> Owed<'a, P> {
        #[cfg(any(test, nullhz_mmu_mutants))]
        let on_time = self.early.is_none();
        #[cfg(not(any(test, nullhz_mmu_mutants)))]
        let on_time = true;
        if live && on_time && platform.window_ns() == 0 {
            if let Some(lead) = platform.try_lead() {
                let closed = Closed::with(platform, lead, span);
                *last = Ticket(closed.taken.generation);
                return Owed::Flush(closed);
            }
        }
        match self.done(platform, span, last, live) {
            Some(ticket) => Owed::Ticket(ticket),
            None => Owed::Nothing,
        }
    }
}

/// What is left to do after a zap.
#[must_use = "the flush has to be done, or waited for"]
pub enum Owed<'a, P: Platform> {
    /// Nothing of the span can be in the TLB.
    Nothing,
    /// [`wait()`] for it.
    Ticket(Ticket),
    /// The flush, of whose generation the caller's ticket is the last one.
    Flush(Closed<'a, P>),
}

/// A generation that is closed and not flushed yet, by who has the lead.
#[must_use = "others wait for the flush"]
pub struct Closed<'a, P: Platform> {
    platform: &'a P,
    lead: P::Lead<'a>,
    taken: Taken,
}

impl<'a, P: Platform> Closed<'a, P> {
    /// Takes a ticket for `span`, and closes its generation.
    fn with(platform: &'a P, mut lead: P::Lead<'a>, span: Span) -> Self {
        let ceiling = || platform.ceiling();
        let taken = platform.pending(|pending| pending.add_and_close(span, ceiling, &mut lead));
        Closed {
            platform,
            lead,
            taken,
        }
    }

    /// Flushes it. May sleep.
    ///
    /// Must not be called with a lock held that [`Platform::flush()`] or another caller's zap
    /// needs.
    pub fn flush(mut self) {
        finish(self.platform, &mut self.lead, self.taken);
        hand_over(self.platform, self.lead, None);
    }
}

/// Takes a ticket for `span`, whose translations were zapped. Any context but NMI.
fn take<P: Platform>(platform: &P, span: Span) -> Ticket {
    let ceiling = platform.ceiling();
    platform.pending(|pending| {
        pending.add(span, ceiling);
        let in_flight = Ticket(pending.closed);
        if broken!(platform, JoinInFlight) && !is_finished(platform, in_flight) {
            return in_flight;
        }
        pending.next()
    })
}

/// Whether what `ticket` was taken for is out of the TLB. Any context.
pub fn is_finished<P: Platform>(platform: &P, ticket: Ticket) -> bool {
    platform.finished().load_acquire() >= ticket.0
}

/// Returns when `ticket` is finished; flushes if nobody else does. May sleep.
///
/// Must not be called with a lock held that [`Platform::flush()`] or another caller's zap needs.
pub fn wait<P: Platform>(platform: &P, ticket: Ticket, caller: impl Fn() -> Caller) -> Waited {
    if broken!(platform, PublishBeforeFlush) {
        platform.pause_ns(AJAR_NS);
    }
    if is_finished(platform, ticket) {
        return Waited::Not;
    }
    let (mut lead, counted) = match platform.try_lead() {
        Some(lead) => (lead, None),
        None => {
            let caller = caller();
            enter(platform, caller);
            let lead = match caller {
                Caller::RealTime => Some(platform.lead()),
                Caller::Patient | Caller::Reclaiming => queue_up(platform, ticket),
            };
            let Some(lead) = lead else {
                leave(platform, caller);
                return Waited::Joined;
            };
            (lead, Some(caller))
        }
    };
    let waited = if is_finished(platform, ticket) {
        Waited::Joined
    } else {
        flush(platform, &mut lead, || counted.unwrap_or_else(caller));
        Waited::Led
    };
    hand_over(platform, lead, counted);
    waited
}

/// Counts the caller among those who wait.
///
/// It asks for the lead after that, and who gives up the lead looks at the count after that: one of
/// the two sees what the other has done, since both words are changed with full order.
fn enter<P: Platform>(platform: &P, caller: Caller) {
    if caller != Caller::Patient {
        platform.hurried().add_full(1);
    }
    platform.waiting().add_full(1);
}

/// It does not wait any more.
fn leave<P: Platform>(platform: &P, caller: Caller) {
    const ONE_LESS: u64 = u64::MAX;
    if caller != Caller::Patient {
        platform.hurried().add_full(ONE_LESS);
    }
    platform.waiting().add_full(ONE_LESS);
}

/// Returns the lead, or [`None`] when `ticket` is finished.
fn queue_up<P: Platform>(platform: &P, ticket: Ticket) -> Option<P::Lead<'_>> {
    while !is_finished(platform, ticket) {
        let released = platform.released().load_acquire();
        let lead = platform.try_lead();
        if lead.is_some() {
            return lead;
        }
        platform.sleep(ticket.queue(), || {
            is_finished(platform, ticket) || platform.released().load_acquire() != released
        });
    }
    None
}

/// Gives up the lead, and wakes who is done, and one who is to go on. `counted`: as what who has
/// led is among those who wait.
fn hand_over<P: Platform>(platform: &P, lead: P::Lead<'_>, counted: Option<Caller>) {
    // While it has the lead: the next leader may finish a generation before this one wakes its own,
    // whom nobody else wakes.
    let finished = Ticket(platform.finished().load_acquire());
    drop(lead);
    platform.released().add_full(1);
    if let Some(caller) = counted {
        leave(platform, caller);
    }
    let waiting = platform.waiting().load_acquire();
    // Who is not counted yet finds that the lead is free, or another who will wake him.
    if waiting == 0 {
        return;
    }
    let window = platform.window_ns();
    if window > 0 && waiting.saturating_add(1) >= u64::from(CROWD) {
        let back = platform.now_ns().saturating_add(window);
        platform.pending(|pending| pending.crowded_until = back);
    }
    platform.wake_all(finished.queue());
    platform.wake_one(Ticket(finished.0.saturating_add(1)).queue());
}

/// Flushes one generation. The caller has the lead; `leader` says what it is.
fn flush<P: Platform>(platform: &P, spans: &mut Spans, leader: impl FnOnce() -> Caller) {
    let windowed = window(platform, leader);
    let taken = platform.pending(|pending| pending.close(spans, windowed));
    finish(platform, spans, taken);
}

/// Has the device rid of `spans`, which are those of `taken`, and lets those go on who wait for it.
fn finish<P: Platform>(platform: &P, spans: &mut Spans, mut taken: Taken) {
    if broken!(platform, PublishBeforeFlush) {
        platform.finished().store_release(taken.generation);
    }
    let resets = deliver(platform, spans.list());
    if broken!(platform, SnapshotAfterFlush) {
        taken = platform.pending(|pending| pending.close(spans, taken.windowed));
    }
    platform.flushed(&Round {
        generation: taken.generation,
        tickets: taken.tickets,
        spans: spans.list().len(),
        windowed: taken.windowed,
        resets,
    });
    platform.finished().store_release(taken.generation);
}

/// Has the device rid of `spans`, whatever it takes; returns how often it had to be reset.
fn deliver<P: Platform>(platform: &P, spans: &[Span]) -> u32 {
    let mut resets = 0u32;
    if platform.flush(spans).is_err() {
        loop {
            resets = resets.saturating_add(1);
            if platform.reset().is_ok() {
                break;
            }
            // Memory that the device can still reach must not be given to anybody else.
            platform.back_off(resets);
        }
    }
    resets
}

/// Waits for more callers, if that is wanted, there is a crowd, and nobody is in a hurry. Returns
/// whether it has.
fn window<P: Platform>(platform: &P, leader: impl FnOnce() -> Caller) -> bool {
    let length = platform.window_ns();
    if length == 0 || leader() != Caller::Patient {
        return false;
    }
    let begun = platform.now_ns();
    if !has_crowd(platform, begun) {
        return false;
    }
    loop {
        let left = length.saturating_sub(platform.now_ns().saturating_sub(begun));
        if left == 0 || platform.hurried().load_acquire() > 0 {
            return true;
        }
        platform.pause_ns(left.min(SLICE_NS));
    }
}

/// Whether it is worth while for a leader to wait for more, and nobody is in a hurry. A crowd that
/// a flush has served comes back one by one: the first of them must not go on alone.
fn has_crowd<P: Platform>(platform: &P, now: u64) -> bool {
    let hurried = platform.hurried().load_acquire() > 0;
    let crowded = platform.waiting().load_acquire() >= u64::from(CROWD);
    !hurried && (crowded || now < platform.pending(|pending| pending.crowded_until))
}
