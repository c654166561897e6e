// SPDX-License-Identifier: GPL-2.0

//! What a source says about a fault, and the record that it becomes. Pure logic.

use super::abi::{flag, Event, Level, ABI_VERSION, EVENT_SIZE};

/// What a source says about one fault; `struct nullhz_fault_report`, checked.
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
    /// `F_BOOT`, `F_SUMMARY`, `F_INJECTED`, or 0.
    pub flags: u8,
    /// CPU, -1: none or unknown.
    pub cpu: i32,
    /// NUMA node, -1: none or unknown.
    pub node: i32,
    /// Occurrences that it stands for, at least 1.
    pub count: u32,
    /// By source, at most `PAYLOAD_SIZE` bytes.
    pub payload: &'a [u8],
}

/// A moment on both clocks, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// `CLOCK_MONOTONIC`.
    pub mono: u64,
    /// `CLOCK_REALTIME`.
    pub real: u64,
}

impl Report<'_> {
    /// The record of this report by `source`, with no number yet; [`None`] when the report says
    /// what a source may not say.
    pub fn event(&self, source: u16, boot_id: [u8; 16], now: Now) -> Option<Event> {
        let foreign = self.flags & !flag::FROM_SOURCE != 0;
        let several = self.count > 1 && self.flags & flag::SUMMARY == 0;
        if foreign || several || self.count == 0 || self.cpu < -1 || self.node < -1 {
            return None;
        }
        let or_now = |time, now| if time == 0 { now } else { time };
        let mut event = Event {
            size: EVENT_SIZE as u32,
            version: ABI_VERSION,
            level: self.level as u8,
            flags: self.flags,
            mono_ns: or_now(self.mono_ns, now.mono),
            real_ns: or_now(self.real_ns, now.real),
            boot_id,
            source,
            kind: self.kind,
            count: self.count,
            cpu: self.cpu,
            node: self.node,
            ..Event::ZERO
        };
        event.set_payload(self.payload)?;
        Some(event)
    }
}
