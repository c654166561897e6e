// SPDX-License-Identifier: GPL-2.0

//! What happened between two points of time, by everybody's own count.

use crate::abi;
use crate::gpu::Gpu;
use crate::interrupts::{Delta, Interrupts};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is read at one point of time.
pub struct Reading {
    device: abi::Counters,
    library: BTreeMap<String, u64>,
    interrupts: Interrupts,
}

/// The difference of two readings.
#[derive(Serialize)]
pub struct Counts {
    /// The device: flushes, each of which is one broadcast.
    pub flushes: u64,
    /// Of those, of everything.
    pub full: u64,
    /// Spans in the others.
    pub spans: u64,
    /// Times that a CPU handled a broadcast.
    pub handled: u64,
    /// TLBs of offline CPUs, flushed from elsewhere.
    pub remote: u64,
    /// Accesses in flight that flushes waited for.
    pub drained: u64,
    /// Walks in flight whose result was not cached.
    pub cancelled: u64,
    /// Flushes without acknowledgement.
    pub unanswered: u64,
    /// Resets.
    pub resets: u64,
    /// Time in flushes.
    pub flush_ns: u64,
    /// This file: calls of notifiers, or zaps.
    pub events: u64,
    /// Of those, with nothing mapped.
    pub elided: u64,
    /// Of those, not able to sleep.
    pub would_block: u64,
    /// Pages taken out of the page table.
    pub zapped: u64,
    /// Time in those calls.
    pub event_ns: u64,
    /// Pages faulted in.
    pub faults: u64,
    /// Faults begun again.
    pub retries: u64,
    /// Buffers unmapped.
    pub unbinds: u64,
    /// Intervals that are registered, at the end.
    pub intervals: u64,
    /// Notifiers of the kernel, at the end.
    pub notifiers: u64,
    /// The kernel: function-call interrupts.
    pub interrupts: Delta,
    /// The library: counters of the device in sysfs; empty for a device without it.
    pub library: BTreeMap<String, u64>,
}

/// Where to read.
pub struct Meter<'a> {
    gpu: &'a Gpu,
    library: PathBuf,
}

impl<'a> Meter<'a> {
    /// Of a device, and the directory of its counters in the library.
    pub fn new(gpu: &'a Gpu, library: PathBuf) -> Self {
        Self { gpu, library }
    }

    /// Reads them now.
    pub fn read(&self) -> Result<Reading> {
        let mut library = BTreeMap::new();
        if let Ok(entries) = std::fs::read_dir(&self.library) {
            for entry in entries {
                let entry = entry?;
                // Not all of them are one number.
                if let Ok(value) = std::fs::read_to_string(entry.path())?.trim().parse() {
                    library.insert(entry.file_name().to_string_lossy().into_owned(), value);
                }
            }
        }
        Ok(Reading {
            device: self.gpu.counters()?,
            library,
            interrupts: Interrupts::read()?,
        })
    }

    /// What came since an earlier reading.
    pub fn since(&self, earlier: &Reading) -> Result<Counts> {
        // The interrupts first: reading the rest may cause some.
        let interrupts = Interrupts::read()?.since(&earlier.interrupts);
        let now = self.read()?;
        let (a, b) = (&earlier.device, &now.device);
        let library = now.library.iter().map(|(name, value)| {
            let before = earlier.library.get(name).copied().unwrap_or(0);
            (name.clone(), value.wrapping_sub(before))
        });
        Ok(Counts {
            flushes: b.device_flushes - a.device_flushes,
            full: b.device_full - a.device_full,
            spans: b.device_spans - a.device_spans,
            handled: b.device_handled - a.device_handled,
            remote: b.device_remote - a.device_remote,
            drained: b.device_drained - a.device_drained,
            cancelled: b.device_cancelled - a.device_cancelled,
            unanswered: b.device_unanswered - a.device_unanswered,
            resets: b.device_resets - a.device_resets,
            flush_ns: b.device_flush_ns - a.device_flush_ns,
            events: b.events - a.events,
            elided: b.elided - a.elided,
            would_block: b.would_block - a.would_block,
            zapped: b.zapped - a.zapped,
            event_ns: b.event_ns - a.event_ns,
            faults: b.faults - a.faults,
            retries: b.retries - a.retries,
            unbinds: b.unbinds - a.unbinds,
            intervals: b.intervals,
            notifiers: b.notifiers,
            interrupts,
            library: library.collect(),
        })
    }
}
