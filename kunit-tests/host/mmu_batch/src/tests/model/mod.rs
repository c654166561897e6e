// SPDX-License-Identifier: GPL-2.0

//! The protocol under every interleaving (of so many preemptions) and every reordering that the
//! memory model allows: the very code that runs in the kernel, on the model checker's locks.

mod live;
mod safe;

use crate::combine::{wait, Caller, Mutant, Owed, Pending, Platform, Queue, Round};
use crate::combine::{Ticket, Unanswered, Waited, Word, Zap};
use crate::spans::{Span, Spans};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::boxed::Box;
use std::vec::Vec;

/// Pages of the model, far enough from each other not to be joined.
const PAGES: usize = 2;

fn span(page: usize) -> Span {
    let start = page as u64 * 0x10000;
    Span {
        start,
        end: start + 0x1000,
        tag: 0,
    }
}

impl Word for AtomicU64 {
    fn load_acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn store_release(&self, value: u64) {
        self.store(value, Ordering::Release);
    }

    fn add_full(&self, n: u64) {
        fence(Ordering::SeqCst);
        self.fetch_add(n, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

/// A page of memory that the CPU takes away from the device.
struct Page {
    /// The model checker complains about accesses that nothing orders.
    content: UnsafeCell<()>,
    freed: AtomicBool,
}

// SAFETY: The content is accessed only through `with()` and `with_mut()`, which check that the
// accesses are ordered, and by nobody through the pointer.
#[allow(unsafe_code)]
unsafe impl Sync for Page {}

impl Page {
    fn new() -> Self {
        Page {
            content: UnsafeCell::new(()),
            freed: AtomicBool::new(false),
        }
    }

    fn used_by_device(&self) {
        assert!(!self.freed.load(Ordering::Relaxed), "a freed page is used");
        self.content.with(|_| ());
    }

    fn free(&self) {
        self.freed.store(true, Ordering::Relaxed);
        self.content.with_mut(|_| ());
    }
}

/// What the device does with the lock of its TLB held is one translation and the access that goes
/// with it: a flush is not acknowledged in between.
struct Tlb {
    /// How many flushes there were.
    flushes: u64,
    /// Flushes, and then resets, that are not going to be answered.
    deaf: u32,
}

/// How an event goes from its zap to its flush.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By a ticket, which is waited for in a pass of its own.
    Passes,
    /// At once, if nobody else leads.
    AtOnce,
}

struct Device {
    pending: Mutex<Box<Pending>>,
    finished: AtomicU64,
    released: AtomicU64,
    waiting: AtomicU64,
    hurried: AtomicU64,
    lead: Mutex<Box<Spans>>,
    queues: [(Mutex<()>, Condvar); 2],

    /// The lock of the page table, and the ticket of what was zapped there last.
    space: Mutex<Ticket>,
    table: [AtomicBool; PAGES],
    pages: [Page; PAGES],
    /// What is in the TLB; changed with its lock held.
    cached: [AtomicBool; PAGES],
    tlb: Mutex<Tlb>,

    ceiling: usize,
    mutant: Option<Mutant>,
    rounds: std::sync::Mutex<Vec<Round>>,
}

/// The lead; dereferences to what is in the box.
struct Lead<'a>(MutexGuard<'a, Box<Spans>>);

impl core::ops::Deref for Lead<'_> {
    type Target = Spans;

    fn deref(&self) -> &Spans {
        &self.0
    }
}

impl core::ops::DerefMut for Lead<'_> {
    fn deref_mut(&mut self) -> &mut Spans {
        &mut self.0
    }
}

impl Device {
    /// All pages are mapped, and those of `cached` in the TLB.
    fn new(cached: [bool; PAGES], deaf: u32, mutant: Option<Mutant>) -> Arc<Self> {
        Arc::new(Device {
            pending: Mutex::new(Box::new(Pending::NEW)),
            finished: AtomicU64::new(0),
            released: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            hurried: AtomicU64::new(0),
            lead: Mutex::new(Box::new(Spans::EMPTY)),
            queues: core::array::from_fn(|_| (Mutex::new(()), Condvar::new())),
            space: Mutex::new(Ticket::FINISHED),
            table: core::array::from_fn(|_| AtomicBool::new(true)),
            pages: core::array::from_fn(|_| Page::new()),
            cached: cached.map(AtomicBool::new),
            tlb: Mutex::new(Tlb { flushes: 0, deaf }),
            ceiling: crate::spans::MAX,
            mutant,
            rounds: std::sync::Mutex::new(Vec::new()),
        })
    }

    /// An event: zaps `page`, and returns when it is flushed.
    fn invalidate(&self, page: usize, way: Way) {
        let owed = {
            let mut last = self.space.lock().unwrap();
            let zap = Zap::begin(self, span(page));
            let live = self.table[page].load(Ordering::Relaxed);
            self.table[page].store(false, Ordering::Relaxed);
            self.zapped(zap, span(page), &mut last, live, way)
        };
        self.settle(owed, Caller::Patient);
    }

    /// An event somewhere else, by the `n`th caller: takes a ticket, and waits.
    fn event(&self, n: usize, caller: Caller, way: Way) -> Waited {
        let span = span(PAGES + n);
        let zap = Zap::begin(self, span);
        let owed = self.zapped(zap, span, &mut { Ticket::FINISHED }, true, way);
        self.settle(owed, caller)
    }

    fn zapped(
        &self,
        zap: Zap,
        span: Span,
        last: &mut Ticket,
        live: bool,
        way: Way,
    ) -> Owed<'_, Self> {
        match way {
            Way::Passes => zap
                .done(self, span, last, live)
                .map_or(Owed::Nothing, Owed::Ticket),
            Way::AtOnce => zap.done_at_once(self, span, last, live),
        }
    }

    fn settle(&self, owed: Owed<'_, Self>, caller: Caller) -> Waited {
        match owed {
            Owed::Nothing => Waited::Not,
            Owed::Ticket(ticket) => wait(self, ticket, || caller),
            Owed::Flush(closed) => {
                closed.flush();
                Waited::Led
            }
        }
    }

    /// The page goes to somebody else.
    fn free(&self, page: usize) {
        // Without the TLB's lock, which would put in order what the protocol has not.
        let cached = self.cached[page].load(Ordering::Relaxed);
        assert!(!cached, "a freed page is reachable");
        self.pages[page].free();
    }

    /// The device uses an address: through its TLB, or by a walk of the page table.
    fn access(&self, page: usize) {
        let begun = {
            let tlb = self.tlb.lock().unwrap();
            if self.cached[page].load(Ordering::Relaxed) {
                return self.pages[page].used_by_device();
            }
            tlb.flushes
        };
        if !self.table[page].load(Ordering::Relaxed) {
            return;
        }
        let tlb = self.tlb.lock().unwrap();
        // A flush meanwhile: the device throws away what the walk has found.
        if tlb.flushes == begun || self.mutant == Some(Mutant::NoWalkDrain) {
            self.cached[page].store(true, Ordering::Relaxed);
            self.pages[page].used_by_device();
        }
    }

    fn rounds(&self) -> Vec<Round> {
        self.rounds.lock().unwrap().clone()
    }

    fn queue(&self, queue: Queue) -> &(Mutex<()>, Condvar) {
        &self.queues[queue as usize]
    }
}

impl Platform for Device {
    type Word = AtomicU64;
    type Lead<'a> = Lead<'a>;

    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R {
        f(&mut self.pending.lock().unwrap())
    }

    fn finished(&self) -> &AtomicU64 {
        &self.finished
    }

    fn released(&self) -> &AtomicU64 {
        &self.released
    }

    fn waiting(&self) -> &AtomicU64 {
        &self.waiting
    }

    fn hurried(&self) -> &AtomicU64 {
        &self.hurried
    }

    fn lead(&self) -> Lead<'_> {
        Lead(self.lead.lock().unwrap())
    }

    fn try_lead(&self) -> Option<Lead<'_>> {
        self.lead.try_lock().ok().map(Lead)
    }

    fn sleep(&self, queue: Queue, until: impl Fn() -> bool) {
        let (lock, woken) = self.queue(queue);
        let mut guard = lock.lock().unwrap();
        while !until() {
            guard = woken.wait(guard).unwrap();
        }
    }

    fn wake_all(&self, queue: Queue) {
        let (lock, woken) = self.queue(queue);
        drop(lock.lock().unwrap());
        woken.notify_all();
    }

    fn wake_one(&self, queue: Queue) {
        let (lock, woken) = self.queue(queue);
        drop(lock.lock().unwrap());
        woken.notify_one();
    }

    fn flush(&self, spans: &[Span]) -> Result<(), Unanswered> {
        let mut tlb = self.tlb.lock().unwrap();
        if tlb.deaf > 0 {
            tlb.deaf -= 1;
            return Err(Unanswered);
        }
        for page in 0..PAGES {
            if spans.is_empty() || spans.contains(&span(page)) {
                self.cached[page].store(false, Ordering::Relaxed);
            }
        }
        tlb.flushes += 1;
        Ok(())
    }

    fn reset(&self) -> Result<(), Unanswered> {
        self.flush(&[])
    }

    fn back_off(&self, _failed: u32) {
        loom::thread::yield_now();
    }

    fn flushed(&self, round: &Round) {
        self.rounds.lock().unwrap().push(*round);
    }

    fn ceiling(&self) -> usize {
        self.ceiling
    }

    fn window_ns(&self) -> u64 {
        0
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn pause_ns(&self, _ns: u64) {}

    fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }
}

/// Checks `scenario` with up to `preemptions` of them.
fn check(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(scenario);
}
