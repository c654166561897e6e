// SPDX-License-Identifier: GPL-2.0

//! All that is `unsafe`: the C functions that sources call, and those that we call in C.
//!
//! `exports.c` exports the former, `drivers/include/nullhz/fault.h` documents them. `helpers.c` and
//! `trace.c` have the latter.

use crate::{
    abi::{Event, Incident, Level},
    bus::{Bus, Source},
    report::{Now, Report},
};
use kernel::{
    error::from_result,
    ffi::{c_char, c_int, c_void},
    fs::Kiocb,
    prelude::*,
    sync::{global_lock, Arc},
    types::ForeignOwnable, //
};

/// `struct nullhz_fault_report`; `exports.c` asserts the same layout.
#[repr(C)]
struct RawReport {
    mono_ns: u64,
    real_ns: u64,
    kind: u16,
    level: u8,
    flags: u8,
    cpu: i32,
    node: i32,
    count: u32,
    payload_len: u32,
    pad: u32,
    payload: *const u8,
}

const _: () = {
    assert!(core::mem::size_of::<RawReport>() == 48);
    assert!(core::mem::offset_of!(RawReport, payload) == 40);
};

#[repr(C)]
struct RawNow {
    mono: u64,
    real: u64,
}

extern "C" {
    fn nullhz_fault_now() -> RawNow;
    fn nullhz_fault_cpu_to_node(cpu: c_int) -> c_int;
    fn nullhz_fault_make_boot_id(id: *mut u8);
    fn nullhz_fault_nowait(iocb: *const c_void) -> bool;
    fn nullhz_fault_trace_event(event: *const Event);
    fn nullhz_fault_trace_incident(incident: *const Incident);
}

/// The time. Any context, NMI included.
pub(crate) fn now() -> Now {
    // SAFETY: May be called in any context.
    let now = unsafe { nullhz_fault_now() };
    Now {
        mono: now.mono,
        real: now.real,
    }
}

/// A random UUID.
pub(crate) fn make_boot_id() -> [u8; 16] {
    let mut id = [0; 16];
    // SAFETY: `id` has room for the 16 bytes of a UUID.
    unsafe { nullhz_fault_make_boot_id(id.as_mut_ptr()) };
    id
}

/// Whether a read must not wait.
pub(crate) fn nowait<T: ForeignOwnable>(kiocb: &Kiocb<'_, T>) -> bool {
    // SAFETY: `kiocb` is valid by the type's invariant.
    unsafe { nullhz_fault_nowait(kiocb.as_raw().cast()) }
}

/// Fires `nullhz_fault:nullhz_fault_event`.
pub(crate) fn trace_event(event: &Event) {
    // SAFETY: `Event` has the layout of `struct nullhz_fault_event`, and is only read.
    unsafe { nullhz_fault_trace_event(event) }
}

/// Fires `nullhz_fault:nullhz_fault_incident`.
pub(crate) fn trace_incident(incident: &Incident) {
    // SAFETY: `Incident` has the layout of `struct nullhz_fault_incident`, and is only read.
    unsafe { nullhz_fault_trace_incident(incident) }
}

global_lock! {
    // SAFETY: The module's initialiser calls `publish()`, which initialises it, before it
    // succeeds; nobody can call the exported functions before that.
    unsafe(uninit) static BUS: Mutex<Option<Arc<Bus>>> = None;
}

/// The bus that sources register at, as long as this exists.
pub(crate) struct Published(());

impl Published {
    /// Lets sources register at `bus`.
    ///
    /// # Safety
    ///
    /// Called once at most while the module is loaded.
    pub(crate) unsafe fn new(bus: Arc<Bus>) -> Self {
        // SAFETY: Once at most, as demanded of the caller.
        unsafe { BUS.init() };
        *BUS.lock() = Some(bus);
        Self(())
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Sources hold references to the module through its symbols: there are none left.
        drop(BUS.lock().take());
    }
}

fn register(id: u32, name: *const c_char) -> Result<KBox<Source>> {
    if name.is_null() {
        return Err(EINVAL);
    }
    let id = u16::try_from(id).map_err(|_| EINVAL)?;
    // SAFETY: Not null, so by the contract of `nullhz_fault_source_register()` a C string that
    // stays valid during the call.
    let name = unsafe { CStr::from_char_ptr(name) };
    let bus = BUS.lock().clone().ok_or(ENODEV)?;
    Ok(KBox::new(Source::register(bus, id, name)?, GFP_KERNEL)?)
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// `name` is null or a C string.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_source_register(id: u32, name: *const c_char) -> *mut Source {
    match register(id, name) {
        Ok(source) => KBox::into_raw(source),
        Err(error) => error.to_ptr(),
    }
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// `source` is null, an error pointer, or came from [`nullhz_fault_source_register()`] and is not
/// used any more.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_source_unregister(source: *mut Source) {
    if as_source(source).is_some() {
        // SAFETY: It is neither null nor an error pointer, so by the function's contract this is
        // the one owner of what `KBox::into_raw()` gave away.
        drop(unsafe { KBox::from_raw(source) });
    }
}

/// The source at `source`; [`None`] for null and error pointers.
fn as_source<'a>(source: *mut Source) -> Option<&'a Source> {
    // `IS_ERR_VALUE()`: the last 4095 addresses are no memory.
    let is_error = source.addr() >= 4095usize.wrapping_neg();
    if is_error || source.is_null() {
        return None;
    }
    // SAFETY: Anything else came from `KBox::into_raw()`, and stays until it is unregistered, by
    // the contract of the exported functions.
    Some(unsafe { &*source })
}

/// Calls `f` with a checked copy of what C says.
///
/// # Safety
///
/// `source` is null, an error pointer or a registered source. `report` is null or valid for reads,
/// and so is its payload for `payload_len` bytes.
unsafe fn with_report(
    source: *mut Source,
    report: *const RawReport,
    f: impl FnOnce(&Source, &Report<'_>) -> Result,
) -> c_int {
    from_result(|| {
        let source = as_source(source).ok_or(EINVAL)?;
        // SAFETY: Null or valid for reads, as demanded of the caller.
        let raw = unsafe { report.as_ref() }.ok_or(EINVAL)?;
        if raw.pad != 0 {
            return Err(EINVAL);
        }
        let payload: &[u8] = match raw.payload_len as usize {
            0 => &[],
            len if len > crate::abi::PAYLOAD_SIZE || raw.payload.is_null() => return Err(EINVAL),
            // SAFETY: Not null, so valid for reads of `len` bytes, as demanded of the caller.
            len => unsafe { core::slice::from_raw_parts(raw.payload, len) },
        };
        let node = match raw.node {
            // SAFETY: May be called in any context, with any number.
            -1 => unsafe { nullhz_fault_cpu_to_node(raw.cpu) },
            node => node,
        };
        let report = Report {
            mono_ns: raw.mono_ns,
            real_ns: raw.real_ns,
            kind: raw.kind,
            level: Level::from_raw(raw.level).ok_or(EINVAL)?,
            flags: raw.flags,
            cpu: raw.cpu,
            node,
            count: raw.count,
            payload,
        };
        f(source, &report).map(|()| 0)
    })
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// As [`with_report()`].
#[no_mangle]
unsafe extern "C" fn nullhz_fault_report(source: *mut Source, report: *const RawReport) -> c_int {
    // SAFETY: The same is demanded of our caller.
    unsafe {
        with_report(source, report, |source, report| {
            source.report(report).map(drop)
        })
    }
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// As [`with_report()`]; `incident` is null or valid for writes.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_report_incident(
    source: *mut Source,
    report: *const RawReport,
    incident: *mut u64,
) -> c_int {
    let report_it = |source: &Source, report: &Report<'_>| {
        if incident.is_null() {
            return Err(EINVAL);
        }
        let id = source.report(report)?;
        // SAFETY: Not null, so valid for writes, as demanded of our caller.
        unsafe { incident.write(id) };
        Ok(())
    };
    // SAFETY: The same is demanded of our caller.
    unsafe { with_report(source, report, report_it) }
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// `source` is null, an error pointer or a registered source; `incident` is null or valid for
/// writes.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_incident_get(
    source: *mut Source,
    id: u64,
    incident: *mut Incident,
) -> c_int {
    from_result(|| {
        let source = as_source(source).ok_or(EINVAL)?;
        if incident.is_null() {
            return Err(EINVAL);
        }
        let found = source.incident(id).ok_or(ENOENT)?;
        // SAFETY: Not null, so valid for writes, as demanded of our caller; `Incident` has the
        // layout of `struct nullhz_fault_incident`.
        unsafe { incident.write(found) };
        Ok(0)
    })
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// `source` is null, an error pointer or a registered source.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_acknowledged(source: *mut Source) -> c_int {
    from_result(|| {
        let source = as_source(source).ok_or(EINVAL)?;
        Ok(source.acknowledged().into())
    })
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// As [`with_report()`].
#[no_mangle]
unsafe extern "C" fn nullhz_fault_persist(source: *mut Source, report: *const RawReport) -> c_int {
    // SAFETY: The same is demanded of our caller.
    unsafe { with_report(source, report, Source::persist) }
}

/// See `drivers/include/nullhz/fault.h`.
///
/// # Safety
///
/// `source` is null, an error pointer or a registered source.
#[no_mangle]
unsafe extern "C" fn nullhz_fault_withdraw(source: *mut Source) -> c_int {
    from_result(|| {
        as_source(source).ok_or(EINVAL)?.withdraw()?;
        Ok(0)
    })
}
