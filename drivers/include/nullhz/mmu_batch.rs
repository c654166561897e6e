// SPDX-License-Identifier: GPL-2.0

//! Batched invalidation of secondary TLBs, for drivers written in Rust.
//!
//! Safe wrapper of `drivers/include/nullhz/mmu_batch.h`, which explains the words. External modules
//! share no Rust metadata, so each driver includes this file:
//!
//! ```ignore
//! #[path = "../../drivers/include/nullhz/mmu_batch.rs"]
//! mod mmu_batch;
//!
//! impl ZapOps for Mapping {
//!     type Shadow = PageTable;
//!
//!     fn zap(&self, table: &mut PageTable, range: Range<u64>) -> Live {
//!         table.clear(range)
//!     }
//!
//!     fn live(&self, table: &PageTable, range: Range<u64>) -> Live {
//!         table.any(range)
//!     }
//! }
//!
//! let device = Device::register(c"gpu0", &THIS_MODULE, gpu, None)?;
//! let space = Space::new(device, mm, pasid, PageTable::new())?;
//! let interval = Interval::new(&space, start..end, Zaps(Mapping::new()))?;
//! ```
//!
//! A driver that has more to do in a callback than to zap implements [`IntervalOps`] instead.
//! `drivers/mmu_batch/porting.md` leads through it.

// Each driver uses its own part, and keeps it to itself.
#![allow(dead_code, unreachable_pub, unused_imports)]

use core::{
    cell::UnsafeCell,
    marker::{PhantomData, PhantomPinned},
    num::NonZero,
    ops::{Deref, DerefMut},
    ptr::NonNull, //
};
use kernel::{
    error::{from_err_ptr, from_result},
    ffi::{c_char, c_int, c_void},
    mm::{interval::Sequence, MmWithUser},
    prelude::*,
    sync::Arc,
    types::NotThreadSafe,
};

#[path = "../../mmu_batch/abi.rs"]
mod abi;
#[path = "mmu_batch/interval.rs"]
mod interval;
#[path = "mmu_batch/place.rs"]
mod place;
#[path = "../../mmu_batch/spans.rs"]
mod spans;
#[path = "../../mmu_batch/typestate.rs"]
mod typestate;

pub use interval::{Callbacks, Interval};
pub use spans::Span;
pub use typestate::{
    Blockable, DriverUnmap, Event, Flushed, Guard, IntervalOps, Lease, Live, NonBlockable, Pages,
    Pass1, Peek, Queue, Ticket, ZapOps, Zapped, Zaps,
};

/// Opaque structures of the C header.
macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            #[repr(C)]
            struct $name {
                _opaque: [u8; 0],
                _pin: PhantomData<(*mut u8, PhantomPinned)>,
            }
        )*
    };
}

opaque! { RawDevice RawSpace RawInterval }

extern "C" {
    fn nullhz_mmu_batch_device_register(
        name: *const c_char,
        ops: *const abi::DeviceOps,
        driver: *mut c_void,
        pgmap_owner: *const c_void,
    ) -> *mut RawDevice;
    fn nullhz_mmu_batch_device_unregister(device: *mut RawDevice);
    fn nullhz_mmu_batch_space_create(
        device: *mut RawDevice,
        mm: *mut c_void,
        tag: u64,
    ) -> *mut RawSpace;
    fn nullhz_mmu_batch_space_destroy(space: *mut RawSpace);
    fn nullhz_mmu_batch_space_lock(space: *mut RawSpace);
    fn nullhz_mmu_batch_space_unlock(space: *mut RawSpace);
    fn nullhz_mmu_batch_interval_insert(
        space: *mut RawSpace,
        start: u64,
        length: u64,
        ops: *const abi::IntervalOps,
        driver: *mut c_void,
    ) -> *mut RawInterval;
    fn nullhz_mmu_batch_interval_remove(interval: *mut RawInterval);
    fn nullhz_mmu_batch_interval_notifier(interval: *mut RawInterval) -> *mut c_void;
    fn nullhz_mmu_batch_defer(space: *mut RawSpace, unmap: *mut abi::Unmap) -> c_int;
    fn nullhz_mmu_batch_drain(space: *mut RawSpace, cause: u32);
    fn nullhz_mmu_batch_event_lock(event: *mut abi::Event) -> bool;
    fn nullhz_mmu_batch_event_unlock(event: *mut abi::Event);
    fn nullhz_mmu_batch_event_zapped(event: *mut abi::Event, live: bool) -> bool;
    fn nullhz_mmu_batch_event_in_flight(event: *mut abi::Event) -> bool;
    fn nullhz_mmu_batch_event_wait(event: *mut abi::Event);
}

/// What is to be flushed.
#[derive(Clone, Copy, Debug)]
pub enum Flush<'a> {
    /// All translations of all spaces.
    All,
    /// Those of these spans, which are sorted by tag and start, and do not touch.
    Spans(&'a [Span]),
}

/// What a driver does for its device.
pub trait DeviceOps: Send + Sync + 'static {
    /// Throws translations out of the TLB. Returns after the device has acknowledged it, and no
    /// walk of a page table that was under way is going to fill the TLB any more; any error when
    /// it does not answer.
    ///
    /// Process context, one at a time, may sleep; must not allocate memory that has to be
    /// reclaimed (`GFP_KERNEL`), nor take a lock that is held around such an allocation.
    fn flush(&self, flush: Flush<'_>) -> Result;

    /// Makes all translations unusable after a flush has failed: stops the device, cuts it off, or
    /// resets it. After an error it is asked again, less and less often; nobody goes on until then.
    ///
    /// Context as [`flush()`](Self::flush).
    fn reset(&self) -> Result;
}

/// A secondary TLB that is registered; unregistered when dropped.
///
/// # Invariants
///
/// `raw` is a device that was registered with `ops`, which belongs to `driver`.
#[pin_data(PinnedDrop)]
pub struct Device<D: DeviceOps> {
    raw: NonNull<RawDevice>,
    ops: abi::DeviceOps,
    #[pin]
    driver: D,
    /// The library has the addresses of the two above.
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A device may be unregistered by another thread than the one that registered it; `D` is
// `Send`.
unsafe impl<D: DeviceOps> Send for Device<D> {}
// SAFETY: The library serialises what is done with a device; `D` is `Sync`.
unsafe impl<D: DeviceOps> Sync for Device<D> {}

impl<D: DeviceOps> Device<D> {
    /// Announces a device; `name` is of its folder in sysfs,
    /// `/sys/devices/faux/nullhz_mmu_batch.<name>/`: letters, digits, `-`, `_` and `.`, at most 31.
    /// Events of migrations of `pgmap_owner` are the driver's own, and not delivered.
    ///
    /// Process context, may sleep. Errors: [`EINVAL`] for a bad name, [`EEXIST`] if there is a
    /// device of that name, [`ENOMEM`], those of `driver`.
    pub fn register<E>(
        name: &CStr,
        module: &'static ThisModule,
        driver: impl PinInit<D, E>,
        pgmap_owner: Option<NonZero<usize>>,
    ) -> Result<Arc<Self>>
    where
        Error: From<E>,
    {
        let owner = pgmap_owner.map_or(0, NonZero::get);
        Arc::pin_init::<Error>(
            try_pin_init!(&this in Self {
                driver <- driver,
                ops: abi::DeviceOps {
                    owner: module.as_ptr().cast(),
                    flush: Some(flush::<D>),
                    reset: Some(reset::<D>),
                },
                _pin: PhantomPinned,
                raw: {
                    let this = this.as_ptr();
                    // SAFETY: `name` is a C string, and copied. `ops` and `driver` were initialised
                    // above, stay where they are, and are dropped after the device is
                    // unregistered; the functions take a `D`.
                    let raw = unsafe {
                        nullhz_mmu_batch_device_register(
                            name.as_char_ptr(),
                            &raw const (*this).ops,
                            (&raw mut (*this).driver).cast(),
                            core::ptr::without_provenance(owner),
                        )
                    };
                    NonNull::new(from_err_ptr(raw)?).ok_or(ENOMEM)?
                },
            }? Error),
            GFP_KERNEL,
        )
    }
}

impl<D: DeviceOps> Deref for Device<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.driver
    }
}

#[pinned_drop]
impl<D: DeviceOps> PinnedDrop for Device<D> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the type's invariant, and not used after this.
        unsafe { nullhz_mmu_batch_device_unregister(self.raw.as_ptr()) };
    }
}

/// # Safety
///
/// `driver` is a `D`; `spans` is valid for reads of `count` spans.
unsafe extern "C" fn flush<D: DeviceOps>(
    driver: *mut c_void,
    spans: *const Span,
    count: u32,
) -> c_int {
    // SAFETY: As demanded of the caller.
    let driver = unsafe { &*driver.cast::<D>() };
    let flush = match count {
        0 => Flush::All,
        // SAFETY: As demanded of the caller.
        count => Flush::Spans(unsafe { core::slice::from_raw_parts(spans, count as usize) }),
    };
    from_result(|| driver.flush(flush).map(|()| 0))
}

/// # Safety
///
/// `driver` is a `D`.
unsafe extern "C" fn reset<D: DeviceOps>(driver: *mut c_void) -> c_int {
    // SAFETY: As demanded of the caller.
    let driver = unsafe { &*driver.cast::<D>() };
    from_result(|| driver.reset().map(|()| 0))
}

/// A device, whatever its driver is.
trait AnyDevice: Send + Sync {}
impl<D: DeviceOps> AnyDevice for Device<D> {}

/// Why deferred unmaps must be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Work is about to be given to the device that must not see what was unmapped.
    Submit = 0,
    /// The addresses or the pages are wanted.
    Reuse = 1,
}

/// The memory of a process as a device sees it, with the driver's page table for it.
///
/// # Invariants
///
/// `raw` is a space. `shadow` is only accessed with its lock held.
pub struct Space<S: Send + 'static> {
    raw: NonNull<RawSpace>,
    shadow: UnsafeCell<S>,
    _device: Arc<dyn AnyDevice>,
}

// SAFETY: A space may be destroyed by another thread than the one that made it; `S` is `Send`.
unsafe impl<S: Send> Send for Space<S> {}
// SAFETY: The lock lets one thread at a time have the page table, which is `Send`.
unsafe impl<S: Send> Sync for Space<S> {}

impl<S: Send + 'static> Space<S> {
    /// Lets `device` see the memory of `mm`, which the space does not keep alive. Flushes call it
    /// `tag` (PASID, ASID, VMID). `shadow` is the driver's page table, and what belongs to it.
    ///
    /// Process context, may sleep. Errors: [`ENODEV`] if the driver is being unloaded, [`ENOMEM`].
    pub fn new<D: DeviceOps>(
        device: Arc<Device<D>>,
        mm: &MmWithUser,
        tag: u64,
        shadow: S,
    ) -> Result<Arc<Self>> {
        // SAFETY: The device is registered by its type's invariant, and `mm` has users.
        let raw =
            unsafe { nullhz_mmu_batch_space_create(device.raw.as_ptr(), mm.as_raw().cast(), tag) };
        let raw = NonNull::new(from_err_ptr(raw)?).ok_or(ENOMEM)?;
        // INVARIANT: Created just now. If there is no memory for the rest it is dropped, and
        // destroyed with it.
        let space = Self {
            raw,
            shadow: UnsafeCell::new(shadow),
            _device: device,
        };
        Ok(Arc::new(space, GFP_KERNEL)?)
    }

    /// Keeps zaps out while translations are put into the page table. May sleep.
    ///
    /// Not in a callback, whose event has the lock; memory that has to be reclaimed must not be
    /// allocated under it.
    pub fn lock(&self) -> Shadow<'_, S> {
        // SAFETY: A space by the type's invariant.
        unsafe { nullhz_mmu_batch_space_lock(self.raw.as_ptr()) };
        Shadow {
            space: self,
            _thread: NotThreadSafe,
        }
    }

    /// When it returns, all unmaps that were deferred before it was called have been flushed, and
    /// their pages and leases dropped.
    ///
    /// Process context, may sleep; without the lock, not in a callback.
    pub fn drain(&self, cause: Cause) {
        // SAFETY: A space by the type's invariant.
        unsafe { nullhz_mmu_batch_drain(self.raw.as_ptr(), cause as u32) };
    }
}

impl<S: Send> Drop for Space<S> {
    fn drop(&mut self) {
        // SAFETY: A space by the type's invariant, and not used after this. Its intervals hold
        // references, and are gone.
        unsafe { nullhz_mmu_batch_space_destroy(self.raw.as_ptr()) };
    }
}

/// The page table of a space, locked.
pub struct Shadow<'a, S: Send + 'static> {
    space: &'a Space<S>,
    /// A mutex is unlocked by who has locked it.
    _thread: NotThreadSafe,
}

impl<S: Send> Shadow<'_, S> {
    /// Whether something has changed in the range of `interval` since `seq` was obtained: then
    /// nothing may be put into the page table, and everything begins again. So it does if
    /// `interval` is of another space.
    #[must_use]
    pub fn retry<O: Callbacks<Shadow = S>>(&self, interval: &Interval<O>, seq: Sequence) -> bool {
        let of_this = core::ptr::eq(&raw const **interval.space(), self.space);
        !of_this || interval.notifier().read_retry(seq)
    }
}

impl<S: Send> Deref for Shadow<'_, S> {
    type Target = S;

    fn deref(&self) -> &S {
        // SAFETY: The lock is held, and nobody else has the page table.
        unsafe { &*self.space.shadow.get() }
    }
}

impl<S: Send> DerefMut for Shadow<'_, S> {
    fn deref_mut(&mut self) -> &mut S {
        // SAFETY: The lock is held, and nobody else has the page table.
        unsafe { &mut *self.space.shadow.get() }
    }
}

impl<S: Send> Drop for Shadow<'_, S> {
    fn drop(&mut self) {
        // SAFETY: Locked when this was made, by the same thread.
        unsafe { nullhz_mmu_batch_space_unlock(self.space.raw.as_ptr()) };
    }
}
