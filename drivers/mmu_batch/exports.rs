// SPDX-License-Identifier: GPL-2.0

//! The functions that drivers call; `drivers/include/nullhz/mmu_batch.h` documents them, and
//! `exports.c` exports them.

use crate::abi;
use crate::device::Registered as Device;
use crate::ffi::{Call, Deferred, Driver, Hardware};
use crate::gather::Cause;
use crate::interval::Interval;
use crate::space::{Left, Space};
use core::{num::NonZero, ptr::null_mut};
use kernel::{
    bindings,
    error::from_result,
    ffi::{c_char, c_int, c_void},
    mm::{interval::Owner, MmWithUser},
    prelude::*,
    sync::{lock::Guard, ArcBorrow},
};

/// Whether `pointer` is one that a function of this file has given out, and no error.
fn is_handle<T>(pointer: *const T) -> bool {
    // `IS_ERR_OR_NULL()`: the last 4095 addresses are no memory.
    !pointer.is_null() && pointer.addr() < 4095usize.wrapping_neg()
}

/// Gives a pinned box away.
fn give<T>(result: Result<Pin<KBox<T>>>) -> *mut T {
    match result {
        // SAFETY: Whoever has the pointer does not move what is behind it; `take()` pins it again.
        Ok(pinned) => KBox::into_raw(unsafe { Pin::into_inner_unchecked(pinned) }),
        Err(error) => error.to_ptr(),
    }
}

/// Takes back what was given away with [`give()`].
///
/// # Safety
///
/// `pointer` came from [`give()`], and nobody uses it any more.
unsafe fn take<T>(pointer: *mut T) -> Pin<KBox<T>> {
    // SAFETY: From `KBox::into_raw()` of a pinned box, by the function's contract.
    KBox::into_pin(unsafe { KBox::from_raw(pointer) })
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `name` is null or a C string; `ops` is null, or stays valid until the device is unregistered.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_device_register(
    name: *const c_char,
    ops: *const abi::DeviceOps,
    driver: *mut c_void,
    pgmap_owner: *const c_void,
) -> *mut Device {
    if name.is_null() {
        return EINVAL.to_ptr();
    }
    // SAFETY: Not null, so a C string during the call, by the function's contract.
    let name = unsafe { CStr::from_char_ptr(name) };
    let owner = NonZero::new(pgmap_owner.addr()).map(Owner::from_addr);
    // SAFETY: As demanded of the caller.
    let hardware = unsafe { Hardware::new(ops, driver) };
    give(hardware.and_then(|hardware| Device::new(name, hardware, owner)))
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `device` is null, an error pointer, or a registered device that nobody else unregisters.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_device_unregister(device: *mut Device) {
    if is_handle(device) {
        // SAFETY: From `nullhz_mmu_batch_device_register()`, by the function's contract.
        drop(unsafe { take(device) });
    }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `device` is null, an error pointer or a registered device; `mm` is null, or has users during the
/// call.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_space_create(
    device: *mut Device,
    mm: *mut bindings::mm_struct,
    tag: u64,
) -> *mut Space {
    if !is_handle(device) || mm.is_null() {
        return EINVAL.to_ptr();
    }
    // SAFETY: A registered device, by the function's contract.
    let device = unsafe { &*device }.device().clone();
    // SAFETY: Not null, so it has users during the call, by the function's contract.
    let mm = unsafe { MmWithUser::from_raw(mm) };
    match Space::new(device, mm, tag) {
        Ok(space) => space.into_raw().cast_mut(),
        Err(error) => error.to_ptr(),
    }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is null, an error pointer, or a space without intervals that nobody uses any more.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_space_destroy(space: *mut Space) {
    if is_handle(space) {
        // SAFETY: From `Arc::into_raw()` in `nullhz_mmu_batch_space_create()`, by the function's
        // contract.
        let space = unsafe { kernel::sync::Arc::from_raw(space) };
        space.device().drain(Cause::Release);
    }
}

/// A space that some function was called with.
///
/// # Safety
///
/// `space` is one that is not destroyed during `'a`.
unsafe fn borrow<'a>(space: *mut Space) -> ArcBorrow<'a, Space> {
    // SAFETY: From `Arc::into_raw()`, which still holds it, by the function's contract.
    unsafe { ArcBorrow::from_raw(space) }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is a space.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_space_lock(space: *mut Space) {
    // SAFETY: As demanded of the caller.
    let space = unsafe { borrow(space) };
    // `nullhz_mmu_batch_space_unlock()` makes a guard of it again.
    core::mem::forget(space.lock());
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is a space whose lock the caller has from [`nullhz_mmu_batch_space_lock()`].
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_space_unlock(space: *mut Space) {
    // SAFETY: As demanded of the caller.
    let space = unsafe { borrow(space) };
    // SAFETY: The caller has the lock, whose guard was forgotten.
    drop(unsafe { Guard::new(space.raw_lock(), ()) });
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is null, an error pointer or a space; `ops` is null, or stays valid until the interval
/// is removed.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_interval_insert(
    space: *mut Space,
    start: u64,
    length: u64,
    ops: *const abi::IntervalOps,
    driver: *mut c_void,
) -> *mut Interval {
    if !is_handle(space) {
        return EINVAL.to_ptr();
    }
    // SAFETY: A space, by the function's contract.
    let space = unsafe { borrow(space) }.into();
    // SAFETY: As demanded of the caller.
    give(unsafe { Driver::new(ops, driver) }.and_then(|driver| {
        let end = start.checked_add(length).ok_or(EINVAL)?;
        Interval::insert(space, start as usize..end as usize, driver)
    }))
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `interval` is null, an error pointer, or an interval that nobody uses any more.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_interval_remove(interval: *mut Interval) {
    if is_handle(interval) {
        // SAFETY: From `nullhz_mmu_batch_interval_insert()`, by the function's contract.
        let interval = unsafe { take(interval) };
        KBox::into_inner(Pin::into_inner(interval)).remove();
    }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `interval` is null, an error pointer, or an interval.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_interval_notifier(
    interval: *mut Interval,
) -> *mut bindings::mmu_interval_notifier {
    if !is_handle(interval) {
        return null_mut();
    }
    // SAFETY: An interval, by the function's contract.
    unsafe { &*interval }.notifier().as_raw()
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is null, an error pointer or a space; `unmap` is null, or stays valid until its
/// `release()` was called.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_defer(space: *mut Space, unmap: *mut abi::Unmap) -> c_int {
    from_result(|| {
        if !is_handle(space) {
            return Err(EINVAL);
        }
        // SAFETY: As demanded of the caller.
        let deferred = unsafe { Deferred::new(unmap) }?;
        // SAFETY: A space, by the function's contract.
        unsafe { borrow(space) }.defer(deferred);
        Ok(0)
    })
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// `space` is null, an error pointer or a space.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_drain(space: *mut Space, cause: u32) {
    if is_handle(space) {
        let cause = match cause {
            0 => Cause::Submit,
            _ => Cause::Reuse,
        };
        // SAFETY: A space, by the function's contract.
        unsafe { borrow(space) }.device().drain(cause);
    }
}

/// What belongs to the event of a call of `start()` or `finish()`.
///
/// # Safety
///
/// `event` is the one that the driver's function was called with, which has not returned yet, and
/// nothing else that this has returned for it is in use.
unsafe fn call<'a>(event: *mut abi::Event) -> &'a mut Call<'a> {
    // SAFETY: `Driver` made it, and its state a `Call`, which both outlive the driver's function.
    unsafe { &mut *(*event).state.cast::<Call<'a>>() }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// As [`call()`], of `start()`; the lock is not held.
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_event_lock(event: *mut abi::Event) -> bool {
    // SAFETY: As demanded of the caller.
    let call = unsafe { call(event) };
    let Some(hit) = call.hit else {
        return false;
    };
    call.locked = match call.blockable {
        true => Some(hit.lock()),
        false => hit.try_lock(),
    };
    if let Some((locked, _)) = &mut call.locked {
        hit.count(locked);
    }
    call.locked.is_some()
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// As [`call()`].
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_event_unlock(event: *mut abi::Event) {
    // SAFETY: As demanded of the caller.
    drop(unsafe { call(event) }.locked.take());
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// As [`call()`].
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_event_zapped(event: *mut abi::Event, live: bool) -> bool {
    // SAFETY: As demanded of the caller.
    let call = unsafe { call(event) };
    if let (Some(hit), Some((locked, zap))) = (call.hit, call.locked.take()) {
        call.left = hit.zapped(locked, zap, live);
    }
    call.left.ticket().is_some()
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// As [`call()`].
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_event_in_flight(event: *mut abi::Event) -> bool {
    // SAFETY: As demanded of the caller.
    let call = unsafe { call(event) };
    match (call.hit, &call.locked) {
        (Some(hit), Some((locked, _))) => hit.in_flight(locked),
        _ => true,
    }
}

/// See `drivers/include/nullhz/mmu_batch.h`.
///
/// # Safety
///
/// As [`call()`].
#[no_mangle]
unsafe extern "C" fn nullhz_mmu_batch_event_wait(event: *mut abi::Event) {
    // SAFETY: As demanded of the caller.
    let call = unsafe { call(event) };
    if let Some(ticket) = call.left.ticket() {
        call.device.wait(ticket);
        call.left = Left::Flushed;
    }
}
