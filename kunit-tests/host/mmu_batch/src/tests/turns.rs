// SPDX-License-Identifier: GPL-2.0

//! Who is woken when the next leader is faster than the one before it, which takes more threads
//! than the model checker has.

use crate::combine::{wait, Caller, Mutant, Owed, Pending, Platform, Queue, Round};
use crate::combine::{Ticket, Unanswered, Waited, Zap};
use crate::spans::{Span, Spans, MAX};
use std::boxed::Box;
use std::cell::{Cell, RefCell, RefMut};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::vec::Vec;

const SPAN: Span = Span {
    start: 0,
    end: 4096,
    tag: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    All(Queue),
    One(Queue),
}

type Next = Box<dyn FnOnce(&Device)>;

/// One thread plays all.
struct Device {
    pending: RefCell<Pending>,
    finished: AtomicU64,
    released: AtomicU64,
    waiting: AtomicU64,
    hurried: AtomicU64,
    spans: RefCell<Spans>,
    leads: Cell<bool>,
    /// What another thread does as soon as the lead is free.
    next: Cell<Option<Next>>,
    woken: RefCell<Vec<Wake>>,
}

struct Lead<'a> {
    device: &'a Device,
    spans: Option<RefMut<'a, Spans>>,
}

impl core::ops::Deref for Lead<'_> {
    type Target = Spans;

    fn deref(&self) -> &Spans {
        self.spans.as_ref().unwrap()
    }
}

impl core::ops::DerefMut for Lead<'_> {
    fn deref_mut(&mut self) -> &mut Spans {
        self.spans.as_mut().unwrap()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.spans = None;
        self.device.leads.set(false);
        if let Some(next) = self.device.next.take() {
            next(self.device);
        }
    }
}

impl Device {
    fn new() -> Self {
        Device {
            pending: RefCell::new(Pending::NEW),
            finished: AtomicU64::new(0),
            released: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            hurried: AtomicU64::new(0),
            spans: RefCell::new(Spans::EMPTY),
            leads: Cell::new(false),
            next: Cell::new(None),
            woken: RefCell::new(Vec::new()),
        }
    }

    fn event(&self) {
        let ticket = Zap::begin(self, SPAN).done(self, SPAN, &mut { Ticket::FINISHED }, true);
        let waited = wait(self, ticket.unwrap(), || Caller::Patient);
        assert_eq!(waited, Waited::Led);
    }

    fn event_at_once(&self) {
        let zap = Zap::begin(self, SPAN);
        match zap.done_at_once(self, SPAN, &mut { Ticket::FINISHED }, true) {
            Owed::Flush(closed) => closed.flush(),
            _ => panic!("nobody leads"),
        }
    }

    /// `first` leads while others sleep, and `second` as soon as it can.
    fn check(first: fn(&Device), second: fn(&Device)) {
        let device = Device::new();
        device.waiting.store(3, SeqCst);
        device.next.set(Some(Box::new(second)));
        first(&device);
        // All of each generation, by who has flushed it: nobody else would.
        let (first, second) = (Queue::Odd, Queue::Even);
        assert_eq!(
            *device.woken.borrow(),
            [
                Wake::All(second),
                Wake::One(first),
                Wake::All(first),
                Wake::One(second),
            ]
        );
    }
}

impl Platform for Device {
    type Word = AtomicU64;
    type Lead<'a> = Lead<'a>;

    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R {
        f(&mut self.pending.borrow_mut())
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
        self.try_lead().expect("nobody leads")
    }

    fn try_lead(&self) -> Option<Lead<'_>> {
        let free = !self.leads.replace(true);
        free.then(|| Lead {
            device: self,
            spans: Some(self.spans.borrow_mut()),
        })
    }

    fn sleep(&self, _queue: Queue, _until: impl Fn() -> bool) {
        panic!("the lead is free whenever it is asked for");
    }

    fn wake_all(&self, queue: Queue) {
        self.woken.borrow_mut().push(Wake::All(queue));
    }

    fn wake_one(&self, queue: Queue) {
        self.woken.borrow_mut().push(Wake::One(queue));
    }

    fn flush(&self, _spans: &[Span]) -> Result<(), Unanswered> {
        Ok(())
    }

    fn reset(&self) -> Result<(), Unanswered> {
        Ok(())
    }

    fn back_off(&self, _failed: u32) {}

    fn flushed(&self, _round: &Round) {}

    fn ceiling(&self) -> usize {
        MAX
    }

    fn window_ns(&self) -> u64 {
        0
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn pause_ns(&self, _ns: u64) {}

    fn mutant(&self) -> Option<Mutant> {
        None
    }
}

#[test]
fn the_next_leader_is_faster() {
    Device::check(Device::event, Device::event);
    Device::check(Device::event, Device::event_at_once);
    Device::check(Device::event_at_once, Device::event);
    Device::check(Device::event_at_once, Device::event_at_once);
}
