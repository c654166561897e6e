// SPDX-License-Identifier: GPL-2.0

//! The architectural error code, `MCi_STATUS` 15:0.
//!
//! Intel SDM volume 3B, "Interpreting the MCA Error Codes": simple and compound codes, bit 12 is
//! the filter bit. AMD APM volume 2, "MCA_STATUS error codes": the TLB, memory, bus and internal
//! forms of the same scheme, no filter bit.

use super::record::{bits, Vendor};

/// What a transaction moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// Instructions.
    Instruction,
    /// Data.
    Data,
    /// Not told.
    Generic,
    /// Encoding 3.
    Reserved,
}

/// Where in the cache hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheLevel {
    /// Level 0 (Intel); the core (AMD).
    L0,
    /// Level 1.
    L1,
    /// Level 2.
    L2,
    /// Not told (Intel); level 3 or generic (AMD).
    Generic,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Any.
    Generic,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Data read.
    DataRead,
    /// Data write.
    DataWrite,
    /// Instruction fetch.
    InstructionFetch,
    /// Prefetch.
    Prefetch,
    /// Eviction.
    Eviction,
    /// Snoop (Intel), probe (AMD).
    Snoop,
    /// Encodings 9 to 15.
    Reserved(u8),
}

/// What a memory controller was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryOperation {
    /// Not told.
    Generic,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Sending an address or a command.
    AddressCommand,
    /// Scrubbing.
    Scrub,
    /// Encodings 5 to 7.
    Reserved(u8),
}

/// What part the processor had in a bus transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Participation {
    /// It asked.
    Source,
    /// It answered.
    Responder,
    /// It watched.
    Observer,
    /// Not told.
    Generic,
}

/// What a bus transaction was aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Memory.
    Memory,
    /// Encoding 1.
    Reserved,
    /// I/O.
    Io,
    /// Something else.
    Other,
}

/// An architectural error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Nothing was reported.
    NoError,
    /// Reported, but not classified.
    Unclassified,
    /// Parity error in the microcode ROM.
    MicrocodeRomParity,
    /// `BINIT#` from another processor.
    External,
    /// Functional redundancy check: master and slave differ.
    FunctionalRedundancy,
    /// Parity error inside the processor.
    InternalParity,
    /// SMM code was to be fetched from outside its ranges.
    SmmHandlerAccess,
    /// The internal timer expired: nothing retired for too long.
    InternalTimer,
    /// I/O error.
    Io,
    /// Internal, with bits that only the vendor knows (9:0); on AMD 1:0 are UU.
    Internal(u16),
    /// Some level of the cache hierarchy.
    CacheHierarchy(CacheLevel),
    /// Translation look-aside buffer.
    Tlb(Transaction, CacheLevel),
    /// Memory controller; the channel unless it is 15, not told.
    Memory(MemoryOperation, Option<u8>),
    /// Memory that is used as a cache of other memory.
    ExtendedMemory(MemoryOperation, Option<u8>),
    /// Cache.
    Cache(Request, Transaction, CacheLevel),
    /// Bus or interconnect; the flag tells a timeout.
    Bus(Participation, bool, Request, Target, CacheLevel),
    /// No form that the manuals name.
    Unknown(u16),
}

impl Code {
    /// Decodes `MCi_STATUS` 15:0 of a CPU of `vendor`.
    pub(crate) const fn decode(mcacod: u16, vendor: Vendor) -> Self {
        if vendor.is_amd() {
            Self::decode_amd(mcacod)
        } else {
            Self::decode_intel(mcacod)
        }
    }

    /// Whether the error is one of memory or of the path to it, for both vendors.
    pub(crate) const fn is_memory_controller(self) -> bool {
        matches!(self, Code::Memory(..) | Code::ExtendedMemory(..))
    }

    const fn decode_intel(mcacod: u16) -> Self {
        let code = mcacod & !(1 << 12);
        match code {
            0x0000 => Code::NoError,
            0x0001 => Code::Unclassified,
            0x0002 => Code::MicrocodeRomParity,
            0x0003 => Code::External,
            0x0004 => Code::FunctionalRedundancy,
            0x0005 => Code::InternalParity,
            0x0006 => Code::SmmHandlerAccess,
            0x0400 => Code::InternalTimer,
            0x0e0b => Code::Io,
            0x000c..=0x000f => Code::CacheHierarchy(level(code)),
            0x0010..=0x001f => Code::Tlb(transaction(code), level(code)),
            0x0080..=0x00ff => Code::Memory(operation(code), channel(code)),
            0x0100..=0x01ff => Code::Cache(request(code), transaction(code), level(code)),
            0x0280..=0x02ff => Code::ExtendedMemory(operation(code), channel(code)),
            0x0401..=0x07ff => Code::Internal(code & 0x3ff),
            0x0800..=0x0fff => bus(code),
            _ => Code::Unknown(mcacod),
        }
    }

    const fn decode_amd(code: u16) -> Self {
        match code {
            0x0000 => Code::NoError,
            0x0010..=0x001f => Code::Tlb(transaction(code), level(code)),
            0x0100..=0x01ff => Code::Cache(request(code), transaction(code), level(code)),
            0x0400 | 0x0500 | 0x0600 | 0x0700 => Code::Internal(bits(code as u64, 9, 8) as u16),
            0x0800..=0x0fff => bus(code),
            _ => Code::Unknown(code),
        }
    }
}

/// Whether the hardware filters (stops reporting) corrected errors after this one: bit 12, Intel.
pub(crate) const fn is_filtered(mcacod: u16, vendor: Vendor) -> bool {
    !vendor.is_amd() && mcacod & (1 << 12) != 0
}

const fn level(code: u16) -> CacheLevel {
    match code & 3 {
        0 => CacheLevel::L0,
        1 => CacheLevel::L1,
        2 => CacheLevel::L2,
        _ => CacheLevel::Generic,
    }
}

const fn transaction(code: u16) -> Transaction {
    match (code >> 2) & 3 {
        0 => Transaction::Instruction,
        1 => Transaction::Data,
        2 => Transaction::Generic,
        _ => Transaction::Reserved,
    }
}

const fn request(code: u16) -> Request {
    match (code >> 4) & 0xf {
        0 => Request::Generic,
        1 => Request::Read,
        2 => Request::Write,
        3 => Request::DataRead,
        4 => Request::DataWrite,
        5 => Request::InstructionFetch,
        6 => Request::Prefetch,
        7 => Request::Eviction,
        8 => Request::Snoop,
        other => Request::Reserved(other as u8),
    }
}

const fn operation(code: u16) -> MemoryOperation {
    match (code >> 4) & 7 {
        0 => MemoryOperation::Generic,
        1 => MemoryOperation::Read,
        2 => MemoryOperation::Write,
        3 => MemoryOperation::AddressCommand,
        4 => MemoryOperation::Scrub,
        other => MemoryOperation::Reserved(other as u8),
    }
}

const fn channel(code: u16) -> Option<u8> {
    match code & 0xf {
        0xf => None,
        channel => Some(channel as u8),
    }
}

const fn bus(code: u16) -> Code {
    let participation = match (code >> 9) & 3 {
        0 => Participation::Source,
        1 => Participation::Responder,
        2 => Participation::Observer,
        _ => Participation::Generic,
    };
    let target = match (code >> 2) & 3 {
        0 => Target::Memory,
        1 => Target::Reserved,
        2 => Target::Io,
        _ => Target::Other,
    };
    let timeout = code & (1 << 8) != 0;
    Code::Bus(participation, timeout, request(code), target, level(code))
}
