// SPDX-License-Identifier: GPL-2.0

//! The C part of the module (glue.h), and the only `unsafe` code of this folder.

use crate::abi::Stall;
use crate::fault::Level;
use kernel::{
    cpu::CpuId,
    error::to_result,
    ffi::{c_int, c_void},
    prelude::*,
    task::Task, //
};

extern "C" {
    fn nullhz_stall_monotonic_ns() -> u64;
    fn nullhz_stall_real_ns() -> u64;
    fn nullhz_stall_online(cpu: u32) -> bool;
    fn nullhz_stall_bind(cpu: u32) -> c_int;
    fn nullhz_stall_unbind() -> c_int;
    fn nullhz_stall_switches(task: *const c_void) -> u64;
    fn nullhz_stall_trace_event(stall: *const Stall, kind: u16, level: u8, cpu: i32);
    fn nullhz_stall_trace_pass(pass_ns: u64, ranks: u32, stalled: u32, permitted: bool);
}

/// `CLOCK_MONOTONIC`, ns. Any context but NMI.
pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: Only called in process context; has no other conditions.
    unsafe { nullhz_stall_monotonic_ns() }
}

/// `CLOCK_REALTIME`, ns. Any context.
pub(crate) fn real_ns() -> u64 {
    // SAFETY: May be called in any context.
    unsafe { nullhz_stall_real_ns() }
}

/// Whether `cpu` is online at the moment. Any context.
pub(crate) fn online(cpu: CpuId) -> bool {
    // SAFETY: May be called in any context, with any number.
    unsafe { nullhz_stall_online(cpu.as_u32()) }
}

/// Confines the calling thread to `cpu`. [`EINVAL`] when that is not online.
///
/// Process context, may sleep.
pub(crate) fn bind(cpu: CpuId) -> Result {
    // SAFETY: A thread may always change its own affinity where it may sleep, which all of this
    // module's code that calls this may.
    to_result(unsafe { nullhz_stall_bind(cpu.as_u32()) })
}

/// Undoes [`bind()`]: the calling thread may run on all CPUs that keep the house at the moment.
///
/// Process context, may sleep.
pub(crate) fn unbind() -> Result {
    // SAFETY: As in `bind()`.
    to_result(unsafe { nullhz_stall_unbind() })
}

/// How often `task` has been switched away from since it began. Any context.
pub(crate) fn switches(task: &Task) -> u64 {
    // SAFETY: The task is valid for the duration of the call, which only reads two counters of it.
    unsafe { nullhz_stall_switches(task.as_ptr().cast()) }
}

/// Fires `nullhz_stall:nullhz_stall_event`.
pub(crate) fn trace_event(stall: &Stall, kind: u16, level: Level, cpu: Option<CpuId>) {
    let cpu = cpu.and_then(|cpu| i32::try_from(cpu.as_u32()).ok());
    // SAFETY: `Stall` has the layout of `struct nullhz_fault_stall`, which its declaration and
    // helpers.c assert, and is only read during the call.
    unsafe { nullhz_stall_trace_event(stall, kind, level as u8, cpu.unwrap_or(-1)) };
}

/// Fires `nullhz_stall:nullhz_stall_pass`.
pub(crate) fn trace_pass(pass_ns: u64, ranks: u32, stalled: u32, permitted: bool) {
    // SAFETY: The tracepoint has no conditions.
    unsafe { nullhz_stall_trace_pass(pass_ns, ranks, stalled, permitted) };
}
