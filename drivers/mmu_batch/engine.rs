// SPDX-License-Identifier: GPL-2.0

//! What combining ([`crate::combine`]) stands on in the kernel.

use crate::combine::{
    self, Caller, Pending, Platform, Queue, Round, Ticket, Totals, Unanswered, Waited,
};
use crate::device::Device;
use crate::ffi;
use crate::spans::{Span, Spans};
use kernel::{
    cpu::CpuId,
    current,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Release},
        lock::{mutex::MutexBackend, Guard},
        new_condvar,
        new_mutex,
        new_spinlock,
        raw::{new_raw_spinlock, RawSpinLock},
        CondVar,
        Mutex,
        SpinLock, //
    },
    time::{delay::fsleep, Delta}, //
};

/// The wait before a second reset, and the longest, ms.
const BACK_OFF_MS: (i64, i64) = (1, 1_000);

impl combine::Word for Atomic<u64> {
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

/// Where callers sleep.
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
            lock <- new_spinlock!((), "nullhz_mmu_batch_sleepers"),
            woken <- new_condvar!("nullhz_mmu_batch_sleepers"),
        })
    }
}

/// The state of a device's flushes.
#[pin_data]
pub(crate) struct Engine {
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
}

impl Engine {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pending <- new_raw_spinlock!(Pending::NEW, "nullhz_mmu_batch_pending"),
            finished: Atomic::new(0),
            released: Atomic::new(0),
            waiting: Atomic::new(0),
            hurried: Atomic::new(0),
            lead <- new_mutex!(Spans::EMPTY, "nullhz_mmu_batch_lead"),
            even <- Sleepers::new(),
            odd <- Sleepers::new(),
        })
    }

    fn sleepers(&self, queue: Queue) -> &Sleepers {
        match queue {
            Queue::Even => &self.even,
            Queue::Odd => &self.odd,
        }
    }
}

impl Platform for Device {
    type Word = Atomic<u64>;
    type Lead<'a> = Guard<'a, Spans, MutexBackend>;

    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R {
        self.engine.pending.with(f)
    }

    fn finished(&self) -> &Atomic<u64> {
        &self.engine.finished
    }

    fn released(&self) -> &Atomic<u64> {
        &self.engine.released
    }

    fn waiting(&self) -> &Atomic<u64> {
        &self.engine.waiting
    }

    fn hurried(&self) -> &Atomic<u64> {
        &self.engine.hurried
    }

    fn lead(&self) -> Self::Lead<'_> {
        self.engine.lead.lock()
    }

    fn try_lead(&self) -> Option<Self::Lead<'_>> {
        self.engine.lead.try_lock()
    }

    fn sleep(&self, queue: Queue, until: impl Fn() -> bool) {
        let sleepers = self.engine.sleepers(queue);
        let mut guard = sleepers.lock.lock();
        while !until() {
            sleepers.woken.wait(&mut guard);
        }
    }

    fn wake_all(&self, queue: Queue) {
        let sleepers = self.engine.sleepers(queue);
        drop(sleepers.lock.lock());
        sleepers.woken.notify_all();
    }

    fn wake_one(&self, queue: Queue) {
        let sleepers = self.engine.sleepers(queue);
        drop(sleepers.lock.lock());
        sleepers.woken.notify_one();
    }

    fn flush(&self, spans: &[Span]) -> Result<(), Unanswered> {
        ffi::trace_flush_begin(self.name(), spans);
        self.hardware.flush(spans).map_err(|error| {
            self.counters.flush_errors.add(1);
            let errors = self.counters.flush_errors.get();
            // A device that never answers is told of, but does not fill the log.
            if errors.is_power_of_two() {
                let name = self.name();
                pr_err!("{name}: flush {errors} failed ({error:?}): resetting the device\n");
            }
            Unanswered
        })
    }

    fn reset(&self) -> Result<(), Unanswered> {
        let result = self.hardware.reset();
        ffi::trace_reset(self.name(), result);
        match result {
            Ok(()) => self.counters.resets.add(1),
            Err(error) => {
                self.counters.reset_errors.add(1);
                let (name, errors) = (self.name(), self.counters.reset_errors.get());
                if errors.is_power_of_two() {
                    pr_crit!(
                        "{name}: reset failed ({error:?}, {errors} so far): whoever waits for it waits on\n"
                    );
                }
            }
        }
        result.map_err(|_| Unanswered)
    }

    fn back_off(&self, failed: u32) {
        let (first, longest) = BACK_OFF_MS;
        let doubled = 1i64
            .checked_shl(failed.saturating_sub(1))
            .unwrap_or(longest);
        fsleep(Delta::from_millis(doubled.clamp(first, longest)));
    }

    fn flushed(&self, round: &Round) {
        ffi::trace_flush_end(self.name(), round);
    }

    fn ceiling(&self) -> usize {
        self.tunables.span_ceiling.get() as usize
    }

    fn window_ns(&self) -> u64 {
        match self.tunables.combine_window_us.get() {
            0 => 0,
            // The pause arms a timer on this very CPU.
            _ if CpuId::current().is_isolated() => 0,
            us => u64::from(us) * 1_000,
        }
    }

    fn now_ns(&self) -> u64 {
        self.age_ns()
    }

    fn pause_ns(&self, ns: u64) {
        // Up to 10 µs would be a busy loop.
        fsleep(Delta::from_nanos(ns.max(11_000) as i64));
    }

    #[cfg(nullhz_mmu_mutants)]
    fn mutant(&self) -> Option<combine::Mutant> {
        self.mutant
    }
}

/// How much of a hurry the calling thread is in.
fn caller() -> Caller {
    let current = current!();
    if current.is_realtime() {
        Caller::RealTime
    } else if current.is_reclaiming() {
        Caller::Reclaiming
    } else {
        Caller::Patient
    }
}

impl Device {
    /// Returns when `ticket` is finished. May sleep.
    pub(crate) fn wait(&self, ticket: Ticket) {
        match combine::wait(self, ticket, caller) {
            // Of all intervals of an event, the first one waits, and the others come by here.
            Waited::Not => {}
            Waited::Joined => {
                self.counters.combined.add(1);
                ffi::trace_wait(self.name(), ticket, false);
            }
            Waited::Led => ffi::trace_wait(self.name(), ticket, true),
        }
    }

    /// How long there has been the device, in ns.
    pub(crate) fn age_ns(&self) -> u64 {
        // CAST: It is not negative.
        self.born.elapsed().as_nanos() as u64
    }

    /// The flushes so far. Any context but NMI.
    pub(crate) fn totals(&self) -> Totals {
        self.engine.pending.with(|pending| pending.totals())
    }

    /// What was finished last.
    pub(crate) fn finished_ticket(&self) -> Ticket {
        Ticket::from_raw(self.engine.finished.load(Acquire))
    }

    /// Whether what `ticket` was taken for is out of the TLB.
    pub(crate) fn is_finished(&self, ticket: Ticket) -> bool {
        combine::is_finished(self, ticket)
    }
}
