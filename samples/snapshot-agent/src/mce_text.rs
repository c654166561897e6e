// SPDX-License-Identifier: GPL-2.0
//! Machine checks in words and as JSON, by the kernel module's own decoder.

use serde::Serialize;

use crate::abi::{mce, Mce};
use crate::decode::record::{Record, Vendor, CAP_CMCI_P, CAP_SER_P, MCG_MCIP};
use crate::decode::severity::{self, Context, Features};
use crate::decode::text::{Flags, Origin, Summary};

/// The registers of a machine check, and what they say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Registers {
    status: String,
    addr: String,
    misc: String,
    mcgstatus: String,
    ip: String,
    synd: String,
    ipid: String,
    synd1: String,
    synd2: String,
    mcgcap: String,
    ppin: String,
    tsc: String,
    cpuid: String,
    microcode: String,
    vendor: &'static str,
    bank: u8,
    cs: u8,
    apicid: u32,
    socketid: u32,
    /// `struct mce.severity`, 0: not graded by the kernel.
    kernel_severity: u8,
    /// Why the event's level is what it is.
    reasons: Vec<&'static str>,
    page_count: u32,
    dimm_count: u32,
    bank_count: u32,
    socket_count: u32,
    /// Names of the bits that are set in `status`.
    flags: String,
    /// Where in the processor the error was seen.
    origin: String,
    /// What happened.
    summary: String,
}

impl Registers {
    /// From an event's payload.
    pub fn new(mce: &Mce) -> Self {
        let hex = |value: u64| format!("{value:#x}");
        let record = record(mce);
        Self {
            status: hex(mce.status),
            addr: hex(mce.addr),
            misc: hex(mce.misc),
            mcgstatus: hex(mce.mcgstatus),
            ip: hex(mce.ip),
            synd: hex(mce.synd),
            ipid: hex(mce.ipid),
            synd1: hex(mce.synd1),
            synd2: hex(mce.synd2),
            mcgcap: hex(mce.mcgcap),
            ppin: hex(mce.ppin),
            tsc: hex(mce.tsc),
            cpuid: hex(mce.cpuid.into()),
            microcode: hex(mce.microcode.into()),
            vendor: vendor_name(record.vendor()),
            bank: mce.bank,
            cs: mce.cs,
            apicid: mce.apicid,
            socketid: mce.socketid,
            kernel_severity: mce.kernel_severity,
            reasons: reasons(mce.reason),
            page_count: mce.page_count,
            dimm_count: mce.dimm_count,
            bank_count: mce.bank_count,
            socket_count: mce.socket_count,
            flags: Flags(&record).to_string(),
            origin: Origin(&record).to_string(),
            summary: Summary(&record).to_string(),
        }
    }
}

/// One line: the grade as the event has it, where, what, and why the level.
pub fn text(grade: &str, mce: &Mce) -> String {
    let record = record(mce);
    let mut text = format!("{grade}: {}: {}", Origin(&record), Summary(&record));
    if let Some((address, _)) = record.physical_address() {
        text += &format!("; address {address:#x}");
    }
    let reasons = reasons(mce.reason & !mce::R_GRADE);
    if !reasons.is_empty() {
        text += &format!(" ({})", reasons.join(", "));
    }
    text
}

fn record(mce: &Mce) -> Record {
    Record {
        status: mce.status,
        addr: mce.addr,
        misc: mce.misc,
        mcgstatus: mce.mcgstatus,
        ip: mce.ip,
        tsc: mce.tsc,
        mcgcap: mce.mcgcap,
        synd: mce.synd,
        ipid: mce.ipid,
        synd1: mce.synd1,
        synd2: mce.synd2,
        ppin: mce.ppin,
        cpuid: mce.cpuid,
        socketid: mce.socketid,
        apicid: mce.apicid,
        microcode: mce.microcode,
        cpuvendor: mce.cpuvendor,
        severity: mce.kernel_severity,
        cs: mce.cs,
        bank: mce.bank,
        ..Record::default()
    }
}

const REASONS: [(u32, &str); 12] = [
    (mce::R_GRADE, "own grade"),
    (mce::R_PAGE, "page's bucket full"),
    (mce::R_DIMM, "DIMM's bucket full"),
    (mce::R_BANK, "bank's bucket full"),
    (mce::R_SOCKET, "socket's bucket full"),
    (mce::R_STORM, "corrected-error storm"),
    (mce::R_OVERFLOW, "overflow"),
    (mce::R_COLUMNS, "several columns of a row"),
    (mce::R_PARITY, "command/address parity"),
    (mce::R_ESCALATED, "escalated"),
    (mce::R_HIDDEN_UC, "uncorrected, logged as corrected"),
    (mce::R_EVICTED, "bucket table full"),
];

fn reasons(mask: u32) -> Vec<&'static str> {
    let set = |(bit, name): (u32, &'static str)| (mask & bit != 0).then_some(name);
    REASONS.into_iter().filter_map(set).collect()
}

const VENDORS: [(&str, u8, Vendor); 4] = [
    ("intel", 0, Vendor::Intel),
    ("amd", 2, Vendor::Amd),
    ("hygon", 9, Vendor::Hygon),
    ("zhaoxin", 10, Vendor::Zhaoxin),
];

fn vendor_name(vendor: Vendor) -> &'static str {
    let named = VENDORS.iter().find(|(_, _, known)| *known == vendor);
    named.map_or("other", |(name, _, _)| name)
}

/// Reads registers from words such as `status=0xbd80000000100134`. Without
/// `mcgcap` the processor is taken for one with software error recovery and
/// corrected-error counts, as Intel's servers since 2010 are.
///
/// # Errors
///
/// A text that says which word is wrong.
pub fn parse(words: &[String]) -> Result<Mce, String> {
    let mut mce = Mce {
        mcgcap: CAP_SER_P | CAP_CMCI_P,
        ..Mce::ZERO
    };
    let mut seen = false;
    for word in words {
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word:?}: not name=value"))?;
        if name == "vendor" {
            let vendor = VENDORS.iter().find(|(known, _, _)| *known == value);
            let names = VENDORS.map(|(name, _, _)| name).join(", ");
            let (_, raw, _) = vendor.ok_or_else(|| format!("{word:?}: not one of {names}"))?;
            mce.cpuvendor = *raw;
            continue;
        }
        let parsed = match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => value.parse(),
        };
        let value = parsed.map_err(|err| format!("{word:?}: {err}"))?;
        let small = || u32::try_from(value).map_err(|_| format!("{word:?}: above 32 bits"));
        let byte = || u8::try_from(value).map_err(|_| format!("{word:?}: above 255"));
        match name {
            "status" => {
                mce.status = value;
                seen = true;
            }
            "addr" => mce.addr = value,
            "misc" => mce.misc = value,
            "mcgstatus" => mce.mcgstatus = value,
            "ip" => mce.ip = value,
            "synd" => mce.synd = value,
            "ipid" => mce.ipid = value,
            "synd1" => mce.synd1 = value,
            "synd2" => mce.synd2 = value,
            "mcgcap" => mce.mcgcap = value,
            "cpuid" => mce.cpuid = small()?,
            "socketid" => mce.socketid = small()?,
            "bank" => mce.bank = byte()?,
            "cs" => mce.cs = byte()?,
            _ => {
                return Err(format!(
                    "{name:?}: not one of status, addr, misc, mcgstatus, ip, synd, ipid, synd1, \
                     synd2, mcgcap, cpuid, socketid, bank, cs, vendor"
                ));
            }
        }
    }
    if seen {
        Ok(mce)
    } else {
        Err("status=... is needed".into())
    }
}

/// The registers, their text and the grade that they would be given.
#[derive(Debug, Serialize)]
pub struct Decoded {
    /// What they say.
    #[serde(flatten)]
    pub registers: Registers,
    /// How the module would grade them by themselves.
    pub grade: &'static str,
    /// By which rule.
    pub why: &'static str,
}

impl Decoded {
    /// Decodes registers that came without an event.
    pub fn new(mce: &Mce) -> Self {
        let record = record(mce);
        // Set while the handler runs, so that it tells how the record was found.
        let exception = record.mcgstatus & MCG_MCIP != 0;
        let features = Features::assumed(&record);
        let graded = severity::grade(&record, Context::of(&record), &features, exception);
        Self {
            registers: Registers::new(mce),
            grade: graded.grade.name(),
            why: graded.why,
        }
    }

    /// For people.
    pub fn lines(&self) -> String {
        let Registers {
            origin,
            summary,
            flags,
            ..
        } = &self.registers;
        let Self { grade, why, .. } = self;
        format!("where: {origin}\nwhat:  {summary}\nflags: {flags}\ngrade: {grade} ({why})")
    }
}
