// SPDX-License-Identifier: GPL-2.0

//! The fault bus, for fault sources written in Rust.
//!
//! Safe wrapper of `drivers/include/nullhz/fault.h`. External modules share no Rust metadata, so
//! each source includes this file:
//!
//! ```ignore
//! #[path = "../include/nullhz/fault.rs"]
//! mod fault;
//!
//! let source = fault::Source::register(fault::abi::source::PRIVATE, c"fan")?;
//! source.report(&fault::Report {
//!     kind: FAN_SLOW,
//!     payload: &rpm.to_ne_bytes(),
//!     ..fault::Report::new(fault::Level::Degrading)
//! })?;
//! ```

// Each source uses its own part, and keeps it to itself.
#![allow(dead_code, unreachable_pub)]

use core::{
    marker::{PhantomData, PhantomPinned},
    ptr::NonNull, //
};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi::{c_char, c_int, c_void},
    prelude::*,
};

#[path = "../../fault/abi.rs"]
pub mod abi;
pub use abi::Level;

/// `struct nullhz_fault_source`.
#[repr(C)]
struct RawSource {
    _opaque: [u8; 0],
    _pin: PhantomData<(*mut u8, PhantomPinned)>,
}

/// `struct nullhz_fault_report`.
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
    payload: *const c_void,
}

extern "C" {
    fn nullhz_fault_source_register(id: u32, name: *const c_char) -> *mut RawSource;
    fn nullhz_fault_source_unregister(source: *mut RawSource);
    fn nullhz_fault_report(source: *mut RawSource, report: *const RawReport) -> c_int;
    fn nullhz_fault_report_incident(
        source: *mut RawSource,
        report: *const RawReport,
        incident: *mut u64,
    ) -> c_int;
    fn nullhz_fault_incident_get(
        source: *mut RawSource,
        id: u64,
        incident: *mut abi::Incident,
    ) -> c_int;
    fn nullhz_fault_acknowledged(source: *mut RawSource) -> c_int;
    fn nullhz_fault_persist(source: *mut RawSource, report: *const RawReport) -> c_int;
    fn nullhz_fault_withdraw(source: *mut RawSource) -> c_int;
}

/// What a source says about one fault.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// `CLOCK_MONOTONIC` of the fault in ns, 0: now.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME` of the fault in ns, 0: now.
    pub real_ns: u64,
    /// One of the source's kinds.
    pub kind: u16,
    /// How bad it is.
    pub level: Level,
    /// Of [`abi::flag::FROM_SOURCE`].
    pub flags: u8,
    /// CPU; [`None`] when there is none or it is unknown.
    pub cpu: Option<u32>,
    /// NUMA node; [`None`] takes the CPU's.
    pub node: Option<u32>,
    /// Occurrences that it stands for: 1, or more with [`abi::flag::SUMMARY`].
    pub count: u32,
    /// At most [`abi::PAYLOAD_SIZE`] bytes.
    pub payload: &'a [u8],
}

impl Report<'_> {
    /// A single occurrence, now, with nothing more to say about it.
    pub const fn new(level: Level) -> Self {
        Self {
            mono_ns: 0,
            real_ns: 0,
            kind: 0,
            level,
            flags: 0,
            cpu: None,
            node: None,
            count: 1,
            payload: &[],
        }
    }

    fn to_raw(self) -> Result<RawReport> {
        let or_none = |n: Option<u32>| n.map_or(Ok(-1), i32::try_from).map_err(|_| EINVAL);
        Ok(RawReport {
            mono_ns: self.mono_ns,
            real_ns: self.real_ns,
            kind: self.kind,
            level: self.level as u8,
            flags: self.flags,
            cpu: or_none(self.cpu)?,
            node: or_none(self.node)?,
            count: self.count,
            payload_len: self.payload.len().try_into().map_err(|_| EINVAL)?,
            pad: 0,
            payload: self.payload.as_ptr().cast(),
        })
    }
}

/// A registered fault source; unregistered when dropped.
///
/// # Invariants
///
/// `raw` is a source that is registered.
pub struct Source {
    raw: NonNull<RawSource>,
}

// SAFETY: A source may be unregistered by another task than the one that registered it.
unsafe impl Send for Source {}
// SAFETY: The bus serialises concurrent reports.
unsafe impl Sync for Source {}

impl Source {
    /// Announces the source `id`, one of [`abi::source`]; `name` shows up in sysfs and logs.
    ///
    /// Process context, may sleep. Errors: [`EINVAL`] for a bad id or name, [`EBUSY`] when the id
    /// is registered already, [`ENOMEM`].
    pub fn register(id: u16, name: &CStr) -> Result<Self> {
        // SAFETY: `name` is a C string for the duration of the call, which copies it.
        let raw = unsafe { nullhz_fault_source_register(id.into(), name.as_char_ptr()) };
        // INVARIANT: Registered just now.
        Ok(Self {
            raw: NonNull::new(from_err_ptr(raw)?).ok_or(EINVAL)?,
        })
    }

    /// Puts one fault on the bus. Never blocks, never allocates.
    ///
    /// Process, softirq or hard interrupt context, also with interrupts off and raw spinlocks
    /// held; not NMI, and not with a lock of the scheduler held. Errors: [`EINVAL`] when the
    /// report's flags, count or payload are not what its fields demand.
    pub fn report(&self, report: &Report<'_>) -> Result {
        let raw = report.to_raw()?;
        // SAFETY: The source is registered by the type's invariant; `raw` and what its payload
        // points to outlive the call, which copies them.
        to_result(unsafe { nullhz_fault_report(self.raw.as_ptr(), &raw) })
    }

    /// As [`Source::report`], and tells the incident that the event opened or joined, 0: none.
    pub fn report_incident(&self, report: &Report<'_>) -> Result<u64> {
        let raw = report.to_raw()?;
        let mut incident = 0;
        // SAFETY: As in `report()`; `incident` is valid for writes during the call.
        to_result(unsafe { nullhz_fault_report_incident(self.raw.as_ptr(), &raw, &mut incident) })?;
        Ok(incident)
    }

    /// Looks at an incident of any source. Contexts as [`Source::report`]; [`ENOENT`] for one that
    /// was never opened, or is older than the bus remembers.
    pub fn incident(&self, id: u64) -> Result<abi::Incident> {
        let mut incident = abi::Incident::ZERO;
        // SAFETY: The source is registered by the type's invariant; `abi::Incident` has the layout
        // of `struct nullhz_fault_incident`, and is valid for writes during the call.
        to_result(unsafe { nullhz_fault_incident_get(self.raw.as_ptr(), id, &mut incident) })?;
        Ok(incident)
    }

    /// Whether an incident of any source has been acknowledged since the bus was loaded: there is
    /// somebody who does that, or was. Contexts as [`Source::report`].
    pub fn acknowledged(&self) -> bool {
        // SAFETY: The source is registered by the type's invariant.
        unsafe { nullhz_fault_acknowledged(self.raw.as_ptr()) > 0 }
    }

    /// Records the last words of a dying node for the next boot; the level is taken as
    /// [`Level::Fatal`].
    ///
    /// Any context, NMI included; prints a line to the kernel log once the stores are written.
    /// Errors: as [`Source::report`]; [`ENODEV`] when there is no store to write to, [`EIO`] when
    /// every store failed, was full or in use by another CPU.
    pub fn persist(&self, report: &Report<'_>) -> Result {
        let raw = report.to_raw()?;
        // SAFETY: As in `report()`.
        to_result(unsafe { nullhz_fault_persist(self.raw.as_ptr(), &raw) })
    }

    /// Takes back what was recorded with [`Source::persist`]: the node lives after all.
    ///
    /// Process context, may sleep; firmware takes its time. Errors: the last one of a store.
    pub fn withdraw(&self) -> Result {
        // SAFETY: The source is registered by the type's invariant.
        to_result(unsafe { nullhz_fault_withdraw(self.raw.as_ptr()) })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: The source is registered by the type's invariant, and exclusive access means
        // that no report is under way.
        unsafe { nullhz_fault_source_unregister(self.raw.as_ptr()) };
    }
}
