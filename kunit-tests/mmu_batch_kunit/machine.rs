// SPDX-License-Identifier: GPL-2.0

//! A device with a page table and a TLB, in software, and what combining stands on in the kernel.

use crate::combine::{wait, Caller, Owed, Pending, Platform, Queue, Round};
use crate::combine::{Ticket, Unanswered, Waited, Word, Zap};
use crate::spans::{Span, Spans};
use core::array;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, AtomicFlag, Full, Relaxed, Release},
        lock::{mutex::MutexBackend, Guard},
        new_condvar,
        new_mutex,
        new_spinlock,
        raw::{new_raw_spinlock, RawSpinLock},
        CondVar,
        Mutex,
        SpinLock, //
    },
    time::{delay::fsleep, Delta, Instant, Monotonic}, //
};

/// Pages, far enough from each other not to be joined.
pub(crate) const PAGES: usize = 8;

fn span(page: usize) -> Span {
    let start = page as u64 * 0x10000;
    Span {
        start,
        end: start + 0x1000,
        tag: 0,
    }
}

impl Word for Atomic<u64> {
    fn load_acquire(&self) -> u64 {
        self.load(Acquire)
    }

    fn store_release(&self, value: u64) {
        self.store(value, Release);
    }

    fn add_full(&self, n: u64) {
        self.fetch_add(n, Full);
    }
}

#[pin_data]
struct Sleepers {
    #[pin]
    lock: SpinLock<()>,
    #[pin]
    woken: CondVar,
}

impl Sleepers {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- new_spinlock!((), "nullhz_mmu_batch_kunit_sleepers"),
            woken <- new_condvar!("nullhz_mmu_batch_kunit_sleepers"),
        })
    }
}

/// One page, from where it is mapped to who has it.
struct Page {
    mapped: AtomicFlag,
    freed: AtomicFlag,
}

/// The device's TLB. With its lock held nothing interrupts a translation and its access.
struct Tlb {
    cached: [bool; PAGES],
    flushes: u64,
    /// Requests that are not going to be answered.
    deaf: u32,
}

/// What was seen.
pub(crate) struct Seen {
    /// Accesses through the TLB.
    pub(crate) accesses: Atomic<u64>,
    /// Of pages that were freed.
    pub(crate) violations: Atomic<u64>,
    /// Of [`Round`].
    pub(crate) flushes: Atomic<u64>,
    pub(crate) tickets: Atomic<u64>,
    pub(crate) resets: Atomic<u64>,
    pub(crate) full: Atomic<u64>,
    pub(crate) led: Atomic<u64>,
}

impl Seen {
    fn nothing() -> Self {
        Seen {
            accesses: Atomic::new(0),
            violations: Atomic::new(0),
            flushes: Atomic::new(0),
            tickets: Atomic::new(0),
            resets: Atomic::new(0),
            full: Atomic::new(0),
            led: Atomic::new(0),
        }
    }
}

#[pin_data]
pub(crate) struct Machine {
    #[pin]
    pending: RawSpinLock<Pending>,
    finished: Atomic<u64>,
    released: Atomic<u64>,
    waiting: Atomic<u64>,
    hurried: Atomic<u64>,
    #[pin]
    lead: Mutex<Spans>,
    #[pin]
    even: Sleepers,
    #[pin]
    odd: Sleepers,
    /// The lock of the page table, and the ticket of what was zapped last.
    #[pin]
    table: Mutex<Ticket>,
    pages: [Page; PAGES],
    #[pin]
    tlb: RawSpinLock<Tlb>,
    ceiling: usize,
    window_ns: u64,
    born: Instant<Monotonic>,
    pub(crate) seen: Seen,
}

impl Machine {
    pub(crate) fn new(ceiling: usize, window_ns: u64, deaf: u32) -> impl PinInit<Self> {
        let tlb = Tlb {
            cached: [false; PAGES],
            flushes: 0,
            deaf,
        };
        pin_init!(Self {
            pending <- new_raw_spinlock!(Pending::NEW, "nullhz_mmu_batch_kunit_pending"),
            finished: Atomic::new(0),
            released: Atomic::new(0),
            waiting: Atomic::new(0),
            hurried: Atomic::new(0),
            lead <- new_mutex!(Spans::EMPTY, "nullhz_mmu_batch_kunit_lead"),
            even <- Sleepers::new(),
            odd <- Sleepers::new(),
            table <- new_mutex!(Ticket::FINISHED, "nullhz_mmu_batch_kunit_table"),
            pages: array::from_fn(|_| Page {
                mapped: AtomicFlag::new(true),
                freed: AtomicFlag::new(false),
            }),
            tlb <- new_raw_spinlock!(tlb, "nullhz_mmu_batch_kunit_tlb"),
            ceiling,
            window_ns,
            born: Instant::now(),
            seen: Seen::nothing(),
        })
    }

    /// Invalidates the page, has it freed, and maps it anew.
    pub(crate) fn churn(&self, index: usize, caller: Caller) {
        let Some(page) = self.pages.get(index) else {
            return;
        };
        let owed = {
            let mut last = self.table.lock();
            let zap = Zap::begin(self, span(index));
            let live = page.mapped.xchg(false, Relaxed);
            match index % 2 {
                0 => zap.done_at_once(self, span(index), &mut last, live),
                _ => zap
                    .done(self, span(index), &mut last, live)
                    .map_or(Owed::Nothing, Owed::Ticket),
            }
        };
        let waited = match owed {
            Owed::Nothing => Waited::Not,
            Owed::Ticket(ticket) => wait(self, ticket, || caller),
            Owed::Flush(closed) => {
                closed.flush();
                Waited::Led
            }
        };
        if waited == Waited::Led {
            self.seen.led.add(1u64, Relaxed);
        }
        // Until it is mapped anew, it is somebody else's.
        page.freed.store(true, Relaxed);
        fsleep(Delta::from_micros(20));
        page.freed.store(false, Relaxed);
        let table = self.table.lock();
        page.mapped.store(true, Release);
        drop(table);
    }

    /// The device uses an address: through its TLB, or by a walk of the page table.
    pub(crate) fn access(&self, index: usize) {
        let Some(page) = self.pages.get(index) else {
            return;
        };
        let begun = self.tlb.with(|tlb| {
            if !tlb.cached.get(index).is_some_and(|cached| *cached) {
                return Some(tlb.flushes);
            }
            self.used(page);
            None
        });
        let Some(begun) = begun else {
            return;
        };
        if !page.mapped.load(Acquire) {
            return;
        }
        self.tlb.with(|tlb| {
            // A flush meanwhile: the device throws away what the walk has found.
            if tlb.flushes != begun {
                return;
            }
            if let Some(cached) = tlb.cached.get_mut(index) {
                *cached = true;
            }
            self.used(page);
        });
    }

    fn used(&self, page: &Page) {
        self.seen.accesses.add(1u64, Relaxed);
        if page.freed.load(Relaxed) {
            self.seen.violations.add(1u64, Relaxed);
        }
    }

    fn sleepers(&self, queue: Queue) -> &Sleepers {
        match queue {
            Queue::Even => &self.even,
            Queue::Odd => &self.odd,
        }
    }
}

impl Platform for Machine {
    type Word = Atomic<u64>;
    type Lead<'a> = Guard<'a, Spans, MutexBackend>;

    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R {
        self.pending.with(f)
    }

    fn finished(&self) -> &Atomic<u64> {
        &self.finished
    }

    fn released(&self) -> &Atomic<u64> {
        &self.released
    }

    fn waiting(&self) -> &Atomic<u64> {
        &self.waiting
    }

    fn hurried(&self) -> &Atomic<u64> {
        &self.hurried
    }

    fn lead(&self) -> Self::Lead<'_> {
        self.lead.lock()
    }

    fn try_lead(&self) -> Option<Self::Lead<'_>> {
        self.lead.try_lock()
    }

    fn sleep(&self, queue: Queue, until: impl Fn() -> bool) {
        let sleepers = self.sleepers(queue);
        let mut guard = sleepers.lock.lock();
        while !until() {
            sleepers.woken.wait(&mut guard);
        }
    }

    fn wake_all(&self, queue: Queue) {
        let sleepers = self.sleepers(queue);
        drop(sleepers.lock.lock());
        sleepers.woken.notify_all();
    }

    fn wake_one(&self, queue: Queue) {
        let sleepers = self.sleepers(queue);
        drop(sleepers.lock.lock());
        sleepers.woken.notify_one();
    }

    fn flush(&self, spans: &[Span]) -> Result<(), Unanswered> {
        // Long enough for others to come.
        fsleep(Delta::from_micros(50));
        self.tlb.with(|tlb| {
            if tlb.deaf > 0 {
                tlb.deaf -= 1;
                return Err(Unanswered);
            }
            for (index, cached) in tlb.cached.iter_mut().enumerate() {
                if spans.is_empty() || spans.contains(&span(index)) {
                    *cached = false;
                }
            }
            tlb.flushes += 1;
            Ok(())
        })
    }

    fn reset(&self) -> Result<(), Unanswered> {
        self.flush(&[])
    }

    fn back_off(&self, failed: u32) {
        fsleep(Delta::from_micros(100 * i64::from(failed)));
    }

    fn flushed(&self, round: &Round) {
        self.seen.flushes.add(1u64, Relaxed);
        self.seen.tickets.add(round.tickets, Relaxed);
        self.seen.resets.add(u64::from(round.resets), Relaxed);
        self.seen.full.add(u64::from(round.spans == 0), Relaxed);
    }

    fn ceiling(&self) -> usize {
        self.ceiling
    }

    fn window_ns(&self) -> u64 {
        self.window_ns
    }

    fn now_ns(&self) -> u64 {
        // CAST: It is not negative.
        self.born.elapsed().as_nanos() as u64
    }

    fn pause_ns(&self, ns: u64) {
        fsleep(Delta::from_nanos(ns.max(11_000) as i64));
    }
}
