// SPDX-License-Identifier: GPL-2.0

//! Records in words.

use super::intel::{self, Model};
use super::location::{self, Location};
use super::mcacod::{
    is_filtered, CacheLevel, Code, MemoryOperation, Participation, Request, Target, Transaction,
};
use super::record::{
    Record, Vendor, ADDRV, AR, DEFERRED, EN, MISCV, OVER, PCC, POISON, S, SCRUB, SYNDV, TCC, UC,
    VAL,
};
use super::smca;
use super::smca_text;
use core::fmt::{self, Display, Formatter};

impl Transaction {
    const fn name(self) -> &'static str {
        match self {
            Transaction::Instruction => "instruction",
            Transaction::Data => "data",
            Transaction::Generic => "generic",
            Transaction::Reserved => "reserved",
        }
    }
}

impl CacheLevel {
    const fn name(self) -> &'static str {
        match self {
            CacheLevel::L0 => "L0",
            CacheLevel::L1 => "L1",
            CacheLevel::L2 => "L2",
            CacheLevel::Generic => "generic level",
        }
    }
}

impl Request {
    const fn name(self) -> &'static str {
        match self {
            Request::Generic => "generic error",
            Request::Read => "read",
            Request::Write => "write",
            Request::DataRead => "data read",
            Request::DataWrite => "data write",
            Request::InstructionFetch => "instruction fetch",
            Request::Prefetch => "prefetch",
            Request::Eviction => "eviction",
            Request::Snoop => "snoop",
            Request::Reserved(_) => "reserved request",
        }
    }
}

impl MemoryOperation {
    const fn name(self) -> &'static str {
        match self {
            MemoryOperation::Generic => "generic error",
            MemoryOperation::Read => "read",
            MemoryOperation::Write => "write",
            MemoryOperation::AddressCommand => "address/command",
            MemoryOperation::Scrub => "scrubbing",
            MemoryOperation::Reserved(_) => "reserved operation",
        }
    }
}

impl Participation {
    const fn name(self) -> &'static str {
        match self {
            Participation::Source => "source",
            Participation::Responder => "responder",
            Participation::Observer => "observer",
            Participation::Generic => "generic",
        }
    }
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Target::Memory => "memory",
            Target::Reserved => "reserved",
            Target::Io => "I/O",
            Target::Other => "other",
        }
    }
}

fn memory(
    f: &mut Formatter<'_>,
    what: &str,
    operation: MemoryOperation,
    channel: Option<u8>,
) -> fmt::Result {
    write!(f, "{what}: {}, ", operation.name())?;
    match channel {
        Some(channel) => write!(f, "channel {channel}"),
        None => f.write_str("channel not told"),
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Code::NoError => f.write_str("no error"),
            Code::Unclassified => f.write_str("unclassified"),
            Code::MicrocodeRomParity => f.write_str("microcode ROM parity"),
            Code::External => f.write_str("external error (BINIT#)"),
            Code::FunctionalRedundancy => f.write_str("functional redundancy check"),
            Code::InternalParity => f.write_str("internal parity"),
            Code::SmmHandlerAccess => f.write_str("SMM handler code access violation"),
            Code::InternalTimer => f.write_str("internal timer"),
            Code::Io => f.write_str("I/O error"),
            Code::Internal(detail) => write!(f, "internal, unclassified ({detail:#05x})"),
            Code::CacheHierarchy(level) => write!(f, "cache hierarchy: {}", level.name()),
            Code::Tlb(transaction, level) => {
                write!(f, "TLB: {}, {}", transaction.name(), level.name())
            }
            Code::Memory(operation, channel) => memory(f, "memory controller", operation, channel),
            Code::ExtendedMemory(operation, channel) => {
                memory(f, "memory as a cache", operation, channel)
            }
            Code::Cache(request, transaction, level) => write!(
                f,
                "cache: {}, {}, {}",
                request.name(),
                transaction.name(),
                level.name()
            ),
            Code::Bus(participation, timeout, request, target, level) => write!(
                f,
                "bus or interconnect: {}, {}, {}, {}{}",
                participation.name(),
                request.name(),
                target.name(),
                level.name(),
                if timeout { ", timed out" } else { "" }
            ),
            Code::Unknown(code) => write!(f, "not an architectural code ({code:#06x})"),
        }
    }
}

/// The flags of `MCi_STATUS` by their manuals' names.
pub(crate) struct Flags<'a>(pub(crate) &'a Record);

impl Display for Flags<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const COMMON: &[(u64, &str)] = &[
            (VAL, "VAL"),
            (OVER, "OVER"),
            (UC, "UC"),
            (EN, "EN"),
            (MISCV, "MISCV"),
            (ADDRV, "ADDRV"),
            (PCC, "PCC"),
        ];
        const INTEL: &[(u64, &str)] = &[(S, "S"), (AR, "AR")];
        const AMD: &[(u64, &str)] = &[
            (TCC, "TCC"),
            (SYNDV, "SYNDV"),
            (DEFERRED, "Deferred"),
            (POISON, "Poison"),
            (SCRUB, "Scrub"),
        ];

        let record = self.0;
        let own = if record.format().is_amd() { AMD } else { INTEL };
        let mut separator = "";
        for (_, name) in COMMON.iter().chain(own).filter(|(bit, _)| record.has(*bit)) {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        Ok(())
    }
}

impl Display for Location {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = [
            ("controller", self.controller.map(u32::from)),
            ("channel", self.channel.map(u32::from)),
            ("dimm", self.dimm.map(u32::from)),
            ("rank", self.rank.map(u32::from)),
            ("bank group", self.bank_group.map(u32::from)),
            ("bank", self.bank.map(u32::from)),
            ("row", self.row),
            ("column", self.column),
        ];
        let mut separator = "";
        for (name, value) in parts {
            if let Some(value) = value {
                write!(f, "{separator}{name} {value}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// Where in the processor the error was seen.
pub(crate) struct Origin<'a>(pub(crate) &'a Record);

impl Display for Origin<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let record = self.0;
        if record.is_firmware_first() {
            return f.write_str("firmware (GHES), no bank");
        }
        let unit = match record.vendor() {
            Vendor::Amd | Vendor::Hygon => smca::name(record),
            _ => intel::unit(Model::of(record), record.bank).map(|unit| unit.name()),
        };
        match unit {
            Some(unit) => write!(f, "bank {} ({unit})", record.bank),
            None => write!(f, "bank {}", record.bank),
        }
    }
}

/// What happened, in one line: the architectural code, then what only the vendor's tables say.
pub(crate) struct Summary<'a>(pub(crate) &'a Record);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let record = self.0;
        let vendor = record.format();
        write!(f, "{}", Code::decode(record.mcacod(), vendor))?;
        if vendor.is_amd() {
            if let Some(text) = smca_text::describe(record) {
                write!(f, "; {text}")?;
            }
        } else {
            let mut result = Ok(());
            intel::describe(record, |text| {
                if result.is_ok() {
                    result = write!(f, "; {text}");
                }
            });
            result?;
        }
        if is_filtered(record.mcacod(), vendor) {
            f.write_str("; more corrected errors are filtered")?;
        }
        if let Some(place) = location::locate(record) {
            if place != Location::default() {
                write!(f, "; {place}")?;
            }
        }
        Ok(())
    }
}
