// SPDX-License-Identifier: GPL-2.0

//! A library that flushes when somebody waits, and writes down what it does.

#[path = "../../../../drivers/mmu_batch/typestate.rs"]
mod typestate;

pub use typestate::{
    Blockable, DriverUnmap, Event, Flushed, Guard, IntervalOps, Lease, Live, NonBlockable, Pages,
    Pass1, Peek, Queue, Ticket, ZapOps, Zapped, Zaps,
};

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use typestate::{Finish, Pass};

/// Where a deferred unmap is kept.
mod place {
    pub type Error = std::convert::Infallible;

    pub struct Place<T>(pub(super) Box<T>);

    impl<T> Place<T> {
        pub(super) fn new(held: T) -> Result<Self, Error> {
            Ok(Place(Box::new(held)))
        }
    }

    impl<T> std::ops::Deref for Place<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }
}

/// What was done, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Lock,
    Unlock,
    Ticket,
    Flush,
}

/// How a callback's first pass has ended, and the second one, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    WouldBlock,
    Done,
    Finished,
}

#[derive(Default)]
struct State {
    issued: u64,
    finished: u64,
    deferred: Vec<(u64, Box<dyn Any + Send>)>,
    log: Vec<Done>,
}

/// The memory of a process as a device sees it.
#[derive(Default)]
pub struct Space<S> {
    shadow: Mutex<S>,
    state: Mutex<State>,
}

impl<S: Send + 'static> Space<S> {
    pub fn new(shadow: S) -> Arc<Self> {
        Arc::new(Space {
            shadow: Mutex::new(shadow),
            state: Mutex::default(),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, S> {
        self.shadow.lock().unwrap()
    }

    /// An event: both passes of `interval`.
    pub fn event<O>(&self, interval: &Interval<O>, range: Range<u64>, blockable: bool) -> Answer
    where
        O: IntervalOps<Shadow = S>,
    {
        let callback = self.callback(range, blockable);
        match interval.start(Event::new(&callback, blockable)) {
            Pass1::WouldBlock(_) => return Answer::WouldBlock,
            Pass1::Done(_) => return Answer::Done,
            // The ticket is in the callback; the next pass gets it from there.
            Pass1::Later(_) => {}
        }
        let _ = interval.finish(Ticket::new(&callback));
        Answer::Finished
    }

    fn callback(&self, range: Range<u64>, blockable: bool) -> Callback<'_, S> {
        Callback {
            space: self,
            range,
            blockable,
            locked: RefCell::new(None),
            ticket: Cell::new(0),
        }
    }

    /// A zap by somebody else, who does not wait yet.
    pub fn zap_elsewhere(&self) {
        self.state.lock().unwrap().issued += 1;
    }

    /// Flushes, and gives back what was deferred.
    pub fn drain(&self) {
        let given_back = {
            let mut state = self.state.lock().unwrap();
            state.finished = state.issued;
            state.log.push(Done::Flush);
            std::mem::take(&mut state.deferred)
        };
        drop(given_back);
    }

    /// What was done since this was called last.
    pub fn log(&self) -> Vec<Done> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    fn note(&self, done: Done) {
        self.state.lock().unwrap().log.push(done);
    }

    fn take_ticket(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.issued += 1;
        state.log.push(Done::Ticket);
        state.issued
    }
}

impl<S: Send + 'static> Queue for Space<S> {
    type Shadow = S;

    fn defer<T: Send + 'static>(
        &self,
        place: place::Place<T>,
        _size: impl FnOnce(&T) -> (Range<u64>, u64),
        zap: impl FnOnce(&mut S, &T) -> Live,
    ) {
        let live = zap(&mut self.lock(), &place);
        let ticket = if live.any() { self.take_ticket() } else { 0 };
        self.state.lock().unwrap().deferred.push((ticket, place.0));
    }
}

/// A range of which a driver hears.
pub struct Interval<O>(O);

impl<O: IntervalOps> Interval<O> {
    pub fn new(ops: O) -> Self {
        Interval(ops)
    }
}

impl<O> Deref for Interval<O> {
    type Target = O;

    fn deref(&self) -> &O {
        &self.0
    }
}

impl<O> Drop for Interval<O> {
    /// As in the kernel, where it waits for callbacks: nothing can be moved out of it.
    fn drop(&mut self) {}
}

struct Callback<'a, S> {
    space: &'a Space<S>,
    range: Range<u64>,
    blockable: bool,
    locked: RefCell<Option<MutexGuard<'a, S>>>,
    ticket: Cell<u64>,
}

impl<S: Send + 'static> Finish for Callback<'_, S> {
    fn wait(&self) {
        assert!(self.locked.borrow().is_none(), "waits with the lock held");
        if self.space.state.lock().unwrap().finished < self.ticket.get() {
            self.space.drain();
        }
    }
}

impl<S: Send + 'static> Pass<S> for Callback<'_, S> {
    fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn kind(&self) -> u32 {
        0
    }

    fn lock(&self) -> bool {
        let guard = match self.blockable {
            true => Some(self.space.lock()),
            false => self.space.shadow.try_lock().ok(),
        };
        if guard.is_some() {
            self.space.note(Done::Lock);
        }
        let there = guard.is_some();
        *self.locked.borrow_mut() = guard;
        there
    }

    fn shadow(&self, f: &mut dyn FnMut(&mut S)) {
        f(self.locked.borrow_mut().as_mut().expect("locked"));
    }

    fn unlock(&self) {
        self.space.note(Done::Unlock);
        assert!(self.locked.take().is_some(), "locked");
    }

    fn zapped(&self, live: bool) -> bool {
        if live {
            self.ticket.set(self.space.take_ticket());
        } else if self.in_flight() {
            self.ticket.set(self.space.state.lock().unwrap().issued);
        }
        self.unlock();
        self.ticket.get() > 0
    }

    fn in_flight(&self) -> bool {
        let state = self.space.state.lock().unwrap();
        state.finished < state.issued
    }
}
