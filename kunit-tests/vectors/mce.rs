// SPDX-License-Identifier: GPL-2.0

//! Machine-check records and what they mean.
//!
//! The first ones are from public bug reports, register for register; what a report does not tell
//! is filled in and said so. The crate that includes this file has the drivers' `decode` and `abi`
//! at its root.

use crate::abi::Level;
use crate::decode::record::{Record, CAP_CMCI_P, CAP_SER_P, KFLAG_IN_KERNEL_RECOV};
use crate::decode::severity::{Grade, Severity};

/// A record and what it means.
pub(crate) struct Vector {
    /// What it is.
    pub(crate) name: &'static str,
    /// The registers.
    pub(crate) record: Record,
    /// Whether the machine-check handler found it.
    pub(crate) exception: bool,
    /// What it means for the node.
    pub(crate) grade: Grade,
    /// The kernel's own severity.
    pub(crate) severity: Severity,
    /// The verdict when it is the first record of a node.
    pub(crate) level: Level,
    /// How its summary reads.
    pub(crate) summary: &'static str,
}

const INTEL: u8 = 0;
const AMD: u8 = 2;
const HYGON: u8 = 9;
const ZHAOXIN: u8 = 10;

const BLANK: Record = Record {
    status: 0,
    addr: 0,
    misc: 0,
    mcgstatus: 0,
    ip: 0,
    tsc: 0,
    time: 0,
    mcgcap: CAP_SER_P | CAP_CMCI_P,
    synd: 0,
    ipid: 0,
    synd1: 0,
    synd2: 0,
    ppin: 0,
    kflags: 0,
    cpuid: 0x50657,
    cpu: 0,
    socketid: 0,
    apicid: 0,
    microcode: 0,
    cpuvendor: INTEL,
    inject_flags: 0,
    severity: 0,
    cs: 0,
    bank: 0,
};

/// An error that was consumed: user mode, restart IP and error IP valid, in progress.
const CONSUMED: Record = Record {
    status: 0xbd80_0000_0010_0134,
    addr: 0x1234_5000,
    misc: 0x86,
    mcgstatus: 7,
    ip: 0x40_1000,
    cs: 0x33,
    bank: 1,
    ..BLANK
};

/// What `apei_mce_report_mem_error()` writes, less the status.
const FIRMWARE_FIRST: Record = Record {
    addr: 0x7_6543_2000,
    misc: 0x8c,
    bank: 255,
    ..BLANK
};

/// All records.
pub(crate) const VECTORS: &[Vector] = &[
    Vector {
        name: "node froze after it: uncorrected read, no action required, overflow",
        record: Record {
            status: 0xfc00_0100_0101_0092,
            addr: 0xb7_5758_9dc0,
            misc: 0x2008_05c2_9040_2086,
            bank: 8,
            ..BLANK
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Imminent,
        summary: "memory controller: read, channel 2; read data error from the memory controller; \
                  channel 2",
    },
    Vector {
        name: "corrected read on Ice Lake",
        record: Record {
            status: 0x8c00_0042_0080_0090,
            misc: 0x0d03_451d_e481_9486,
            cpuid: 0x606a6,
            bank: 13,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "memory controller: read, channel 0; corrected read error; controller 0, \
                  channel 0, dimm 1, rank 1, bank group 1, bank 1, row 244880, column 808",
    },
    Vector {
        // The report has no MCA_IPID: that of a memory controller.
        name: "corrected DRAM error with overflow on Zen 4",
        record: Record {
            status: 0xdc20_4000_0400_011b,
            ipid: 0x0000_0096_0005_0f00,
            cpuvendor: AMD,
            cpuid: 0xa60f12,
            bank: 21,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Degrading,
        summary: "cache: read, generic, generic level; DRAM ECC; channel 0, rank 0",
    },
    Vector {
        name: "watchdog of a Zen execution unit: context corrupt",
        record: Record {
            status: 0xbea0_0000_0000_0108,
            ipid: 0x0005_00b0_0000_0000,
            cpuvendor: AMD,
            cpuid: 0xa20f10,
            bank: 5,
            ..BLANK
        },
        exception: true,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "cache: generic error, generic, L0; watchdog time-out",
    },
    Vector {
        name: "left over from the boot before, not enabled",
        record: Record {
            status: 0xa600_0000_0002_0408,
            cpuid: 0x706a1,
            bank: 4,
            ..BLANK
        },
        exception: false,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "internal, unclassified (0x008)",
    },
    Vector {
        name: "nothing valid",
        record: Record {
            cpuid: 0x50663,
            bank: 9,
            ..BLANK
        },
        exception: false,
        grade: Grade::Invalid,
        severity: Severity::No,
        level: Level::Watch,
        summary: "no error",
    },
    Vector {
        name: "scrub error as an emulator raises it",
        record: Record {
            status: 0xbd00_0000_0000_00c0,
            addr: 0x1_0000_0000,
            misc: 0x8c,
            mcgstatus: 5,
            mcgcap: CAP_SER_P,
            bank: 5,
            ..BLANK
        },
        // In the kernel, with a restart IP: not fatal, because the scrubber found it.
        exception: true,
        grade: Grade::ActionOptional,
        severity: Severity::ActionOptional,
        level: Level::Imminent,
        summary: "memory controller: scrubbing, channel 0; \
                  uncorrected: physical layer initialization; channel 0",
    },
    Vector {
        name: "what the emulator leaves on the other processors, polled",
        record: Record {
            status: 0xa000_0000_0000_0000,
            mcgcap: CAP_SER_P,
            bank: 1,
            ..BLANK
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Watch,
        summary: "no error",
    },
    Vector {
        name: "the same, seen by the handler",
        record: Record {
            status: 0xa000_0000_0000_0000,
            mcgstatus: 5,
            mcgcap: CAP_SER_P,
            bank: 1,
            ..BLANK
        },
        exception: true,
        grade: Grade::Invalid,
        severity: Severity::No,
        level: Level::Watch,
        summary: "no error",
    },
    Vector {
        name: "firmware reports a corrected error",
        record: Record {
            status: 0x9c00_0000_0000_009f,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "firmware reports an uncorrected error",
        record: Record {
            status: 0xbc00_0000_0000_009f,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Imminent,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "firmware reports a fatal error",
        record: Record {
            status: 0xbe00_0000_0000_009f,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "memory controller: read, channel not told",
    },
    // The kernel writes the same registers on every vendor's processors.
    Vector {
        name: "firmware reports a corrected error on Zen 4",
        record: Record {
            status: 0x9c00_0000_0000_009f,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            mcgcap: 0,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "firmware reports an uncorrected error on Zen 4",
        record: Record {
            status: 0xbc00_0000_0000_009f,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            mcgcap: 0,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Imminent,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "firmware reports an uncorrected error on Hygon",
        record: Record {
            status: 0xbc00_0000_0000_009f,
            cpuvendor: HYGON,
            cpuid: 0x900f11,
            mcgcap: 0,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Imminent,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "firmware reports a fatal error on Zen 4",
        record: Record {
            status: 0xbe00_0000_0000_009f,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            mcgcap: 0,
            ..FIRMWARE_FIRST
        },
        exception: false,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "memory controller: read, channel not told",
    },
    Vector {
        name: "a bank that cannot be",
        record: Record {
            status: 0xbd00_0000_0000_00c0,
            bank: 64,
            ..BLANK
        },
        exception: false,
        grade: Grade::Invalid,
        severity: Severity::No,
        level: Level::Watch,
        summary: "memory controller: scrubbing, channel 0; channel 0",
    },
    Vector {
        name: "Skylake scrubber hides an uncorrected error",
        record: Record {
            status: 0x9c00_0040_0010_00c1,
            addr: 0x55_0000_1000,
            misc: 0x8c,
            cpuid: 0x50654,
            bank: 14,
            ..BLANK
        },
        exception: false,
        grade: Grade::HiddenUncorrected,
        severity: Severity::ActionOptional,
        level: Level::Imminent,
        summary: "memory controller: scrubbing, channel 1; uncorrected patrol scrub error; \
                  controller 0, channel 1",
    },
    Vector {
        name: "the same on a stepping that does not",
        record: Record {
            status: 0x9c00_0040_0010_00c1,
            addr: 0x55_0000_1000,
            misc: 0x8c,
            cpuid: 0x50653,
            bank: 14,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "memory controller: scrubbing, channel 1; uncorrected patrol scrub error; \
                  controller 0, channel 1",
    },
    Vector {
        name: "load of lost data in user mode",
        record: CONSUMED,
        exception: true,
        grade: Grade::ActionRequired,
        severity: Severity::ActionRequired,
        level: Level::Imminent,
        summary: "cache: data read, data, L0",
    },
    Vector {
        name: "instruction fetch of lost data in user mode",
        record: Record {
            status: 0xbd80_0000_0010_0150,
            bank: 0,
            ..CONSUMED
        },
        exception: true,
        grade: Grade::ActionRequired,
        severity: Severity::ActionRequired,
        level: Level::Imminent,
        summary: "cache: instruction fetch, instruction, L0",
    },
    Vector {
        name: "load of lost data in the kernel",
        record: Record {
            cs: 0x10,
            ..CONSUMED
        },
        exception: true,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "cache: data read, data, L0",
    },
    Vector {
        name: "load of lost data in the kernel, at a place with a fixup",
        record: Record {
            cs: 0x10,
            kflags: KFLAG_IN_KERNEL_RECOV,
            ..CONSUMED
        },
        exception: true,
        grade: Grade::ActionRequired,
        severity: Severity::ActionRequired,
        level: Level::Imminent,
        summary: "cache: data read, data, L0",
    },
    Vector {
        name: "consumed, with lost errors",
        record: Record {
            status: 0xfd80_0000_0010_0134,
            ..CONSUMED
        },
        exception: true,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "cache: data read, data, L0",
    },
    Vector {
        name: "no software recovery: uncorrected in the kernel",
        record: Record {
            status: 0xb400_0000_0000_0135,
            mcgcap: 0,
            cpuid: 0x206a7,
            ..BLANK
        },
        exception: false,
        grade: Grade::Fatal,
        severity: Severity::Panic,
        level: Level::Fatal,
        summary: "cache: data read, data, L1",
    },
    Vector {
        name: "command/address parity on Skylake",
        record: Record {
            status: 0x8c00_0040_0200_00b1,
            addr: 0x1000,
            misc: 0x8c,
            bank: 17,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Degrading,
        summary: "memory controller: address/command, channel 1; DDR4 command/address parity; \
                  controller 1, channel 1",
    },
    Vector {
        name: "deferred DRAM error on Zen 4",
        record: Record {
            status: 0x9c20_1000_0401_011b,
            ipid: 0x0000_0096_0015_0f00,
            synd: 0x1_0a80_0002,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            bank: 17,
            ..BLANK
        },
        exception: false,
        grade: Grade::Deferred,
        severity: Severity::Deferred,
        level: Level::Imminent,
        summary: "cache: read, generic, generic level; data poison; channel 1, rank 2",
    },
    Vector {
        name: "command/address parity on Zen 4",
        record: Record {
            status: 0x9820_0000_0404_0e0b,
            ipid: 0x0000_0096_0015_0f00,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            bank: 17,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Degrading,
        summary: "bus or interconnect: generic, generic error, I/O, generic level; \
                  command/address parity; channel 1, rank 0",
    },
    Vector {
        name: "poison consumed in user mode on Zen 4",
        record: Record {
            status: 0xbea0_0800_000c_0145 & !(1 << 57),
            addr: 0x8_0000_0040,
            ipid: 0x0010_00b0_0000_0000,
            mcgstatus: 7,
            cs: 0x33,
            cpuvendor: AMD,
            cpuid: 0xa10f11,
            bank: 0,
            ..BLANK
        },
        exception: true,
        grade: Grade::ActionRequired,
        severity: Severity::ActionRequired,
        level: Level::Imminent,
        summary: "cache: data write, data, L1; load queue parity",
    },
    Vector {
        name: "on-die ECC of an MI300's HBM",
        record: Record {
            status: 0x9c20_4000_0000_011b,
            addr: 0x0000_0000_0a2b_3ce4,
            ipid: 0x0000_0096_7934_1f00,
            cpuvendor: AMD,
            cpuid: 0xa90f01,
            bank: 30,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "cache: read, generic, generic level; on-die ECC of the DRAM; controller 3, \
                  channel 1, rank 5, bank 3, row 2767, column 18",
    },
    Vector {
        name: "corrected DRAM error on Hygon",
        record: Record {
            status: 0x9c20_4000_0000_011b,
            ipid: 0x0000_0096_0025_0f00,
            synd: 1,
            cpuvendor: HYGON,
            cpuid: 0x900f11,
            bank: 15,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "cache: read, generic, generic level; DRAM ECC; channel 2, rank 1",
    },
    Vector {
        name: "corrected on Zhaoxin",
        record: Record {
            status: 0x8c00_0000_0000_009f,
            addr: 0x1000,
            misc: 0x8c,
            cpuvendor: ZHAOXIN,
            cpuid: 0x107b0,
            bank: 3,
            ..BLANK
        },
        exception: false,
        grade: Grade::Corrected,
        severity: Severity::Keep,
        level: Level::Watch,
        summary: "memory controller: read, channel not told",
    },
];
