// SPDX-License-Identifier: GPL-2.0

//! The driver's functions, and those of our own C part; with `exports.rs` all that is `unsafe`.

use crate::abi;
use crate::block::Registered;
use crate::combine::{Round, Ticket, Zap};
use crate::device::Device;
use crate::gather::Cause;
use crate::space::{Hit, Left, Locked};
use crate::spans::Span;
use crate::trace::Outcome;
use core::{ops::Range, ptr::NonNull};
use kernel::{
    bindings,
    error::to_result,
    ffi::{c_char, c_int, c_void},
    mm::interval::NotifierRef,
    prelude::*,
    str::CString,
    sync::{global_lock, Arc},
    types::Opaque, //
};

extern "C" {
    fn nullhz_mmu_batch_module_get(module: *mut c_void) -> bool;
    fn nullhz_mmu_batch_module_put(module: *mut c_void);
    fn nullhz_mmu_batch_trace_event(
        device: *const c_char,
        span: *const Span,
        intervals: u64,
        kind: u32,
        outcome: u32,
        ticket: u64,
    );
    fn nullhz_mmu_batch_trace_flush_begin(device: *const c_char, spans: *const Span, count: u32);
    fn nullhz_mmu_batch_trace_flush_end(
        device: *const c_char,
        generation: u64,
        tickets: u64,
        spans: u32,
        windowed: bool,
        resets: u32,
    );
    fn nullhz_mmu_batch_trace_wait(device: *const c_char, ticket: u64, led: bool);
    fn nullhz_mmu_batch_trace_defer(
        device: *const c_char,
        span: *const Span,
        pages: u64,
        ticket: u64,
    );
    fn nullhz_mmu_batch_trace_drain(device: *const c_char, cause: u32, unmaps: u64, pages: u64);
    fn nullhz_mmu_batch_trace_reset(device: *const c_char, error: c_int);
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_event`.
pub(crate) fn trace_event(hit: &Hit<'_>, outcome: Outcome, ticket: Option<Ticket>) {
    // SAFETY: A C string, and a span of the layout that abi.rs asserts; both are only read.
    unsafe {
        nullhz_mmu_batch_trace_event(
            hit.space.device().name().as_char_ptr(),
            &hit.span,
            hit.intervals,
            hit.kind,
            outcome as u32,
            ticket.map_or(0, Ticket::into_raw),
        )
    };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_flush_begin`.
pub(crate) fn trace_flush_begin(device: &CStr, spans: &[Span]) {
    // CAST: At most 64.
    let count = spans.len() as u32;
    // SAFETY: A C string, and `count` spans, which are only read.
    unsafe { nullhz_mmu_batch_trace_flush_begin(device.as_char_ptr(), spans.as_ptr(), count) };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_flush_end`.
pub(crate) fn trace_flush_end(device: &CStr, round: &Round) {
    // SAFETY: A C string; the rest are numbers.
    unsafe {
        nullhz_mmu_batch_trace_flush_end(
            device.as_char_ptr(),
            round.generation,
            round.tickets,
            // CAST: At most 64.
            round.spans as u32,
            round.windowed,
            round.resets,
        )
    };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_wait`.
pub(crate) fn trace_wait(device: &CStr, ticket: Ticket, led: bool) {
    // SAFETY: A C string; the rest are numbers.
    unsafe { nullhz_mmu_batch_trace_wait(device.as_char_ptr(), ticket.into_raw(), led) };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_defer`.
pub(crate) fn trace_defer(device: &CStr, span: &Span, pages: u64, ticket: Ticket) {
    // SAFETY: A C string and a span, which are only read.
    unsafe { nullhz_mmu_batch_trace_defer(device.as_char_ptr(), span, pages, ticket.into_raw()) };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_drain`.
pub(crate) fn trace_drain(device: &CStr, cause: Cause, unmaps: usize, pages: u64) {
    // SAFETY: A C string; the rest are numbers.
    unsafe {
        nullhz_mmu_batch_trace_drain(device.as_char_ptr(), cause as u32, unmaps as u64, pages)
    };
}

/// Fires `nullhz_mmu_batch:nullhz_mmu_batch_reset`.
pub(crate) fn trace_reset(device: &CStr, result: Result) {
    let error = result.map_or_else(Error::to_errno, |()| 0);
    // SAFETY: A C string and a number.
    unsafe { nullhz_mmu_batch_trace_reset(device.as_char_ptr(), error) };
}

/// A reference to a module, or to none.
pub(crate) struct Module(*mut c_void);

// SAFETY: A reference belongs to nobody in particular, and is only ever given back.
unsafe impl Send for Module {}
// SAFETY: There is nothing that can be done with a shared one.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: The reference was taken in `Hardware::module()`.
        unsafe { nullhz_mmu_batch_module_put(self.0) };
    }
}

/// A driver's functions for its device.
///
/// # Invariants
///
/// `ops` is valid for reads, and its functions may be called with `driver`, for as long as this
/// exists. `flush` and `reset` of it are there.
pub(crate) struct Hardware {
    ops: NonNull<abi::DeviceOps>,
    driver: *mut c_void,
}

// SAFETY: A driver's functions may be called in any thread.
unsafe impl Send for Hardware {}
// SAFETY: One at a time, which is up to the lead of the device, not to this type; the driver is
// told so, and C has no other means.
unsafe impl Sync for Hardware {}

impl Hardware {
    /// [`EINVAL`] for missing functions.
    ///
    /// # Safety
    ///
    /// `ops` is null, or as the type's invariants demand.
    pub(crate) unsafe fn new(ops: *const abi::DeviceOps, driver: *mut c_void) -> Result<Self> {
        let ops = NonNull::new(ops.cast_mut()).ok_or(EINVAL)?;
        // INVARIANT: As demanded of the caller; the functions are looked at here.
        let this = Self { ops, driver };
        match this.ops() {
            abi::DeviceOps {
                flush: Some(_),
                reset: Some(_),
                ..
            } => Ok(this),
            _ => Err(EINVAL),
        }
    }

    fn ops(&self) -> &abi::DeviceOps {
        // SAFETY: Valid for reads by the type's invariant.
        unsafe { self.ops.as_ref() }
    }

    /// Keeps the driver from being unloaded. [`ENODEV`] if it is already.
    pub(crate) fn module(&self) -> Result<Module> {
        let owner = self.ops().owner;
        // SAFETY: The driver's module, or null; it is there, since it calls us.
        match unsafe { nullhz_mmu_batch_module_get(owner) } {
            true => Ok(Module(owner)),
            false => Err(ENODEV),
        }
    }

    /// Throws `spans` out of the TLB, everything if there are none. May sleep; called with the
    /// lead of the device.
    pub(crate) fn flush(&self, spans: &[Span]) -> Result {
        let flush = self.ops().flush.ok_or(EINVAL)?;
        // CAST: At most 64.
        let count = spans.len() as u32;
        // SAFETY: May be called with `driver` by the type's invariant; the spans outlive the call.
        to_result(unsafe { flush(self.driver, spans.as_ptr(), count) })
    }

    /// Makes all translations unusable. May sleep; called with the lead of the device.
    pub(crate) fn reset(&self) -> Result {
        let reset = self.ops().reset.ok_or(EINVAL)?;
        // SAFETY: May be called with `driver` by the type's invariant.
        to_result(unsafe { reset(self.driver) })
    }
}

global_lock! {
    // SAFETY: The module's initialiser calls `Names::new()` before it succeeds; nobody can call
    // the exported functions before that.
    unsafe(uninit) static NAMES: Mutex<KVec<CString>> = KVec::new();
}

/// The names of all devices, as long as this exists.
pub(crate) struct Names(());

impl Names {
    /// # Safety
    ///
    /// Called once at most while the module is loaded.
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: Once at most, as demanded of the caller.
        unsafe { NAMES.init() };
        Self(())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // Devices hold the module through its symbols: there are none left.
        *NAMES.lock() = KVec::new();
    }
}

/// A name that no other device has.
pub(crate) struct Reserved(CString);

impl Reserved {
    /// [`EEXIST`] if another device has it.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        let mut names = NAMES.lock();
        if names.iter().any(|other| **other == *name) {
            return Err(EEXIST);
        }
        // Nothing can fail once it is in the list.
        let own = CString::try_from(name)?;
        names.push(CString::try_from(name)?, GFP_KERNEL)?;
        Ok(Self(own))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        NAMES.lock().retain(|name| **name != *self.0);
    }
}

/// A driver's functions for an interval.
///
/// # Invariants
///
/// `ops` is valid for reads, and its functions may be called with `driver`, for as long as this
/// exists. `zap` of it is there, or `start`.
pub(crate) struct Driver {
    ops: NonNull<abi::IntervalOps>,
    driver: *mut c_void,
}

// SAFETY: A driver's functions may be called in any thread.
unsafe impl Send for Driver {}
// SAFETY: And in several at a time, as `nullhz/mmu_batch.h` says.
unsafe impl Sync for Driver {}

/// A call of a driver's `start()` or `finish()`, which calls us back with the event.
pub(crate) struct Call<'a> {
    pub(crate) device: &'a Device,
    /// Only in `start()`.
    pub(crate) hit: Option<&'a Hit<'a>>,
    pub(crate) blockable: bool,
    /// After `nullhz_mmu_batch_event_lock()`.
    pub(crate) locked: Option<(Locked<'a>, Zap)>,
    /// After `nullhz_mmu_batch_event_zapped()`.
    pub(crate) left: Left,
}

fn event(span: &Span, kind: u32, blockable: bool, state: *mut c_void) -> abi::Event {
    abi::Event {
        start: span.start,
        end: span.end,
        kind,
        blockable: blockable.into(),
        pad: [0; 3],
        state,
    }
}

impl Driver {
    /// [`EINVAL`] for missing functions.
    ///
    /// # Safety
    ///
    /// `ops` is null, or as the type's invariants demand.
    pub(crate) unsafe fn new(ops: *const abi::IntervalOps, driver: *mut c_void) -> Result<Self> {
        let ops = NonNull::new(ops.cast_mut()).ok_or(EINVAL)?;
        // INVARIANT: As demanded of the caller; the functions are looked at here.
        let this = Self { ops, driver };
        match this.ops() {
            abi::IntervalOps { zap: Some(_), .. } | abi::IntervalOps { start: Some(_), .. } => {
                Ok(this)
            }
            _ => Err(EINVAL),
        }
    }

    fn ops(&self) -> &abi::IntervalOps {
        // SAFETY: Valid for reads by the type's invariant.
        unsafe { self.ops.as_ref() }
    }

    /// Whether its intervals need no callbacks of their own: there is nothing to do but to zap.
    pub(crate) fn only_zaps(&self) -> bool {
        let ops = self.ops();
        ops.zap.is_some() && ops.flushed.is_none() && ops.finish.is_none()
    }

    /// Has it zap `span`, with the lock of the space held; whether anything was there.
    pub(crate) fn zap(&self, span: &Span, kind: u32) -> bool {
        // Without an answer, the worst.
        self.ops().zap.is_none_or(|zap| {
            let event = event(span, kind, true, core::ptr::null_mut());
            // SAFETY: May be called with `driver` by the type's invariant, with the lock held.
            unsafe { zap(self.driver, &event) }
        })
    }

    /// Whether it has anything in `span`. With the lock of the space held; does not sleep.
    pub(crate) fn live(&self, span: &Span, kind: u32) -> bool {
        self.ops().live.is_none_or(|live| {
            let event = event(span, kind, false, core::ptr::null_mut());
            // SAFETY: May be called with `driver` by the type's invariant, with the lock held.
            unsafe { live(self.driver, &event) }
        })
    }

    /// The first pass of an event that may block: what the second one waits for, if there has to
    /// be one.
    pub(crate) fn start(&self, hit: &Hit<'_>) -> Option<Ticket> {
        let ops = self.ops();
        let only_waits = ops.finish.is_none() && ops.flushed.is_none();
        let left = match ops.zap {
            Some(_) => {
                let (mut locked, begun) = hit.lock();
                hit.count(&mut locked);
                let live = self.zap(&hit.span, hit.kind);
                match ops.finish {
                    None => hit.zapped_and_waits(locked, begun, live),
                    Some(_) => hit.zapped(locked, begun, live),
                }
            }
            None => self.call_start(hit, true).1,
        };
        match left {
            Left::Nothing => None,
            Left::Flushed => {
                self.flushed(&hit.span, hit.kind);
                None
            }
            Left::Same(_) if only_waits => None,
            // Also if it is finished by now: the driver has still to hear of it.
            Left::Wait(ticket) | Left::Same(ticket) => Some(ticket),
        }
    }

    /// The only pass of an event that must not block: whether there is nothing to flush. Does not
    /// sleep.
    pub(crate) fn try_start(&self, hit: &Hit<'_>) -> bool {
        if self.ops().zap.is_none() {
            return self.call_start(hit, false).0;
        }
        let Some((mut locked, _)) = hit.try_lock() else {
            return false;
        };
        hit.count(&mut locked);
        !self.live(&hit.span, hit.kind) && !hit.in_flight(&locked)
    }

    /// Calls `start()`: what it says, and what is left to do after it.
    fn call_start(&self, hit: &Hit<'_>, blockable: bool) -> (bool, Left) {
        let mut call = Call {
            device: hit.space.device(),
            hit: Some(hit),
            blockable,
            locked: None,
            left: Left::Nothing,
        };
        let state = (&raw mut call).cast();
        let mut event = event(&hit.span, hit.kind, blockable, state);
        let done = self.ops().start.is_some_and(|start| {
            // SAFETY: May be called with `driver` by the type's invariant; the event and what it
            // refers to outlive the call.
            unsafe { start(self.driver, &mut event) }
        });
        (done, call.left)
    }

    /// The second pass: returns after `ticket` is finished.
    pub(crate) fn finish(&self, device: &Device, ticket: Ticket, span: &Span, kind: u32) {
        if let Some(finish) = self.ops().finish {
            let mut call = Call {
                device,
                hit: None,
                blockable: true,
                locked: None,
                left: Left::Wait(ticket),
            };
            let mut event = event(span, kind, true, (&raw mut call).cast());
            // SAFETY: May be called with `driver` by the type's invariant; the event and what it
            // refers to outlive the call.
            unsafe { finish(self.driver, &mut event) };
        }
        device.wait(ticket);
        self.flushed(span, kind);
    }

    /// Tells the driver that it has been flushed.
    fn flushed(&self, span: &Span, kind: u32) {
        if let Some(flushed) = self.ops().flushed {
            let event = event(span, kind, true, core::ptr::null_mut());
            // SAFETY: May be called with `driver` by the type's invariant.
            unsafe { flushed(self.driver, &event) };
        }
    }
}

/// What the kernel calls an interval that shares a notifier: one that is not inserted, and has a
/// sequence all the same, so that a reader begins again for what happens in its interval, and not
/// for what happens to others of the notifier.
///
/// `mmu_interval_read_begin()`, `mmu_interval_read_retry()` and `hmm_range_fault()` use nothing of
/// a notifier but `mm` and `invalidate_seq` (mm/mmu_notifier.c, include/linux/mmu_notifier.h,
/// mm/hmm.c). What an event's callback sets is the same for all notifiers of an address space.
///
/// # Invariants
///
/// `mm` of the notifier is that of `shared`, which is inserted.
pub(crate) struct Sequence {
    notifier: Opaque<bindings::mmu_interval_notifier>,
    shared: Arc<Registered>,
}

// SAFETY: After it was made, only `invalidate_seq` is written, which is done as the kernel does it,
// from any thread.
unsafe impl Send for Sequence {}
// SAFETY: As above.
unsafe impl Sync for Sequence {}

impl Sequence {
    /// Of an interval at `range`, which is not empty, in what `shared` watches.
    pub(crate) fn new(shared: Arc<Registered>, range: &Range<u64>) -> Self {
        let notifier = bindings::mmu_interval_notifier {
            mm: shared.mm().as_raw(),
            invalidate_seq: Self::of(&shared),
            interval_tree: bindings::interval_tree_node {
                start: range.start as usize,
                last: range.end.saturating_sub(1) as usize,
                ..Default::default()
            },
            ..Default::default()
        };
        // INVARIANT: Set above; what `shared` refers to is inserted until it is dropped.
        Self {
            notifier: Opaque::new(notifier),
            shared,
        }
    }

    /// That of the shared notifier.
    fn of(shared: &NotifierRef) -> usize {
        let shared = shared.as_raw();
        // SAFETY: It is inserted. The sequence may change, by events that are under way at the
        // same time, which all have the same one.
        unsafe { (&raw const (*shared).invalidate_seq).read_volatile() }
    }

    /// An event is under way in the interval, or may be: what was read before is out of date.
    /// Called with the lock of the space held.
    pub(crate) fn follow(&self) {
        let sequence = Self::of(&self.shared);
        // SAFETY: Our own notifier; the lock that readers have to hold is held.
        unsafe { bindings::mmu_interval_set_seq(self.notifier.get(), sequence) };
    }

    /// For readers.
    pub(crate) fn notifier(&self) -> &NotifierRef {
        // SAFETY: All that readers use is initialised, and as if it were inserted: see above. It
        // stays where it is, since this is shared.
        unsafe { NotifierRef::from_raw(self.notifier.get()) }
    }
}

/// An unmap that the driver wants.
///
/// # Invariants
///
/// It is valid for reads, and its functions may be called, until `release` was. Both are there.
pub(crate) struct Deferred(NonNull<abi::Unmap>);

// SAFETY: A driver's functions may be called in any thread.
unsafe impl Send for Deferred {}

impl Deferred {
    /// [`EINVAL`] for missing functions or an empty range.
    ///
    /// # Safety
    ///
    /// `unmap` is null, or as the type's invariants demand.
    pub(crate) unsafe fn new(unmap: *mut abi::Unmap) -> Result<Self> {
        let unmap = NonNull::new(unmap).ok_or(EINVAL)?;
        // INVARIANT: As demanded of the caller; the functions are looked at here.
        let this = Self(unmap);
        match this.raw() {
            abi::Unmap {
                start,
                end,
                zap: Some(_),
                release: Some(_),
                ..
            } if start < end => Ok(this),
            _ => Err(EINVAL),
        }
    }

    fn raw(&self) -> &abi::Unmap {
        // SAFETY: Valid for reads by the type's invariant: `release()` consumes `self`.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.raw().start..self.raw().end
    }

    pub(crate) fn pages(&self) -> u64 {
        self.raw().pages
    }

    /// Calls the driver, with the lock of the space held; whether anything was there.
    pub(crate) fn zap(&self) -> bool {
        // Never missing; if it were, then something might have been there.
        self.raw().zap.is_none_or(|zap| {
            // SAFETY: May be called by the type's invariant.
            unsafe { zap(self.0.as_ptr()) }
        })
    }

    /// Has the driver give back pages and addresses, and the unmap with them.
    pub(crate) fn release(self) {
        if let Some(release) = self.raw().release {
            // SAFETY: May be called by the type's invariant, and is once, as `self` is consumed.
            unsafe { release(self.0.as_ptr()) };
        }
    }
}
