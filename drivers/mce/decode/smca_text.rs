// SPDX-License-Identifier: GPL-2.0

//! What the extended error codes of AMD's SMCA banks mean (`MCA_STATUS` 21:16).
//!
//! AMD processor programming references, one table per bank type. Types whose codes the references
//! do not publish have no table. An empty text is a reserved code.

use super::record::Record;
use super::smca::{self, BankType};
use super::smca_text_io::{
    mpdma, smu_v2, Table, GMI_PCS, MP5, NBIF, NBIO, PCIE, PCIE_V2, PHY, PSP, PSP_V2, SATA, SMU,
    USB, USR_CP, USR_DP, XGMI_PCS,
};

/// What the extended error code of `record` means; [`None`] when no reference says.
pub(crate) fn describe(record: &Record) -> Option<&'static str> {
    let table = match smca::bank_type(record)? {
        BankType::Cs => CS,
        BankType::CsV2 if smca::has_renumbered_station(record) => CS_V2_RENUMBERED,
        BankType::CsV2 => CS_V2,
        BankType::De => DE,
        BankType::Ex => EX,
        BankType::Fp => FP,
        BankType::GmiPcs => GMI_PCS,
        BankType::GmiPhy | BankType::WaflPhy | BankType::XgmiPhy => PHY,
        BankType::If => IF,
        BankType::L2 => L2,
        BankType::L3 => L3,
        BankType::Ls => LS,
        BankType::LsV2 => LS_V2,
        BankType::MaLlc => MA_LLC,
        BankType::Mp5 => MP5,
        BankType::Mpdma => return mpdma(record.extended()),
        BankType::Nbif | BankType::Shub => NBIF,
        BankType::Nbio => NBIO,
        BankType::Pb => PB,
        BankType::Pcie => PCIE,
        BankType::PcieV2 => PCIE_V2,
        BankType::Pie => PIE,
        BankType::Psp => PSP,
        BankType::PspV2 => PSP_V2,
        BankType::Sata => SATA,
        BankType::Smu => SMU,
        BankType::SmuV2 => return smu_v2(record.extended()),
        BankType::Umc if smca::is_mi300(record) => UMC_HBM,
        BankType::Umc => UMC,
        BankType::UmcV2 => UMC_V2,
        BankType::Usb => USB,
        BankType::UsrCp => USR_CP,
        BankType::UsrDp => USR_DP,
        BankType::XgmiPcs => XGMI_PCS,
        BankType::DaccBe
        | BankType::DaccFe
        | BankType::Eddr5Cmn
        | BankType::Mpart
        | BankType::Mpasp
        | BankType::MpaspV2
        | BankType::Mpdacc
        | BankType::Mpm
        | BankType::Mpras
        | BankType::PciePl
        | BankType::Reserved
        | BankType::Ssbdci => return None,
    };
    table
        .get(usize::from(record.extended()))
        .copied()
        .filter(|text| !text.is_empty())
}

const LS: Table = &[
    "load queue parity",
    "store queue parity",
    "miss address buffer parity",
    "L1 TLB parity",
    "data cache tag, type 5",
    "data cache tag, type 6",
    "data cache tag, type 1",
    "internal, type 1",
    "internal, type 2",
    "system read data, thread 0",
    "system read data, thread 1",
    "data cache tag, type 2",
    "data cache data, type 1 (poison consumed)",
    "data cache data, type 2",
    "data cache data, type 3",
    "data cache tag, type 4",
    "L2 TLB parity",
    "page directory cache parity",
    "data cache tag, type 3",
    "data cache tag, type 5",
    "L2 fill data",
    "store coalescing buffer state or address",
    "store coalescing buffer data, pipe 0",
    "store coalescing buffer data, pipe 1",
    "store coalescing buffer data, non-cacheable",
    "system read data in the write combining buffer",
    "hardware assertion",
];

const LS_V2: Table = &[
    "ECC on a probe or victim read of the data cache",
    "ECC or L2 poison on a load",
    "ECC on a store's read-modify-write",
    "tag ECC or poison mismatch on a probe or victim read",
    "tag ECC or poison mismatch on a load",
    "tag ECC or poison mismatch on a store",
    "EMEM ECC on a load",
    "EMEM ECC on a store's read-modify-write",
    "L1 TLB parity",
    "L2 TLB parity",
    "page walk cache parity",
    "store queue parity",
    "load queue parity",
    "miss address buffer parity",
    "store coalescing buffer state parity",
    "store coalescing buffer address parity",
    "store coalescing buffer data parity",
    "write combining buffer parity",
    "poisoned line in the store coalescing buffer",
    "system read data, load",
    "system read data, store coalescing buffer",
    "system read data, write combining buffer",
    "hardware assertion",
    "store forwarding or store data parity",
];

const IF: Table = &[
    "microtag probe port parity",
    "microtag or full tag hit twice",
    "full tag parity",
    "data array parity",
    "prediction queue parity",
    "L0 ITLB parity",
    "L1 TLB parity",
    "L2 TLB parity",
    "branch prediction queue snoop parity, thread 0",
    "branch prediction queue snoop parity, thread 1",
    "L1 branch target buffer hit twice",
    "L2 branch target buffer hit twice",
    "poison in an L2 response",
    "system read data",
    "hardware assertion",
    "L1 TLB hit twice",
    "L2 TLB hit twice",
    "branch status register parity",
    "CtMce",
];

const L2: Table = &[
    "tag hit twice",
    "tag or state ECC",
    "data ECC",
    "hardware assertion",
    "read response parity",
    "raised by a programmable state machine",
];

const DE: Table = &[
    "micro-op cache tag parity",
    "micro-op cache data parity",
    "instruction byte buffer parity",
    "micro-op queue parity",
    "dispatch queue parity",
    "fetch address FIFO parity",
    "patch RAM data parity",
    "patch RAM sequencer parity",
    "micro-op fetch queue parity",
    "hardware assertion",
];

const EX: Table = &[
    "watchdog time-out",
    "physical register file parity",
    "flag register file parity",
    "immediate register file parity",
    "address generator payload parity",
    "execution payload parity",
    "checkpoint queue parity",
    "retire dispatch queue parity",
    "retire status queue parity",
    "scheduler queue parity",
    "branch buffer queue parity",
    "hardware assertion",
    "speculative map parity",
    "retire map parity",
];

const FP: Table = &[
    "physical register file parity",
    "free list parity",
    "scheduler queue parity",
    "non-scheduling queue parity",
    "retire queue parity",
    "status register file parity",
    "hardware assertion",
    "mask register file parity",
];

const L3: Table = &[
    "shadow tag ECC",
    "shadow tag hit twice",
    "tag ECC",
    "tag hit twice",
    "data ECC",
    "fabric port parity",
    "victim queue data fabric error",
    "hardware assertion",
    "poison made of write combining buffer parity",
    "raised by a programmable state machine",
];

const CS: Table = &[
    "illegal request",
    "address violation",
    "security violation",
    "illegal response",
    "unexpected response",
    "request or probe parity",
    "read response parity",
    "atomic request parity",
    "probe filter ECC",
];

const CS_V2: Table = &[
    "illegal request",
    "address violation",
    "security violation",
    "illegal response",
    "unexpected response",
    "request or probe parity",
    "read response parity",
    "atomic request parity",
    "read response without a request",
    "probe filter protocol",
    "probe filter ECC",
    "read response with an unexpected retry",
    "counter overflow",
    "counter underflow",
    "illegal request, no-data channel",
    "address violation, no-data channel",
    "security violation, no-data channel",
    "hardware assertion",
    "shadow tag protocol",
    "shadow tag ECC",
    "shadow tag transaction",
];

const CS_V2_RENUMBERED: Table = &[
    "illegal request",
    "address violation",
    "security violation",
    "illegal response",
    "unexpected response",
    "request or probe parity",
    "read response parity",
    "atomic request parity",
    "read response without a request",
    "read response with an unexpected retry",
    "counter overflow",
    "counter underflow",
    "probe filter protocol",
    "probe filter ECC",
    "illegal request, no-data channel",
    "address violation, no-data channel",
    "security violation, no-data channel",
    "hardware assertion",
];

const PIE: Table = &[
    "hardware assertion",
    "register security violation",
    "link error",
    "poison consumed",
    "deferred error in the data fabric",
    "watchdog timer",
    "CNLI RAM ECC",
    "register access during a fabric C-state",
    "raised by a programmable state machine",
];

const UMC: Table = &[
    "DRAM ECC",
    "data poison",
    "fabric port parity",
    "advanced peripheral bus",
    "command/address parity",
    "write data CRC",
    "command queue RAM ECC",
    "AES RAM ECC",
    "error check and scrub, row",
    "error check and scrub",
    "throttling",
    "read CRC",
    "",
    "",
    "",
    "",
    "refresh management RAM ECC",
];

const UMC_HBM: Table = &[
    "on-die ECC of the DRAM",
    "data poison",
    "fabric port parity",
    "",
    "command/address parity",
    "HBM write data parity",
    "consolidated RAM ECC",
    "",
    "",
    "read buffer RAM ECC",
    "thermal throttling",
    "HBM read data parity",
    "",
    "firmware",
    "RAM parity",
    "HBM CRC",
];

const UMC_V2: Table = &[
    "DRAM ECC",
    "data poison",
    "fabric port parity",
    "",
    "command/address parity",
    "write data parity",
    "command queue RAM ECC",
    "",
    "read data parity",
    "read buffer RAM ECC",
    "read response RAM ECC",
    "microprocessor",
];

const MA_LLC: Table = &[
    "counter overflow",
    "counter underflow",
    "write data parity",
    "read response parity",
    "tag ECC, macro 0",
    "tag ECC, macro 1",
    "data ECC",
];

const PB: Table = &["parameter block RAM ECC"];
