// SPDX-License-Identifier: GPL-2.0

//! Bank types of AMD's scalable MCA.
//!
//! The type of a bank is told by its `MCA_IPID` register, which is in the record: bank numbers mean
//! nothing across processors, and not even across the cores of one. Hardware ids and types:
//! AMD processor programming references; arch/x86/kernel/cpu/mce/amd.c, `smca_hwid_mcatypes[]`.

use super::record::{bits, Record};

/// The part of the processor that an SMCA bank reports for.
///
/// The numbers are those of `enum smca_bank_types` of Linux 7.3 and belong to the fault ABI
/// (`nullhz_fault_mce.smca_type` is one more).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum BankType {
    Cs = 0,
    CsV2 = 1,
    DaccBe = 2,
    DaccFe = 3,
    De = 4,
    Eddr5Cmn = 5,
    Ex = 6,
    Fp = 7,
    GmiPcs = 8,
    GmiPhy = 9,
    If = 10,
    L2 = 11,
    L3 = 12,
    Ls = 13,
    LsV2 = 14,
    MaLlc = 15,
    Mp5 = 16,
    Mpart = 17,
    Mpasp = 18,
    MpaspV2 = 19,
    Mpdacc = 20,
    Mpdma = 21,
    Mpm = 22,
    Mpras = 23,
    Nbif = 24,
    Nbio = 25,
    Pb = 26,
    Pcie = 27,
    PcieV2 = 28,
    PciePl = 29,
    Pie = 30,
    Psp = 31,
    PspV2 = 32,
    Reserved = 33,
    Sata = 34,
    Shub = 35,
    Smu = 36,
    SmuV2 = 37,
    Ssbdci = 38,
    Umc = 39,
    UmcV2 = 40,
    Usb = 41,
    UsrCp = 42,
    UsrDp = 43,
    WaflPhy = 44,
    XgmiPcs = 45,
    XgmiPhy = 46,
}

/// Hardware id, MCA type, and what they stand for.
const TYPES: &[(u16, u16, BankType, &str)] = &[
    (0x2e, 0x0, BankType::Cs, "coherent station"),
    (0x2e, 0x2, BankType::CsV2, "coherent station"),
    (0x164, 0x0, BankType::DaccBe, "data acceleration back end"),
    (0x157, 0x0, BankType::DaccFe, "data acceleration front end"),
    (0xb0, 0x3, BankType::De, "decode unit"),
    (0x1e0, 0x0, BankType::Eddr5Cmn, "eDDR5 common"),
    (0xb0, 0x5, BankType::Ex, "execution unit"),
    (0xb0, 0x6, BankType::Fp, "floating-point unit"),
    (0x241, 0x0, BankType::GmiPcs, "GMI PCS"),
    (0x269, 0x0, BankType::GmiPhy, "GMI PHY"),
    (0xb0, 0x1, BankType::If, "instruction fetch unit"),
    (0xb0, 0x2, BankType::L2, "L2 cache"),
    (0xb0, 0x7, BankType::L3, "L3 cache"),
    (0xb0, 0x0, BankType::Ls, "load-store unit"),
    (0xb0, 0x10, BankType::LsV2, "load-store unit"),
    (
        0x2e,
        0x4,
        BankType::MaLlc,
        "memory-attached last-level cache",
    ),
    (0x01, 0x2, BankType::Mp5, "microprocessor 5"),
    (0xff, 0x2, BankType::Mpart, "root of trust"),
    (0xfd, 0x0, BankType::Mpasp, "secure processor"),
    (0xfd, 0x1, BankType::MpaspV2, "secure processor"),
    (0xbe, 0x0, BankType::Mpdacc, "data acceleration processor"),
    (0x01, 0x3, BankType::Mpdma, "DMA processor"),
    (0xf9, 0x0, BankType::Mpm, "manageability processor"),
    (0x12, 0x0, BankType::Mpras, "RAS processor"),
    (0x6c, 0x0, BankType::Nbif, "northbridge interface"),
    (0x18, 0x0, BankType::Nbio, "northbridge I/O"),
    (0x05, 0x0, BankType::Pb, "parameter block"),
    (0x46, 0x0, BankType::Pcie, "PCIe root"),
    (0x46, 0x1, BankType::PcieV2, "PCIe root"),
    (0x1e1, 0x0, BankType::PciePl, "PCIe link"),
    (0x2e, 0x1, BankType::Pie, "power, interrupts, etc."),
    (0xff, 0x0, BankType::Psp, "security processor"),
    (0xff, 0x1, BankType::PspV2, "security processor"),
    (0x00, 0x0, BankType::Reserved, "reserved"),
    (0xa8, 0x0, BankType::Sata, "SATA"),
    (0x80, 0x0, BankType::Shub, "system hub"),
    (0x01, 0x0, BankType::Smu, "system management unit"),
    (0x01, 0x1, BankType::SmuV2, "system management unit"),
    (0x5c, 0x0, BankType::Ssbdci, "die-to-die interconnect"),
    (0x96, 0x0, BankType::Umc, "memory controller"),
    (0x96, 0x1, BankType::UmcV2, "memory controller v2"),
    (0xaa, 0x0, BankType::Usb, "USB"),
    (0x180, 0x0, BankType::UsrCp, "USR control plane"),
    (0x170, 0x0, BankType::UsrDp, "USR data plane"),
    (0x267, 0x0, BankType::WaflPhy, "WAFL PHY"),
    (0x50, 0x0, BankType::XgmiPcs, "xGMI PCS"),
    (0x259, 0x0, BankType::XgmiPhy, "xGMI PHY"),
];

fn row(record: &Record) -> Option<&'static (u16, u16, BankType, &'static str)> {
    // A reserved bank has an all-zero id; so has a record from a machine without SMCA.
    if record.ipid == 0 || !record.format().is_amd() {
        return None;
    }
    let hwid = bits(record.ipid, 43, 32) as u16;
    let mca_type = bits(record.ipid, 63, 48) as u16;
    TYPES.iter().find(|row| row.0 == hwid && row.1 == mca_type)
}

/// The type of the bank that `record` is from; [`None`] without SMCA or for an unknown id.
pub(crate) fn bank_type(record: &Record) -> Option<BankType> {
    row(record).map(|row| row.2)
}

/// The name of the part that the bank reports for.
pub(crate) fn name(record: &Record) -> Option<&'static str> {
    row(record).map(|row| row.3)
}

/// Whether the record is from an MI300: family 19h, models 90h to 9fh, with memory in HBM stacks.
pub(crate) fn is_mi300(record: &Record) -> bool {
    record.family() == 0x19 && (0x90..=0x9f).contains(&record.model())
}

/// Whether extended error codes of the coherent station are those of the Genoa revision guide,
/// erratum 1384.
pub(crate) fn has_renumbered_station(record: &Record) -> bool {
    match record.family() {
        0x19 => matches!(record.model(), 0x10..=0x1f | 0x60..=0x7b | 0xa0..=0xaf),
        0x1a => matches!(record.model(), 0x40..=0x4f),
        _ => false,
    }
}

/// Whether the record reports command/address parity: extended code 4 of a memory controller.
pub(crate) fn is_command_parity(record: &Record) -> bool {
    matches!(bank_type(record), Some(BankType::Umc | BankType::UmcV2)) && record.extended() == 4
}
