// SPDX-License-Identifier: GPL-2.0

//! The C part of the module (glue.h), and the only `unsafe` code of this folder.

use crate::abi::{Level, Mce};
use crate::decode::record::Vendor;

/// A moment on both clocks (`struct nullhz_mce_time`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Time {
    /// `CLOCK_MONOTONIC`, ns.
    pub(crate) mono_ns: u64,
    /// `CLOCK_REALTIME`, ns.
    pub(crate) real_ns: u64,
}

extern "C" {
    fn nullhz_mce_now() -> Time;
    fn nullhz_mce_machine_vendor() -> u8;
    fn nullhz_mce_machine_ser() -> bool;
    fn nullhz_mce_trace_record(
        mce: *const Mce,
        mono_ns: u64,
        cpu: i32,
        kind: u16,
        level: u8,
        flags: u8,
        severity: u8,
    );
}

impl Time {
    /// Now. Any context, NMI included.
    pub(crate) fn now() -> Self {
        // SAFETY: The function may be called in any context and has no other conditions.
        unsafe { nullhz_mce_now() }
    }
}

/// Who made the machine's processors.
pub(crate) fn machine_vendor() -> Vendor {
    // SAFETY: The function reads what does not change after boot.
    Vendor::from_raw(unsafe { nullhz_mce_machine_vendor() })
}

/// Whether the machine's processors have software error recovery (`MCG_CAP.SER_P`).
pub(crate) fn machine_ser() -> bool {
    // SAFETY: The function reads a register that has no side effects, and copes without it.
    unsafe { nullhz_mce_machine_ser() }
}

/// What the tracepoint tells beside the registers.
pub(crate) struct Trace {
    pub(crate) mono_ns: u64,
    pub(crate) cpu: u32,
    pub(crate) kind: u16,
    pub(crate) level: Level,
    pub(crate) flags: u8,
    pub(crate) severity: u8,
}

/// Fires `nullhz_mce:nullhz_mce_record`. Process context.
pub(crate) fn trace_record(mce: &Mce, trace: &Trace) {
    // SAFETY: `Mce` has the layout of `struct nullhz_fault_mce`, which its declaration asserts, and
    // is only read during the call.
    unsafe {
        nullhz_mce_trace_record(
            mce,
            trace.mono_ns,
            i32::try_from(trace.cpu).unwrap_or(-1),
            trace.kind,
            trace.level as u8,
            trace.flags,
            trace.severity,
        )
    };
}
