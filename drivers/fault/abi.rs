// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! The user-space ABI of the fault bus in Rust.
//!
//! Mirrors `drivers/include/uapi/nullhz/fault.h`, which documents every field. The kernel modules,
//! the host tests and user space include this file by `#[path]`, so it needs nothing but `core`,
//! holds no `unsafe` and cannot panic.

// Each consumer uses its own part, and may keep it to itself.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A crate that speaks two ABIs has the records' foundation in each.
#![allow(clippy::duplicate_mod)]

#[path = "../include/nullhz/record.rs"]
mod record;
pub(crate) use record::{record, Field, Unread, Unwritten};

/// `NULLHZ_FAULT_ABI_VERSION`.
pub const ABI_VERSION: u16 = 1;
/// `NULLHZ_FAULT_EVENT_SIZE`, bytes.
pub const EVENT_SIZE: usize = 256;
/// `NULLHZ_FAULT_PAYLOAD_SIZE`, bytes.
pub const PAYLOAD_SIZE: usize = 168;

/// `NULLHZ_FAULT_*`: how bad an event is (`nullhz_fault_event.level`); ordered, higher is worse.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth counting.
    Watch = 0,
    /// Checkpoint at the next step.
    Degrading = 1,
    /// Snapshot now; opens an incident.
    Imminent = 2,
    /// A record only: of the end of a node. Opens no incident.
    Fatal = 3,
}

impl Level {
    /// How many levels there are.
    pub const COUNT: usize = 4;
    /// All levels, mildest first.
    pub const ALL: [Level; Level::COUNT] = [
        Level::Watch,
        Level::Degrading,
        Level::Imminent,
        Level::Fatal,
    ];

    /// The level that `raw` stands for; [`None`] for a value that the ABI does not know.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Level::Watch),
            1 => Some(Level::Degrading),
            2 => Some(Level::Imminent),
            3 => Some(Level::Fatal),
            _ => None,
        }
    }

    /// The level's name in sysfs, logs and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Watch => "watch",
            Level::Degrading => "degrading",
            Level::Imminent => "imminent",
            Level::Fatal => "fatal",
        }
    }
}

/// `NULLHZ_FAULT_F_*`: bits of `nullhz_fault_event.flags`.
pub mod flag {
    /// This boot, before the source's module was loaded.
    pub const BOOT: u8 = 0x01;
    /// Read back from persistent storage.
    pub const PREVIOUS_BOOT: u8 = 0x02;
    /// This record opened its incident.
    pub const OPENED: u8 = 0x04;
    /// Stands for `count` occurrences.
    pub const SUMMARY: u8 = 0x08;
    /// The source knows that it was injected in software.
    pub const INJECTED: u8 = 0x10;
    /// Delivered again: its incident is still unacknowledged.
    pub const REPLAYED: u8 = 0x20;
    /// What a source may set.
    pub const FROM_SOURCE: u8 = BOOT | SUMMARY | INJECTED;
}

/// `NULLHZ_FAULT_SRC_*`: values of `nullhz_fault_event.source`.
pub mod source {
    /// The bus itself.
    pub const BUS: u16 = 0;
    /// Machine checks.
    pub const MCE: u16 = 1;
    /// Training stalls.
    pub const STALL: u16 = 2;
    /// PCI Express advanced error reporting.
    pub const PCIE_AER: u16 = 3;
    /// ACPI platform errors.
    pub const GHES: u16 = 4;
    /// GPUs.
    pub const GPU: u16 = 5;
    /// Network adapters.
    pub const NIC: u16 = 6;
    /// Temperatures.
    pub const THERMAL: u16 = 7;
    /// The first of those that out-of-tree sources share by agreement on the node.
    pub const PRIVATE: u16 = 32;
    /// The last one.
    pub const MAX: u16 = 63;
    /// How many there can be: a source mask has 64 bits.
    pub const COUNT: usize = MAX as usize + 1;
}

/// `NULLHZ_FAULT_BUS_*`: kinds of [`source::BUS`]; the payload is a [`Bus`].
///
/// [`Bus`]: super::Bus
pub mod bus {
    /// An incident was acknowledged.
    pub const ACKED: u16 = 1;
    /// An incident's deadline passed unacknowledged.
    pub const EXPIRED: u16 = 2;
    /// Occurrences that joined an incident, summed up.
    pub const STORM: u16 = 3;
    /// The state in which the node died; follows the record of the fault that it died of.
    pub const LAST_WORDS: u16 = 4;
}

/// `NULLHZ_MCE_*`: kinds of [`source::MCE`](super::source::MCE) and reasons in [`Mce`].
///
/// [`Mce`]: super::Mce
pub mod mce {
    /// `VAL` = 0 or a bank that cannot be.
    pub const INVALID: u16 = 0;
    /// Corrected.
    pub const CORRECTED: u16 = 1;
    /// AMD deferred, Intel UCNA.
    pub const DEFERRED: u16 = 2;
    /// Intel SRAO.
    pub const ACTION_OPTIONAL: u16 = 3;
    /// Intel SRAR, recovered.
    pub const ACTION_REQUIRED: u16 = 4;
    /// Context corrupt, or no recovery.
    pub const FATAL: u16 = 5;
    /// Uncorrected, logged as corrected.
    pub const HIDDEN_UC: u16 = 6;

    /// The record's own grade.
    pub const R_GRADE: u32 = 0x0001;
    /// A page's bucket filled.
    pub const R_PAGE: u32 = 0x0002;
    /// A DIMM's bucket filled.
    pub const R_DIMM: u32 = 0x0004;
    /// A bank's bucket filled.
    pub const R_BANK: u32 = 0x0008;
    /// A socket's bucket filled.
    pub const R_SOCKET: u32 = 0x0010;
    /// Corrected errors come too fast.
    pub const R_STORM: u32 = 0x0020;
    /// `OVER` set on a corrected error.
    pub const R_OVERFLOW: u32 = 0x0040;
    /// Several columns of one row.
    pub const R_COLUMNS: u32 = 0x0080;
    /// Command/address parity.
    pub const R_PARITY: u32 = 0x0100;
    /// `DEGRADING` repeated until `IMMINENT`.
    pub const R_ESCALATED: u32 = 0x0200;
    /// SKX quirk.
    pub const R_HIDDEN_UC: u32 = 0x0400;
    /// The bucket table was full: counts restarted.
    pub const R_EVICTED: u32 = 0x0800;
}

/// `NULLHZ_AER_*`: kinds of [`source::PCIE_AER`](super::source::PCIE_AER).
pub mod aer {
    /// Corrected by the hardware.
    pub const CORRECTABLE: u16 = 1;
    /// A transaction has failed.
    pub const NONFATAL: u16 = 2;
    /// The link is unreliable.
    pub const FATAL: u16 = 3;
}

/// `NULLHZ_INCIDENT_*`: values of `nullhz_fault_incident.state`.
pub mod state {
    /// Waits for its acknowledgement.
    pub const OPEN: u32 = 1;
    /// Acknowledged.
    pub const ACKED: u32 = 2;
    /// Its deadline passed; may still be acknowledged.
    pub const EXPIRED: u32 = 3;
}

/// `NULLHZ_FAULT_SEEK_*`: values of `nullhz_fault_seek.whence`.
pub mod seek {
    /// The replay ring, as after open.
    pub const OLDEST: u32 = 0;
    /// Only what comes from now on.
    pub const NEWEST: u32 = 1;
    /// From a sequence number.
    pub const SEQ: u32 = 2;
}

record! {
    /// `struct nullhz_fault_bus`: payload of [`source::BUS`].
    Bus: 40 {
        /// The incident that it is about.
        incident: u64,
        /// As given by the acknowledger.
        snapshot_id: u64,
        /// Since the incident was opened, ns.
        age_ns: u64,
        /// 0 or the negative errno of the snapshot.
        result: i32,
        /// Events that joined the incident so far.
        joined: u32,
        /// The incident's source.
        source: u32,
        /// Pid of the acknowledger in the initial namespace.
        acker: u32,
    }
}

record! {
    /// `struct nullhz_fault_mce`: payload of [`source::MCE`].
    Mce: 144 {
        /// `MCi_STATUS`.
        status: u64,
        /// `MCi_ADDR`.
        addr: u64,
        /// `MCi_MISC`.
        misc: u64,
        /// `MCG_STATUS`.
        mcgstatus: u64,
        /// Instruction pointer in user space; 0: unknown, or the kernel's.
        ip: u64,
        /// `MCA_SYND`, SMCA only.
        synd: u64,
        /// `MCA_IPID`, SMCA only.
        ipid: u64,
        /// `MCA_SYND1`, AMD only.
        synd1: u64,
        /// `MCA_SYND2`, AMD only.
        synd2: u64,
        /// `MCG_CAP`.
        mcgcap: u64,
        /// Protected processor inventory number.
        ppin: u64,
        /// Time-stamp counter.
        tsc: u64,
        /// `CPUID(1).EAX` of the reporting CPU.
        cpuid: u32,
        /// Initial APIC id.
        apicid: u32,
        /// Socket.
        socketid: u32,
        /// Microcode revision.
        microcode: u32,
        /// The kernel's `X86_VENDOR_*`.
        cpuvendor: u8,
        /// 255: made up by firmware, no bank.
        bank: u8,
        /// Code segment.
        cs: u8,
        /// `struct mce.severity` as the kernel graded it, 0: not graded.
        kernel_severity: u8,
        /// [`mce`]`::R_*`.
        reason: u32,
        /// Corrected errors of this page in its bucket's window.
        page_count: u32,
        /// The same of the DIMM.
        dimm_count: u32,
        /// The same of the bank.
        bank_count: u32,
        /// The same of the socket.
        socket_count: u32,
        /// SMCA bank type + 1, 0: unknown or not SMCA.
        smca_type: u32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_fault_aer`: payload of [`source::PCIE_AER`].
    Aer: 40 {
        /// Correctable or, by the kind, Uncorrectable Error Status, unmasked; 0: unreachable.
        status: u32,
        /// Uncorrectable Error Status, signalled as correctable.
        advisory: u32,
        /// Header of the packet with the error, if `has_tlp`.
        tlp: [u32; 4],
        /// Correctable errors of the device so far, this one included.
        corrected: u32,
        /// PCI segment.
        domain: u32,
        /// PCI vendor.
        vendor: u16,
        /// PCI device.
        device: u16,
        /// Number of the bus.
        bus: u8,
        /// Device number << 3 | function number.
        devfn: u8,
        /// 1: `tlp` is there.
        has_tlp: u8,
        /// 0.
        pad: u8,
    }
}

record! {
    /// `struct nullhz_fault_event`: what `read()` delivers.
    Event: 256 {
        /// Size of the writer's record.
        size: u32,
        /// [`ABI_VERSION`].
        version: u16,
        /// [`Level`].
        level: u8,
        /// [`flag`]s.
        flags: u8,
        /// 1, 2, ... without a gap, since the bus was loaded.
        seq: u64,
        /// `CLOCK_MONOTONIC` when it happened.
        mono_ns: u64,
        /// `CLOCK_REALTIME` when it happened.
        real_ns: u64,
        /// Of the boot that it happened in.
        boot_id: [u8; 16],
        /// [`mod@source`].
        source: u16,
        /// By source.
        kind: u16,
        /// Occurrences that it stands for.
        count: u32,
        /// -1: unknown or none.
        cpu: i32,
        /// NUMA node, -1: unknown or none.
        node: i32,
        /// 0: none.
        incident: u64,
        /// Matching records that the file missed right before this one.
        lost: u64,
        /// Bytes of `payload` in use.
        payload_len: u32,
        /// 0.
        pad: u32,
        /// By source.
        payload: [u8; PAYLOAD_SIZE],
    }
}

record! {
    /// `struct nullhz_fault_info`.
    Info: 64 {
        /// [`ABI_VERSION`].
        abi_version: u32,
        /// [`EVENT_SIZE`].
        event_size: u32,
        /// Records kept for replay.
        ring_events: u32,
        /// Unacknowledged incidents.
        open_incidents: u32,
        /// `seq` of the newest record, 0: none yet.
        head_seq: u64,
        /// Bit n: source n is registered now.
        sources: u64,
        /// 0: none yet.
        last_incident: u64,
        /// Of the newest successful acknowledgement.
        last_snapshot_id: u64,
        /// As in the events.
        boot_id: [u8; 16],
    }
}

record! {
    /// `struct nullhz_fault_filter`.
    Filter: 16 {
        /// The mildest level that passes.
        min_level: u32,
        /// 0.
        pad: u32,
        /// Bit n: source n passes.
        source_mask: u64,
    }
}

record! {
    /// `struct nullhz_fault_seek`.
    Seek: 16 {
        /// [`seek`].
        whence: u32,
        /// 0.
        pad: u32,
        /// 0 unless [`seek::SEQ`].
        seq: u64,
    }
}

record! {
    /// `struct nullhz_fault_ack`.
    Ack: 24 {
        /// The incident that was dealt with.
        incident: u64,
        /// BTRFS subvolume id; 0 only with `result` < 0.
        snapshot_id: u64,
        /// 0 or a negative errno.
        result: i32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_fault_incident`.
    Incident: 72 {
        /// Its id.
        incident: u64,
        /// `CLOCK_MONOTONIC`.
        opened_ns: u64,
        /// `CLOCK_MONOTONIC`.
        deadline_ns: u64,
        /// `CLOCK_MONOTONIC`, 0: not yet.
        acked_ns: u64,
        /// As acknowledged.
        snapshot_id: u64,
        /// Of the event that opened it.
        first_seq: u64,
        /// Events that joined it, the first one included.
        joined: u64,
        /// As acknowledged.
        result: i32,
        /// [`mod@state`].
        state: u32,
        /// Its source.
        source: u32,
        /// 1: acknowledged after its deadline.
        late: u32,
    }
}

impl Event {
    /// The part of the payload that is in use.
    pub fn payload(&self) -> &[u8] {
        let len = PAYLOAD_SIZE.min(self.payload_len as usize);
        self.payload.get(..len).unwrap_or_default()
    }

    /// Puts `bytes` into the payload; [`None`] when they do not fit.
    pub fn set_payload(&mut self, bytes: &[u8]) -> Option<()> {
        let (used, rest) = self.payload.split_at_mut_checked(bytes.len())?;
        for (to, from) in used.iter_mut().zip(bytes) {
            *to = *from;
        }
        for byte in rest {
            *byte = 0;
        }
        // Fits: it is at most `PAYLOAD_SIZE`.
        self.payload_len = bytes.len() as u32;
        Some(())
    }
}

/// `NULLHZ_FAULT_IOC_*` as `_IOC()` of `<asm-generic/ioctl.h>` encodes them.
pub mod ioc {
    use super::{Ack, Filter, Incident, Info, Seek};

    /// `NULLHZ_FAULT_IOC_MAGIC`.
    pub const MAGIC: u32 = 0xF1;

    const WRITE: u32 = 1;
    const READ: u32 = 2;

    const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
        (dir << 30) | ((size as u32) << 16) | (MAGIC << 8) | nr
    }

    /// Reads an [`Info`].
    pub const INFO: u32 = ioc(READ, 0, Info::SIZE);
    /// Writes a [`Filter`].
    pub const FILTER: u32 = ioc(WRITE, 1, Filter::SIZE);
    /// Writes a [`Seek`].
    pub const SEEK: u32 = ioc(WRITE, 2, Seek::SIZE);
    /// Writes an [`Ack`].
    pub const ACK: u32 = ioc(WRITE, 3, Ack::SIZE);
    /// Writes the id of, and reads, an [`Incident`].
    pub const INCIDENT: u32 = ioc(READ | WRITE, 4, Incident::SIZE);
}
