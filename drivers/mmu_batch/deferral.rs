// SPDX-License-Identifier: GPL-2.0

//! Unmaps that a driver itself wants, flushed a little later and together.

use crate::combine::{Ticket, Zap};
use crate::device::Device;
use crate::ffi::{self, Deferred};
use crate::gather::{Cause, Due, Gather, Kept, Next, Unmap};
use crate::space::Space;
use crate::tunables::GATHER_UNMAPS;
use kernel::{
    kthread::{self, Handler, Waker},
    new_mutex,
    prelude::*,
    shrinker::Shrinker,
    sync::{
        raw::{new_raw_spinlock, RawSpinLock},
        Arc,
        Mutex,
        SetOnce, //
    },
    time::Delta, //
};

type Places = KVVec<Option<Kept<Deferred>>>;

/// The unmaps of a device.
#[pin_data]
pub(crate) struct Deferral {
    #[pin]
    gather: RawSpinLock<Gather<Places>>,
    /// Held while unmaps are released: who comes later goes on when they are.
    #[pin]
    releasing: Mutex<()>,
    drainer: SetOnce<Waker>,
}

impl Deferral {
    /// Room for [`GATHER_UNMAPS`].
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let mut places = Places::with_capacity(GATHER_UNMAPS as usize, GFP_KERNEL)?;
        for _ in 0..GATHER_UNMAPS {
            places.push(None, GFP_KERNEL)?;
        }
        let gather = Gather::new(places).ok_or(EINVAL)?;
        Ok(pin_init!(Self {
            gather <- new_raw_spinlock!(gather, "nullhz_mmu_batch_gather"),
            releasing <- new_mutex!((), "nullhz_mmu_batch_releasing"),
            drainer: SetOnce::new(),
        }))
    }

    /// Who looks when a window is over.
    pub(crate) fn drained_by(&self, waker: Waker) {
        self.drainer.populate(waker);
    }

    /// Calls `f` with what is kept, under a raw lock.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Gather<Places>) -> R) -> R {
        self.gather.with(f)
    }

    fn wake(&self) {
        if let Some(drainer) = self.drainer.as_ref() {
            drainer.wake();
        }
    }
}

impl Space {
    /// Zaps `deferred` now, and releases it after a flush. Process context, may sleep.
    pub(crate) fn defer(&self, deferred: Deferred) {
        let device = self.device();
        let (span, pages) = (self.span(&deferred.range()), deferred.pages());
        let mut state = self.lock();
        let zap = Zap::begin(device, span);
        let live = deferred.zap();
        // If an event has zapped it before, it is given back after that one's flush.
        let mut last = state.last;
        let ticket = zap.done(device, span, &mut last, live);
        if live {
            state.unmapped(device, deferred.range(), last);
        }
        drop(state);
        let ticket = ticket.unwrap_or(Ticket::FINISHED);
        ffi::trace_defer(device.name(), &span, pages, ticket);

        let unmap = Unmap {
            pages,
            ticket,
            held: deferred,
        };
        let limits = device.tunables.limits();
        let now = device.age_ns();
        match device
            .deferral
            .with(|gather| gather.push(unmap, now, &limits))
        {
            Ok(Next::Kept) => {}
            Ok(Next::WakeAt(_)) => device.deferral.wake(),
            Ok(Next::Drain(cause)) => device.drain(cause),
            Err(unmap) => {
                // There was no room: the others first, for the order.
                device.drain(Cause::Size);
                device.wait(unmap.ticket);
                device.counters.released.add(1);
                unmap.held.release();
            }
        }
    }
}

impl Device {
    /// Releases all unmaps that were deferred before. Process context, may sleep.
    pub(crate) fn drain(&self, cause: Cause) {
        if let Some(ticket) = self.flush_deferred(cause) {
            self.wait(ticket);
        }
        self.release();
        // What came while we were at it was told that somebody sees to it, which is the thread.
        if !self.deferral.with(|gather| gather.is_empty()) {
            self.deferral.wake();
        }
    }

    /// Counts a drain, if there is anything to drain: its ticket.
    fn flush_deferred(&self, cause: Cause) -> Option<Ticket> {
        let (ticket, unmaps, pages) = self.deferral.with(|gather| {
            let ticket = gather.last_ticket()?;
            gather.count(cause);
            Some((ticket, gather.len(), gather.pages()))
        })?;
        ffi::trace_drain(self.name(), cause, unmaps, pages);
        Some(ticket)
    }

    /// Releases what is flushed, and waits for whoever does so already.
    fn release(&self) {
        let _releasing = self.deferral.releasing.lock();
        while !self.deferral.with(|gather| gather.is_empty()) {
            let finished = self.finished_ticket();
            let Some(unmap) = self.deferral.with(|gather| gather.pop(finished)) else {
                break;
            };
            self.counters.released.add(1);
            unmap.held.release();
        }
    }
}

/// Ends windows; on a housekeeping CPU.
pub(crate) struct Drainer(pub(crate) Arc<Device>);

impl Handler for Drainer {
    fn run(&self) -> kthread::Next {
        let device = &*self.0;
        loop {
            // What other flushes have finished.
            device.release();
            let now = device.age_ns();
            match device.deferral.with(|gather| gather.due(now)) {
                Due::Never => return kthread::Next::UntilWoken,
                Due::At(time) => {
                    // CAST: A window is short.
                    let left = time.saturating_sub(now) as i64;
                    return kthread::Next::After(Delta::from_nanos(left));
                }
                Due::Now(_) => device.drain(device.deferral.with(|gather| gather.cause())),
            }
        }
    }
}

/// Has the thread give deferred unmaps back at once when memory is short. Does not wait for it:
/// releasing them may take locks that are held around an allocation, and a device that cannot be
/// reset must not stop who has nothing to do with it.
pub(crate) struct Squeezer(pub(crate) Arc<Device>);

impl Shrinker for Squeezer {
    fn count(&self) -> usize {
        self.0.deferral.with(|gather| gather.pages()) as usize
    }

    fn scan(&self, _wanted: usize) -> Option<usize> {
        let deferral = &self.0.deferral;
        if deferral.with(|gather| gather.squeeze()) {
            deferral.wake();
        }
        // Nothing is free yet.
        None
    }
}
