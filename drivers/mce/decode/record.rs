// SPDX-License-Identifier: GPL-2.0

//! A machine-check record and the names of its bits.

/// `MCG_STATUS.RIPV`: execution can go on where it was interrupted.
pub(crate) const MCG_RIPV: u64 = 1 << 0;
/// `MCG_STATUS.EIPV`: the instruction pointer belongs to the error.
pub(crate) const MCG_EIPV: u64 = 1 << 1;
/// `MCG_STATUS.MCIP`: a machine check is in progress.
pub(crate) const MCG_MCIP: u64 = 1 << 2;
/// `MCG_STATUS.SEAM_NR`: taken inside SEAM non-root mode.
pub(crate) const MCG_SEAM_NR: u64 = 1 << 12;

/// `MCG_CAP.CMCI_P`: corrected errors are counted and signalled.
pub(crate) const CAP_CMCI_P: u64 = 1 << 10;
/// `MCG_CAP.SER_P`: software error recovery.
pub(crate) const CAP_SER_P: u64 = 1 << 24;

/// `MCi_STATUS.VAL`.
pub(crate) const VAL: u64 = 1 << 63;
/// `MCi_STATUS.OVER`: an earlier error was overwritten.
pub(crate) const OVER: u64 = 1 << 62;
/// `MCi_STATUS.UC`: not corrected.
pub(crate) const UC: u64 = 1 << 61;
/// `MCi_STATUS.EN`: reporting was enabled.
pub(crate) const EN: u64 = 1 << 60;
/// `MCi_STATUS.MISCV`.
pub(crate) const MISCV: u64 = 1 << 59;
/// `MCi_STATUS.ADDRV`.
pub(crate) const ADDRV: u64 = 1 << 58;
/// `MCi_STATUS.PCC`: processor context corrupt.
pub(crate) const PCC: u64 = 1 << 57;
/// `MCi_STATUS.S`, Intel: signalled by a machine check.
pub(crate) const S: u64 = 1 << 56;
/// `MCi_STATUS.AR`, Intel: software must act before it goes on. The same bit is [`TCC`] on AMD.
pub(crate) const AR: u64 = 1 << 55;
/// `MCA_STATUS.TCC`, AMD: task context corrupt. The same bit is [`AR`] on Intel.
pub(crate) const TCC: u64 = 1 << 55;
/// `MCA_STATUS.SYNDV`, AMD.
pub(crate) const SYNDV: u64 = 1 << 53;
/// `MCA_STATUS.Deferred`, AMD.
pub(crate) const DEFERRED: u64 = 1 << 44;
/// `MCA_STATUS.Poison`, AMD.
pub(crate) const POISON: u64 = 1 << 43;
/// `MCA_STATUS.Scrub`, AMD.
pub(crate) const SCRUB: u64 = 1 << 40;

/// `struct mce.kflags`, `MCE_IN_KERNEL_RECOV`: the kernel can go on through a fixup.
pub(crate) const KFLAG_IN_KERNEL_RECOV: u64 = 1 << 6;

/// The bank number of records that GHES makes up: `(u8)-1`, not a bank.
pub(crate) const BANK_NONE: u8 = 255;
/// The kernel's `MAX_NR_BANKS`.
pub(crate) const MAX_BANKS: u8 = 64;

/// Bits `high..=low` of `value`, the way the manuals write them; `low <= high < 64`.
#[inline]
pub(crate) const fn bits(value: u64, high: u32, low: u32) -> u64 {
    (value >> low) & (u64::MAX >> (63 - (high - low)))
}

/// Who made the CPU that a record is from (`struct mce.cpuvendor`, the kernel's `X86_VENDOR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// `X86_VENDOR_INTEL`.
    Intel,
    /// `X86_VENDOR_AMD`.
    Amd,
    /// `X86_VENDOR_HYGON`: AMD's architecture.
    Hygon,
    /// `X86_VENDOR_ZHAOXIN`: Intel's architecture.
    Zhaoxin,
    /// Any other.
    Other,
}

impl Vendor {
    /// From the kernel's number.
    pub(crate) const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Vendor::Intel,
            2 => Vendor::Amd,
            9 => Vendor::Hygon,
            10 => Vendor::Zhaoxin,
            _ => Vendor::Other,
        }
    }

    /// Whether the registers mean what AMD's manuals say; else they mean what Intel's say.
    pub(crate) const fn is_amd(self) -> bool {
        matches!(self, Vendor::Amd | Vendor::Hygon)
    }
}

/// The fields of `struct mce_hw_err` that say something about the error.
///
/// Fields have the names, units and meanings of `struct mce` (arch/x86/include/uapi/asm/mce.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) struct Record {
    pub(crate) status: u64,
    pub(crate) addr: u64,
    pub(crate) misc: u64,
    pub(crate) mcgstatus: u64,
    pub(crate) ip: u64,
    pub(crate) tsc: u64,
    pub(crate) time: u64,
    pub(crate) mcgcap: u64,
    pub(crate) synd: u64,
    pub(crate) ipid: u64,
    pub(crate) synd1: u64,
    pub(crate) synd2: u64,
    pub(crate) ppin: u64,
    pub(crate) kflags: u64,
    pub(crate) cpuid: u32,
    /// `struct mce.extcpu`: the Linux CPU number.
    pub(crate) cpu: u32,
    pub(crate) socketid: u32,
    pub(crate) apicid: u32,
    pub(crate) microcode: u32,
    pub(crate) cpuvendor: u8,
    pub(crate) inject_flags: u8,
    pub(crate) severity: u8,
    pub(crate) cs: u8,
    pub(crate) bank: u8,
}

/// Words that a record takes when it is packed.
pub(crate) const WORDS: usize = 18;

impl Record {
    /// Whether all bits of `mask` are set in `MCi_STATUS`.
    pub(crate) const fn has(&self, mask: u64) -> bool {
        self.status & mask == mask
    }

    /// The vendor of the CPU that the record is from.
    pub(crate) const fn vendor(&self) -> Vendor {
        Vendor::from_raw(self.cpuvendor)
    }

    /// Whether the kernel made the record up from what firmware (GHES) told of a memory error.
    pub(crate) const fn is_firmware_first(&self) -> bool {
        self.bank == BANK_NONE
    }

    /// Whose manuals say what the registers mean: the CPU vendor's.
    ///
    /// `apei_mce_report_mem_error()` writes what Intel's memory controllers would, on every CPU.
    pub(crate) const fn format(&self) -> Vendor {
        if self.is_firmware_first() {
            Vendor::Intel
        } else {
            self.vendor()
        }
    }

    /// `MCi_STATUS` 15:0, the architectural error code.
    pub(crate) const fn mcacod(&self) -> u16 {
        self.status as u16
    }

    /// `MCi_STATUS` 31:16, the model-specific error code.
    pub(crate) const fn mscod(&self) -> u16 {
        (self.status >> 16) as u16
    }

    /// `MCA_STATUS` 21:16, the extended error code of SMCA banks.
    pub(crate) const fn extended(&self) -> u8 {
        bits(self.status, 21, 16) as u8
    }

    /// Errors that the record stands for, at least 1.
    ///
    /// Intel counts corrected errors in bits 52:38 when `MCG_CAP.CMCI_P` is set; elsewhere those
    /// bits mean other things.
    pub(crate) const fn corrected_count(&self) -> u32 {
        if self.format().is_amd() || self.mcgcap & CAP_CMCI_P == 0 || self.has(UC) {
            return 1;
        }
        match bits(self.status, 52, 38) as u32 {
            0 => 1,
            count => count,
        }
    }

    /// Whether the record can be what it says it is: valid, of a bank that can be, or made by GHES.
    pub(crate) const fn is_plausible(&self) -> bool {
        self.has(VAL) && (self.bank < MAX_BANKS || self.is_firmware_first())
    }

    /// Whether a processor said "uncorrected" without saying what, where or on whose behalf.
    ///
    /// Emulated machine checks leave such records on every processor but the one that is meant:
    /// not enabled, no error code, no address.
    pub(crate) const fn is_spurious(&self) -> bool {
        self.status & (EN | MISCV | ADDRV | PCC) == 0 && self.status as u32 == 0
    }

    /// Display family of the CPU (`CPUID(1).EAX`).
    pub(crate) const fn family(&self) -> u32 {
        let base = (self.cpuid >> 8) & 0xf;
        if base == 0xf {
            base + ((self.cpuid >> 20) & 0xff)
        } else {
            base
        }
    }

    /// Display model of the CPU.
    pub(crate) const fn model(&self) -> u32 {
        let base = (self.cpuid >> 4) & 0xf;
        match (self.cpuid >> 8) & 0xf {
            6 | 0xf => base | ((self.cpuid >> 12) & 0xf0),
            _ => base,
        }
    }

    /// Stepping of the CPU.
    pub(crate) const fn stepping(&self) -> u32 {
        self.cpuid & 0xf
    }

    /// The physical address of the error with the number of its low bits that say nothing, when the
    /// record gives one.
    ///
    /// Intel and Zhaoxin tell the kind of the address in `MCi_MISC` 8:6 (2 is physical) and the
    /// granularity in 5:0. AMD's memory controllers give an address of their own channel instead of
    /// a system address, so that only the identity of a cell, not its page, is known there.
    pub(crate) const fn physical_address(&self) -> Option<(u64, u32)> {
        const MODE_PHYSICAL: u64 = 2;
        const PAGE_SHIFT: u32 = 12;
        const PADDRV: u64 = 1 << 54;

        if !self.has(ADDRV) {
            return None;
        }
        if self.format().is_amd() {
            if self.has(PADDRV) || self.has(POISON) {
                return Some((self.addr, 6));
            }
            return None;
        }
        let lsb = bits(self.misc, 5, 0) as u32;
        if self.has(MISCV) && bits(self.misc, 8, 6) == MODE_PHYSICAL && lsb <= PAGE_SHIFT {
            Some((self.addr, lsb))
        } else {
            None
        }
    }

    /// The record as words, for a place that can only hold words.
    pub(crate) const fn pack(&self) -> [u64; WORDS] {
        [
            self.status,
            self.addr,
            self.misc,
            self.mcgstatus,
            self.ip,
            self.tsc,
            self.time,
            self.mcgcap,
            self.synd,
            self.ipid,
            self.synd1,
            self.synd2,
            self.ppin,
            self.kflags,
            pair(self.cpuid, self.cpu),
            pair(self.socketid, self.apicid),
            pair(
                self.microcode,
                u32::from_le_bytes([self.cpuvendor, self.inject_flags, self.severity, self.cs]),
            ),
            self.bank as u64,
        ]
    }

    /// The record that [`Record::pack`] packed.
    pub(crate) const fn unpack(words: &[u64; WORDS]) -> Self {
        let [status, addr, misc, mcgstatus, ip, tsc, time, mcgcap, rest @ ..] = *words;
        let [synd, ipid, synd1, synd2, ppin, kflags, w14, w15, w16, w17] = rest;
        let [cpuvendor, inject_flags, severity, cs] = ((w16 >> 32) as u32).to_le_bytes();
        Record {
            status,
            addr,
            misc,
            mcgstatus,
            ip,
            tsc,
            time,
            mcgcap,
            synd,
            ipid,
            synd1,
            synd2,
            ppin,
            kflags,
            cpuid: w14 as u32,
            cpu: (w14 >> 32) as u32,
            socketid: w15 as u32,
            apicid: (w15 >> 32) as u32,
            microcode: w16 as u32,
            cpuvendor,
            inject_flags,
            severity,
            cs,
            bank: w17 as u8,
        }
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}
