// SPDX-License-Identifier: GPL-2.0

//! How the context hears that the CPU's page tables change: the four ways that are compared.
//!
//! [`Flushing`] is what a careful driver does without a library: take the lock, zap, flush, and
//! only then let the memory management go on. The lock is held across the flush, as Xe holds its
//! `notifier_lock`: who finds nothing mapped has then also waited for the flush of whoever zapped
//! it, and may go on without one. [`Batched`] leaves all of that to nullhz_mmu_batch, and only
//! zaps; how long an event takes it does not know, so that only the others measure it. [`Typed`] is
//! the same for drivers that have more to do.

use crate::hardware::elapsed;
use crate::mmu_batch::{self, Event, IntervalOps, Live, Pass1, ZapOps, Zaps};
use crate::shared::Shared;
use core::{convert::Infallible, ops::Range};
use kernel::{
    mm::interval::{
        BlockableEvent,
        FinishPass,
        NonBlockableEvent,
        NotifierRef,
        Operations,
        Registration,
        Sequence,
        WouldBlock, //
    },
    mm::MmWithUser,
    prelude::*,
    sync::Arc,
    time::Instant, //
};

/// The library's view of the context.
pub(crate) type Space = mmu_batch::Space<Arc<Shared>>;

/// Device addresses of a range of the process.
fn device_range(range: Range<usize>) -> Range<u64> {
    range.start as u64..range.end as u64
}

/// Without the library: each call flushes.
pub(crate) struct Flushing {
    shared: Arc<Shared>,
    /// Everything, instead of what the event hits.
    full: bool,
}

impl Operations for Flushing {
    /// All is done in the first pass.
    type Pending = Infallible;

    fn start(&self, event: &BlockableEvent<'_>) -> Option<Infallible> {
        let start = Instant::now();
        let range = device_range(event.overlap());
        let shared = &*self.shared;
        let guard = shared.lock.lock();
        let zapped = shared.table.zap(range.clone());
        if zapped != 0 {
            let spans = [shared.span(range)];
            shared.hardware.flush_surely((!self.full).then_some(&spans));
        }
        drop(guard);
        shared.counters.event(zapped, elapsed(start));
        None
    }

    fn finish(&self, pending: Infallible, _pass: &FinishPass<'_>) {
        match pending {}
    }

    fn try_invalidate(&self, event: &NonBlockableEvent<'_>) -> Result<(), WouldBlock> {
        let start = Instant::now();
        let shared = &*self.shared;
        if let Some(_guard) = shared.lock.try_lock() {
            if !shared.table.has_any(device_range(event.overlap())) {
                shared.counters.event(0, elapsed(start));
                return Ok(());
            }
        }
        shared.counters.would_block();
        Err(WouldBlock)
    }
}

/// Removes what is in `range`.
fn zap(shared: &Shared, range: Range<u64>) -> Live {
    let zapped = shared.table.zap(range);
    shared.counters.zap(zapped);
    Live::when(zapped != 0)
}

/// Whether anything is in `range`.
fn live(shared: &Shared, range: Range<u64>) -> Live {
    Live::when(shared.table.has_any(range))
}

/// With the library.
pub(crate) struct Batched;

impl ZapOps for Batched {
    type Shadow = Arc<Shared>;

    fn zap(&self, shared: &mut Arc<Shared>, range: Range<u64>) -> Live {
        zap(shared, range)
    }

    fn live(&self, shared: &Arc<Shared>, range: Range<u64>) -> Live {
        live(shared, range)
    }
}

/// With the library, and a say in both passes.
pub(crate) struct Typed;

impl IntervalOps for Typed {
    type Shadow = Arc<Shared>;

    fn start<'e>(&self, event: Event<'e, Arc<Shared>>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => event.zap(|shared, range| zap(shared, range)),
            Event::NonBlockable(peek) => peek.check(|shared, range| live(shared, range)).into(),
        }
    }
}

/// A notifier of the kernel.
pub(crate) enum Notifier {
    Flushing(Pin<KBox<Registration<Flushing>>>, Arc<Shared>),
    Batched(mmu_batch::Interval<Zaps<Batched>>, Arc<Space>),
    Typed(mmu_batch::Interval<Typed>, Arc<Space>),
}

impl Notifier {
    /// Without the library; `full`: its events flush everything.
    pub(crate) fn flushing(
        mm: &MmWithUser,
        range: Range<u64>,
        shared: &Arc<Shared>,
        full: bool,
    ) -> Result<Self> {
        let data = Flushing {
            shared: shared.clone(),
            full,
        };
        let range = range.start as usize..range.end as usize;
        let registration = Registration::new::<Infallible, _>(mm, range, data);
        let registration = KBox::pin_init(registration, GFP_KERNEL_ACCOUNT)?;
        Ok(Self::Flushing(registration, shared.clone()))
    }

    /// With the library.
    pub(crate) fn batched(range: Range<u64>, space: &Arc<Space>) -> Result<Self> {
        let interval = mmu_batch::Interval::new(space, range, Zaps(Batched))?;
        Ok(Self::Batched(interval, space.clone()))
    }

    /// The same with callbacks of its own.
    pub(crate) fn typed(range: Range<u64>, space: &Arc<Space>) -> Result<Self> {
        let interval = mmu_batch::Interval::new(space, range, Typed)?;
        Ok(Self::Typed(interval, space.clone()))
    }

    /// What the kernel calls it.
    pub(crate) fn kernel(&self) -> &NotifierRef {
        match self {
            Self::Flushing(registration, _) => registration,
            Self::Batched(interval, _) => interval.notifier(),
            Self::Typed(interval, _) => interval.notifier(),
        }
    }

    /// Calls `f` with the context's lock held, if no event came since `sequence`; else returns
    /// [`None`].
    pub(crate) fn install(&self, sequence: Sequence, f: impl FnOnce(&Shared)) -> Option<()> {
        match self {
            Self::Flushing(registration, shared) => {
                let _guard = shared.lock.lock();
                (!registration.read_retry(sequence)).then(|| f(shared))
            }
            Self::Batched(interval, space) => {
                let shared = space.lock();
                (!shared.retry(interval, sequence)).then(|| f(&shared))
            }
            Self::Typed(interval, space) => {
                let shared = space.lock();
                (!shared.retry(interval, sequence)).then(|| f(&shared))
            }
        }
    }
}
