// SPDX-License-Identifier: GPL-2.0

//! When a leader waits for more callers, by a clock that goes on only while it does.

use crate::combine::{bucket, wait, Caller, Mutant, Owed, Pending, Platform, Queue, Round};
use crate::combine::{Ticket, Unanswered, Waited, Word, Zap, BUCKETS, CROWD};
use crate::spans::{Span, Spans, MAX};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::vec::Vec;

const WINDOW_NS: u64 = 50_000;
const SPAN: Span = Span {
    start: 0,
    end: 4096,
    tag: 0,
};

impl Word for AtomicU64 {
    fn load_acquire(&self) -> u64 {
        self.load(SeqCst)
    }

    fn store_release(&self, value: u64) {
        self.store(value, SeqCst);
    }

    fn add_full(&self, n: u64) {
        self.fetch_add(n, SeqCst);
    }
}

struct Device {
    pending: Mutex<Pending>,
    finished: AtomicU64,
    released: AtomicU64,
    waiting: AtomicU64,
    hurried: AtomicU64,
    lead: Mutex<Spans>,
    queues: [(Mutex<()>, Condvar); 2],
    /// How many have gone to sleep, and how many have to before a flush is answered.
    asleep: AtomicU64,
    awaited: AtomicU64,
    now_ns: AtomicU64,
    rounds: Mutex<Vec<Round>>,
}

/// The lead.
struct Lead<'a>(MutexGuard<'a, Spans>);

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
    fn new() -> Self {
        Device {
            pending: Mutex::new(Pending::NEW),
            finished: AtomicU64::new(0),
            released: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            hurried: AtomicU64::new(0),
            lead: Mutex::new(Spans::EMPTY),
            queues: core::array::from_fn(|_| (Mutex::new(()), Condvar::new())),
            asleep: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            now_ns: AtomicU64::new(1_000_000),
            rounds: Mutex::new(Vec::new()),
        }
    }

    /// An event.
    fn event(&self, caller: Caller) -> Waited {
        let ticket = Zap::begin(self, SPAN).done(self, SPAN, &mut { Ticket::FINISHED }, true);
        wait(self, ticket.unwrap(), || caller)
    }

    /// Whether the leader of the last flush has waited, and how many tickets it had.
    fn last(&self) -> (bool, u64) {
        let rounds = self.rounds.lock().unwrap();
        let round = rounds.last().unwrap();
        (round.windowed, round.tickets)
    }

    /// Callers that are all there before the flush of the first one is answered.
    fn crowd(&self, others: &[Caller]) {
        self.awaited
            .store(self.asleep.load(SeqCst) + others.len() as u64, SeqCst);
        thread::scope(|scope| {
            let first = scope.spawn(|| self.event(Caller::Patient));
            while self.lead.try_lock().is_ok() {
                thread::yield_now();
            }
            for &caller in others {
                scope.spawn(move || self.event(caller));
            }
            assert_eq!(first.join().unwrap(), Waited::Led);
        });
        self.awaited.store(0, SeqCst);
        self.check_totals();
    }

    /// What is counted of the flushes is what was seen of them.
    fn check_totals(&self) {
        let rounds = self.rounds.lock().unwrap();
        let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
        let totals = self.pending(|pending| pending.totals());
        assert_eq!(totals.flushes, rounds.len() as u64);
        assert_eq!(totals.tickets, sum(|round| round.tickets));
        assert_eq!(totals.spans, sum(|round| round.spans as u64));
        assert_eq!(totals.full, sum(|round| (round.spans == 0).into()));
        assert_eq!(totals.windowed, sum(|round| round.windowed.into()));
        let mut classes = [0; BUCKETS];
        for round in rounds.iter() {
            classes[bucket(round.tickets)] += 1;
        }
        assert_eq!(totals.classes, classes);
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
        let (lock, woken) = &self.queues[queue as usize];
        let mut guard = lock.lock().unwrap();
        self.asleep.fetch_add(1, SeqCst);
        while !until() {
            guard = woken.wait(guard).unwrap();
        }
    }

    fn wake_all(&self, queue: Queue) {
        let (lock, woken) = &self.queues[queue as usize];
        drop(lock.lock().unwrap());
        woken.notify_all();
    }

    fn wake_one(&self, queue: Queue) {
        let (lock, woken) = &self.queues[queue as usize];
        drop(lock.lock().unwrap());
        woken.notify_one();
    }

    fn flush(&self, _spans: &[Span]) -> Result<(), Unanswered> {
        while self.asleep.load(SeqCst) < self.awaited.load(SeqCst) {
            thread::yield_now();
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), Unanswered> {
        Ok(())
    }

    fn back_off(&self, _failed: u32) {}

    fn flushed(&self, round: &Round) {
        self.rounds.lock().unwrap().push(*round);
    }

    fn ceiling(&self) -> usize {
        MAX
    }

    fn window_ns(&self) -> u64 {
        WINDOW_NS
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.load(SeqCst)
    }

    fn pause_ns(&self, ns: u64) {
        self.now_ns.fetch_add(ns, SeqCst);
    }

    fn mutant(&self) -> Option<Mutant> {
        None
    }
}

#[test]
fn nobody_alone_waits() {
    let device = Device::new();
    for _ in 0..3 {
        assert_eq!(device.event(Caller::Patient), Waited::Led);
        assert_eq!(device.last(), (false, 1));
    }
    device.crowd(&[Caller::Patient; CROWD as usize - 2]);
    assert_eq!(device.last(), (false, u64::from(CROWD) - 2));
    assert_eq!(device.now_ns(), 1_000_000);
}

#[test]
fn a_crowd_is_waited_for_and_so_is_its_return() {
    let device = Device::new();
    device.crowd(&[Caller::Patient; CROWD as usize]);
    assert_eq!(device.last(), (true, CROWD.into()));
    assert_eq!(device.now_ns(), 1_000_000 + WINDOW_NS);
    // The first of them that comes back.
    device.event(Caller::Patient);
    assert_eq!(device.last(), (true, 1));
    // Nobody has come: that was all.
    device.event(Caller::Patient);
    assert_eq!(device.last(), (false, 1));
    // Or it comes too late.
    device.crowd(&[Caller::Patient; CROWD as usize]);
    device.pause_ns(WINDOW_NS);
    device.event(Caller::Patient);
    assert_eq!(device.last(), (false, 1));
}

#[test]
fn who_waits_for_more_callers_does_not_flush_at_once() {
    let device = Device::new();
    let zap = Zap::begin(&device, SPAN);
    let owed = zap.done_at_once(&device, SPAN, &mut { Ticket::FINISHED }, true);
    assert!(matches!(owed, Owed::Ticket(_)));
}

#[test]
fn nobody_in_a_hurry_is_held_up() {
    for caller in [Caller::Reclaiming, Caller::RealTime] {
        let device = Device::new();
        let mut others = [Caller::Patient; CROWD as usize + 1];
        if caller == Caller::Reclaiming {
            others[1] = caller;
            device.crowd(&others);
            assert!(!device.last().0);
        }
        device.crowd(&[Caller::Patient; CROWD as usize]);
        assert!(device.last().0);
        device.event(caller);
        assert_eq!(device.last(), (false, 1));
    }
}
