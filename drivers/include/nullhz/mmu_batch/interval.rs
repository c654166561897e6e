// SPDX-License-Identifier: GPL-2.0

//! Intervals, and the border between their callbacks and `typestate.rs`.

use super::{
    abi, nullhz_mmu_batch_event_in_flight, nullhz_mmu_batch_event_lock,
    nullhz_mmu_batch_event_unlock, nullhz_mmu_batch_event_wait, nullhz_mmu_batch_event_zapped,
    nullhz_mmu_batch_interval_insert, nullhz_mmu_batch_interval_notifier,
    nullhz_mmu_batch_interval_remove,
    typestate::{Event, Finish, Flushed, IntervalOps, Pass, Pass1, Ticket, ZapOps, Zaps},
    RawInterval, Space,
};
use core::{
    ops::{Deref, Range},
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    ffi::c_void,
    mm::interval::NotifierRef,
    prelude::*,
    sync::Arc, //
};

mod sealed {
    use super::abi;

    pub trait Sealed {
        /// Functions that take an `Inner<Self>`.
        const RAW: abi::IntervalOps;
    }
}

/// What an interval calls: any [`IntervalOps`], and any [`ZapOps`] as [`Zaps`].
pub trait Callbacks: sealed::Sealed + Send + Sync + 'static {
    /// The page table that the interval has its translations in. Protected by its space's lock.
    type Shadow: Send;
}

impl<O: IntervalOps> Callbacks for O {
    type Shadow = O::Shadow;
}

impl<O: IntervalOps> sealed::Sealed for O {
    const RAW: abi::IntervalOps = abi::IntervalOps {
        zap: None,
        live: None,
        flushed: None,
        start: Some(start::<O>),
        finish: if O::SECOND_PASS {
            Some(finish::<O>)
        } else {
            None
        },
    };
}

impl<Z: ZapOps> Callbacks for Zaps<Z> {
    type Shadow = Z::Shadow;
}

impl<Z: ZapOps> sealed::Sealed for Zaps<Z> {
    const RAW: abi::IntervalOps = abi::IntervalOps {
        zap: Some(zap::<Z>),
        live: Some(live::<Z>),
        flushed: if Z::TELL_FLUSHED {
            Some(flushed::<Z>)
        } else {
            None
        },
        start: None,
        finish: None,
    };
}

/// What an interval's functions are called with.
struct Inner<O: Callbacks> {
    ops: O,
    space: Arc<Space<O::Shadow>>,
}

/// A range of a space of which the driver hears when the CPU's page tables change; removed when
/// dropped.
///
/// Dropping it has what is left of the range zapped, as an event would, and waits for the flush.
/// Process context, may sleep; never in a callback, nor with a lock held that callbacks take. To
/// drop many, unmap the whole space first, and there is one flush.
///
/// # Invariants
///
/// `raw` is an interval that was inserted with `inner` and functions that take it.
pub struct Interval<O: Callbacks> {
    raw: NonNull<RawInterval>,
    inner: KBox<Inner<O>>,
}

// SAFETY: An interval may be removed by another thread than the one that inserted it; `O` is
// `Send`, and so is the space.
unsafe impl<O: Callbacks> Send for Interval<O> {}
// SAFETY: A shared interval gives access to its notifier and to `O`, which is `Sync`.
unsafe impl<O: Callbacks> Sync for Interval<O> {}

impl<O: Callbacks> Interval<O> {
    const OPS: abi::IntervalOps = O::RAW;

    /// Makes the driver hear of `range`.
    ///
    /// Process context, may sleep; the `mmap_lock` is not held. Errors: [`EINVAL`] for an empty
    /// range, [`ESRCH`] if the process is gone, [`EINTR`], [`ENOMEM`].
    pub fn new(space: &Arc<Space<O::Shadow>>, range: Range<u64>, ops: O) -> Result<Self> {
        let length = range.end.checked_sub(range.start).ok_or(EINVAL)?;
        let inner = KBox::new(
            Inner {
                ops,
                space: space.clone(),
            },
            GFP_KERNEL,
        )?;
        let driver = (&raw const *inner).cast_mut().cast();
        // SAFETY: The space is one by its type's invariant. The functions are static, and take an
        // `Inner<O>`, which stays where it is until the interval is removed.
        let raw = unsafe {
            nullhz_mmu_batch_interval_insert(
                space.raw.as_ptr(),
                range.start,
                length,
                &Self::OPS,
                driver,
            )
        };
        // INVARIANT: Inserted just now.
        Ok(Self {
            raw: NonNull::new(from_err_ptr(raw)?).ok_or(ENOMEM)?,
            inner,
        })
    }

    /// What the kernel calls it: for its sequence, and to have pages faulted in.
    pub fn notifier(&self) -> &NotifierRef {
        // SAFETY: An interval by the type's invariant.
        let notifier = unsafe { nullhz_mmu_batch_interval_notifier(self.raw.as_ptr()) };
        // SAFETY: The interval's notifier, which is valid for as long as the interval.
        unsafe { NotifierRef::from_raw(notifier.cast()) }
    }

    /// Its space.
    pub fn space(&self) -> &Arc<Space<O::Shadow>> {
        &self.inner.space
    }
}

impl<O: Callbacks> Deref for Interval<O> {
    type Target = O;

    fn deref(&self) -> &O {
        &self.inner.ops
    }
}

impl<O: Callbacks> Drop for Interval<O> {
    fn drop(&mut self) {
        // SAFETY: An interval by the type's invariant, and not used after this.
        unsafe { nullhz_mmu_batch_interval_remove(self.raw.as_ptr()) };
    }
}

/// The library's side of a callback.
///
/// # Invariants
///
/// `event` is what the callback was called with, and the callback has not returned.
struct Callback<'a, S: Send + 'static> {
    event: NonNull<abi::Event>,
    space: &'a Space<S>,
}

impl<S: Send> Callback<'_, S> {
    fn event(&self) -> &abi::Event {
        // SAFETY: Valid by the type's invariant.
        unsafe { self.event.as_ref() }
    }
}

impl<S: Send> Finish for Callback<'_, S> {
    fn wait(&self) {
        // SAFETY: Of this callback by the type's invariant.
        unsafe { nullhz_mmu_batch_event_wait(self.event.as_ptr()) };
    }
}

impl<S: Send> Pass<S> for Callback<'_, S> {
    fn range(&self) -> Range<u64> {
        self.event().start..self.event().end
    }

    fn kind(&self) -> u32 {
        self.event().kind
    }

    fn lock(&self) -> bool {
        // SAFETY: Of this callback by the type's invariant; `typestate.rs` locks once.
        unsafe { nullhz_mmu_batch_event_lock(self.event.as_ptr()) }
    }

    fn shadow(&self, f: &mut dyn FnMut(&mut S)) {
        // SAFETY: `typestate.rs` calls it between `lock()` and `zapped()` or `unlock()`: the lock
        // is held, and nobody else has the page table.
        f(unsafe { &mut *self.space.shadow.get() });
    }

    fn unlock(&self) {
        // SAFETY: Of this callback by the type's invariant.
        unsafe { nullhz_mmu_batch_event_unlock(self.event.as_ptr()) };
    }

    fn zapped(&self, live: bool) -> bool {
        // SAFETY: Of this callback by the type's invariant.
        unsafe { nullhz_mmu_batch_event_zapped(self.event.as_ptr(), live) }
    }

    fn in_flight(&self) -> bool {
        // SAFETY: Of this callback by the type's invariant.
        unsafe { nullhz_mmu_batch_event_in_flight(self.event.as_ptr()) }
    }
}

/// # Safety
///
/// `driver` is an `Inner<O>`, and `event` valid, both until this returns.
unsafe extern "C" fn start<O: IntervalOps>(driver: *mut c_void, event: *mut abi::Event) -> bool {
    // SAFETY: As demanded of the caller.
    let inner = unsafe { &*driver.cast::<Inner<O>>() };
    let Some(event) = NonNull::new(event) else {
        return false;
    };
    // INVARIANT: As demanded of the caller.
    let callback = Callback {
        event,
        space: &inner.space,
    };
    let blockable = callback.event().blockable != 0;
    match inner.ops.start(Event::new(&callback, blockable)) {
        Pass1::WouldBlock(_) => false,
        Pass1::Done(_) | Pass1::Later(_) => true,
    }
}

/// # Safety
///
/// As [`start()`].
unsafe extern "C" fn finish<O: IntervalOps>(driver: *mut c_void, event: *mut abi::Event) {
    // SAFETY: As demanded of the caller.
    let inner = unsafe { &*driver.cast::<Inner<O>>() };
    if let Some(event) = NonNull::new(event) {
        // INVARIANT: As demanded of the caller.
        let callback = Callback {
            event,
            space: &*inner.space,
        };
        let _: Flushed<'_> = inner.ops.finish(Ticket::new(&callback));
    }
}

/// # Safety
///
/// `driver` is an `Inner<Zaps<Z>>`, `event` valid, and the lock of its space held, until this
/// returns.
unsafe extern "C" fn zap<Z: ZapOps>(driver: *mut c_void, event: *const abi::Event) -> bool {
    // SAFETY: As demanded of the caller.
    let (inner, event) = unsafe { (&*driver.cast::<Inner<Zaps<Z>>>(), &*event) };
    // SAFETY: The lock is held, and nobody else has the page table.
    let table = unsafe { &mut *inner.space.shadow.get() };
    inner.ops.0.zap(table, event.start..event.end).any()
}

/// # Safety
///
/// As [`zap()`].
unsafe extern "C" fn live<Z: ZapOps>(driver: *mut c_void, event: *const abi::Event) -> bool {
    // SAFETY: As demanded of the caller.
    let (inner, event) = unsafe { (&*driver.cast::<Inner<Zaps<Z>>>(), &*event) };
    // SAFETY: The lock is held, and nobody else has the page table.
    let table = unsafe { &*inner.space.shadow.get() };
    inner.ops.0.live(table, event.start..event.end).any()
}

/// # Safety
///
/// `driver` is an `Inner<Zaps<Z>>`, and `event` valid, both until this returns.
unsafe extern "C" fn flushed<Z: ZapOps>(driver: *mut c_void, event: *const abi::Event) {
    // SAFETY: As demanded of the caller.
    let (inner, event) = unsafe { (&*driver.cast::<Inner<Zaps<Z>>>(), &*event) };
    inner.ops.0.flushed(event.start..event.end);
}
