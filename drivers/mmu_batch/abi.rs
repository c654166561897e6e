// SPDX-License-Identifier: GPL-2.0

//! Layouts of `drivers/include/nullhz/mmu_batch.h`, shared by the library and by
//! `drivers/include/nullhz/mmu_batch.rs`. `exports.c` asserts the same of the C ones.

use super::spans::Span;
use core::{
    ffi::{c_int, c_void},
    mem::{offset_of, size_of}, //
};

/// Bytes of a device's name, with the terminating 0.
pub const NAME_SIZE: usize = 32;

/// `struct nullhz_mmu_batch_device_ops`.
#[repr(C)]
pub struct DeviceOps {
    pub owner: *mut c_void,
    pub flush: Option<unsafe extern "C" fn(*mut c_void, *const Span, u32) -> c_int>,
    pub reset: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

/// `struct nullhz_mmu_batch_event`.
#[repr(C)]
pub struct Event {
    pub start: u64,
    pub end: u64,
    pub kind: u32,
    pub blockable: u8,
    pub pad: [u8; 3],
    pub state: *mut c_void,
}

/// `struct nullhz_mmu_batch_interval_ops`.
#[repr(C)]
pub struct IntervalOps {
    pub zap: Option<unsafe extern "C" fn(*mut c_void, *const Event) -> bool>,
    pub live: Option<unsafe extern "C" fn(*mut c_void, *const Event) -> bool>,
    pub flushed: Option<unsafe extern "C" fn(*mut c_void, *const Event)>,
    pub start: Option<unsafe extern "C" fn(*mut c_void, *mut Event) -> bool>,
    pub finish: Option<unsafe extern "C" fn(*mut c_void, *mut Event)>,
}

/// `struct nullhz_mmu_batch_unmap`.
#[repr(C)]
pub struct Unmap {
    pub start: u64,
    pub end: u64,
    pub pages: u64,
    pub zap: Option<unsafe extern "C" fn(*mut Unmap) -> bool>,
    pub release: Option<unsafe extern "C" fn(*mut Unmap)>,
}

const _: () = {
    assert!(size_of::<Span>() == 24);
    assert!(offset_of!(Span, tag) == 16);
    assert!(size_of::<DeviceOps>() == 24);
    assert!(offset_of!(DeviceOps, reset) == 16);
    assert!(size_of::<Event>() == 32);
    assert!(offset_of!(Event, kind) == 16);
    assert!(offset_of!(Event, blockable) == 20);
    assert!(offset_of!(Event, state) == 24);
    assert!(size_of::<IntervalOps>() == 40);
    assert!(offset_of!(IntervalOps, finish) == 32);
    assert!(size_of::<Unmap>() == 40);
    assert!(offset_of!(Unmap, release) == 32);
};
