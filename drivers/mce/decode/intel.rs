// SPDX-License-Identifier: GPL-2.0

//! Banks and model-specific error codes of Intel server processors.
//!
//! SDM volume 3B, "Interpreting Machine-Check Error Codes", one section per model. A bank or a code
//! that the section does not list is [`None`] here.

use super::pcu;
use super::record::{bits, Record, Vendor};

/// Processors whose banks have a section of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// 06_55H: Skylake, Cascade Lake and Cooper Lake servers.
    SkylakeX,
    /// 06_6AH: Ice Lake servers.
    IceLakeX,
    /// 06_6CH: Ice Lake D.
    IceLakeD,
    /// 06_86H: Tremont microservers.
    TremontD,
    /// 06_8FH, 06_CFH: Sapphire Rapids, Emerald Rapids.
    SapphireRapids,
    /// 06_ADH, 06_AEH, 06_AFH, 06_DDH: Granite Rapids, Sierra Forest, Clearwater Forest.
    GraniteRapids,
    /// Any other.
    Other,
}

impl Model {
    /// The model of the CPU that `record` is from.
    pub(crate) const fn of(record: &Record) -> Self {
        if !matches!(record.vendor(), Vendor::Intel) || record.family() != 6 {
            return Model::Other;
        }
        match record.model() {
            0x55 => Model::SkylakeX,
            0x6a => Model::IceLakeX,
            0x6c => Model::IceLakeD,
            0x86 => Model::TremontD,
            0x8f | 0xcf => Model::SapphireRapids,
            0xad | 0xae | 0xaf | 0xdd => Model::GraniteRapids,
            _ => Model::Other,
        }
    }
}

/// The part of the processor that a bank reports for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Instruction fetch.
    InstructionFetch,
    /// Data cache.
    DataCache,
    /// Data TLB.
    DataTlb,
    /// Mid-level cache.
    MidLevelCache,
    /// Power control unit.
    PowerControl,
    /// Ultra path interconnect.
    Upi,
    /// Mesh to memory.
    MeshToMemory,
    /// Memory controller channel.
    MemoryController,
}

impl Unit {
    /// The unit's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Unit::InstructionFetch => "instruction fetch unit",
            Unit::DataCache => "data cache unit",
            Unit::DataTlb => "data TLB",
            Unit::MidLevelCache => "mid-level cache",
            Unit::PowerControl => "power control unit",
            Unit::Upi => "UPI link",
            Unit::MeshToMemory => "mesh to memory",
            Unit::MemoryController => "memory controller",
        }
    }
}

/// The unit behind `bank` of `model`.
pub(crate) const fn unit(model: Model, bank: u8) -> Option<Unit> {
    match (model, bank) {
        (Model::Other, _) => None,
        (_, 0) => Some(Unit::InstructionFetch),
        (_, 1) => Some(Unit::DataCache),
        (_, 2) => Some(Unit::DataTlb),
        (_, 3) => Some(Unit::MidLevelCache),
        (Model::GraniteRapids, 5) => Some(Unit::Upi),
        (Model::GraniteRapids, 6) => Some(Unit::PowerControl),
        (Model::GraniteRapids, 12) => Some(Unit::MeshToMemory),
        (Model::GraniteRapids, 13..=24) => Some(Unit::MemoryController),
        (Model::GraniteRapids, _) => None,
        (_, 4) => Some(Unit::PowerControl),
        (Model::SkylakeX, 5 | 12 | 19) => Some(Unit::Upi),
        (Model::SkylakeX, 7 | 8) => Some(Unit::MeshToMemory),
        (Model::SkylakeX, 13..=18) => Some(Unit::MemoryController),
        (Model::IceLakeX, 5 | 7 | 8) => Some(Unit::Upi),
        (Model::IceLakeX, 12 | 16 | 20 | 24) => Some(Unit::MeshToMemory),
        (Model::IceLakeX, 13..=15 | 17..=19 | 21..=23 | 25..=27) => Some(Unit::MemoryController),
        (Model::IceLakeD, 12 | 16) => Some(Unit::MeshToMemory),
        (Model::IceLakeD, 13..=15 | 17..=19) => Some(Unit::MemoryController),
        (Model::TremontD, 12) => Some(Unit::MeshToMemory),
        (Model::TremontD, 13..=15) => Some(Unit::MemoryController),
        (Model::SapphireRapids, 5) => Some(Unit::Upi),
        (Model::SapphireRapids, 12) => Some(Unit::MeshToMemory),
        (Model::SapphireRapids, 13..=20) => Some(Unit::MemoryController),
        _ => None,
    }
}

/// Whether the model-specific code says that an address or a command arrived damaged.
pub(crate) fn is_command_parity(record: &Record) -> bool {
    let model = Model::of(record);
    if unit(model, record.bank) != Some(Unit::MemoryController) {
        return false;
    }
    let mscod = record.mscod();
    match model {
        // Bits, unless bit 11 says that the rest is a number: address parity, DDR4 command/address
        // parity, uncorrected address parity.
        Model::SkylakeX => mscod & 0x0800 == 0 && mscod & 0x0601 != 0,
        _ => matches!(mscod, 0x0001 | 0x0200 | 0x0220 | 0x0400),
    }
}

/// Calls `say` with what each part of the model-specific code means.
pub(crate) fn describe(record: &Record, mut say: impl FnMut(&'static str)) {
    let model = Model::of(record);
    let mscod = record.mscod();
    match unit(model, record.bank) {
        Some(Unit::MemoryController) => match model {
            Model::SkylakeX if mscod & 0x0800 != 0 => lookup(SKX_CONTROLLER, mscod, &mut say),
            Model::SkylakeX => flags(SKX_CONTROLLER_BITS, mscod, &mut say),
            Model::GraniteRapids => lookup(GNR_CHANNEL, mscod, &mut say),
            _ => lookup(CONTROLLER, mscod, &mut say),
        },
        Some(Unit::MeshToMemory) => match model {
            Model::GraniteRapids => lookup(GNR_MESH, mscod, &mut say),
            _ => flags(MESH_BITS, mscod, &mut say),
        },
        Some(Unit::Upi) => {
            // GNR uses all of the code, the others 5:0, with details of 0x12 in 15:6.
            let code = match model {
                Model::GraniteRapids => mscod,
                _ => mscod & 0x3f,
            };
            lookup(UPI, code, &mut say);
            if !matches!(model, Model::GraniteRapids) && code == 0x12 {
                flags(UPI_CONTROL_BITS, mscod, &mut say);
            }
        }
        Some(Unit::PowerControl) => {
            let high = mscod >> 8;
            match model {
                Model::SkylakeX => {
                    lookup(pcu::SKYLAKE, high, &mut say);
                    if mscod & 0xf != 0 {
                        say("internal error");
                    }
                    lookup(pcu::SKYLAKE_MCACOD, record.mcacod() & 0xefff, &mut say);
                }
                Model::GraniteRapids => {
                    lookup(pcu::GRANITE_LOW, mscod & 0xff, &mut say);
                    lookup(pcu::GRANITE_HIGH, high, &mut say);
                }
                _ => {
                    lookup(pcu::ICE_LAKE, high, &mut say);
                    if pcu::ICE_LAKE_RESET_PREPARATION.contains(&high) {
                        say("reset preparation time-out");
                    }
                    lookup(
                        pcu::ICE_LAKE_MIDDLE,
                        bits(u64::from(mscod), 7, 4) as u16,
                        &mut say,
                    );
                    lookup(pcu::ICE_LAKE_LOW, mscod & 0xf, &mut say);
                }
            }
        }
        _ => {}
    }
}

/// Codes and what they mean.
pub(super) type Table = [(u16, &'static str)];

fn lookup(table: &'static Table, code: u16, say: &mut impl FnMut(&'static str)) {
    if let Some((_, text)) = table.iter().find(|(known, _)| *known == code) {
        say(text);
    }
}

fn flags(table: &'static Table, code: u16, say: &mut impl FnMut(&'static str)) {
    for (_, text) in table.iter().filter(|(bit, _)| code & bit != 0) {
        say(text);
    }
}

const SKX_CONTROLLER_BITS: &Table = &[
    (0x0001, "address parity"),
    (0x0002, "write data parity from the home agent"),
    (0x0004, "write byte enable parity from the home agent"),
    (0x0008, "corrected patrol scrub error"),
    (0x0010, "uncorrected patrol scrub error"),
    (0x0020, "corrected error during sparing"),
    (0x0040, "uncorrected error during sparing"),
    (0x0080, "read error"),
    (0x0100, "write buffer read parity"),
    (0x0200, "DDR4 command/address parity"),
    (0x0400, "uncorrected address parity"),
];

const SKX_CONTROLLER: &Table = &[
    (0x0800, "unknown request type"),
    (0x0801, "read response without an entry"),
    (0x0802, "read response not expected"),
    (0x0803, "DDR4 completion without an entry"),
    (0x0804, "completion without an entry"),
    (0x0805, "completion FIFO overflow"),
    (0x0806, "correctable parity"),
    (0x0807, "uncorrectable error"),
    (0x0808, "interrupt while one was outstanding"),
    (0x0809, "ERID FIFO overflow"),
    (0x080a, "write credits"),
    (0x080b, "read credits"),
    (0x080c, "scheduler"),
    (0x080d, "error event"),
];

/// Ice Lake, Tremont, Sapphire Rapids.
const CONTROLLER: &Table = &[
    (0x0001, "address parity"),
    (0x0002, "data parity"),
    (0x0003, "data ECC"),
    (0x0004, "data byte enable parity"),
    (0x0007, "transaction id parity"),
    (0x0008, "corrected patrol scrub error"),
    (0x0010, "uncorrected patrol scrub error"),
    (0x0020, "corrected error during sparing"),
    (0x0040, "uncorrected error during sparing"),
    (0x0080, "corrected read error"),
    (0x00a0, "uncorrected read error"),
    (0x00c0, "uncorrected metadata"),
    (0x0100, "write buffer read parity"),
    (0x0103, "address parity between controller and array"),
    (0x0106, "DDR-T data byte enable"),
    (0x0107, "DDR-T data"),
    (0x0108, "DDR link failure"),
    (0x0111, "partial cache line CAM"),
    (0x0112, "partial cache line data"),
    (0x0200, "DDR4 command/address parity"),
    (0x0220, "HBM command/address parity"),
    (0x0221, "HBM data parity"),
    (0x0400, "read queue parity"),
    (0x0800, "DDR-T bad request"),
    (0x0801, "DDR data response without an entry"),
    (0x0802, "DDR data response to an entry without data"),
    (0x0803, "DDR4 completion without an entry"),
    (0x0804, "DDR-T completion without an entry"),
    (0x0805, "DDR data/completion FIFO overflow"),
    (0x0806, "DDR-T ERID correctable parity"),
    (0x0807, "DDR-T ERID uncorrectable error"),
    (0x0808, "DDR-T interrupt while one was outstanding"),
    (0x0809, "ERID FIFO overflow"),
    (0x080a, "DDR-T write credits"),
    (0x080b, "DDR-T read credits"),
    (0x080c, "DDR-T scheduler"),
    (0x080d, "DDR-T error event"),
    (0x080e, "DDR-T thermal event"),
    (0x080f, "CMI packet while idle"),
    (0x0810, "DDR-T read request parity"),
    (0x0811, "DDR-T write request parity"),
    (0x0812, "2LM near-memory fill CAM"),
    (0x0813, "CMI credits oversubscribed"),
    (0x0814, "CMI credit total"),
    (0x0815, "CMI reserved credit pool"),
    (0x0816, "DDR-T read"),
    (0x0817, "write buffer FIFO"),
    (0x0818, "CMI request FIFO overflow"),
    (0x0819, "CMI request FIFO underflow"),
    (0x081a, "CMI response FIFO overflow"),
    (0x081b, "CMI response FIFO underflow"),
    (0x081c, "CMI credits"),
    (0x081d, "CMI arbiter"),
    (0x081e, "DDR-T write completion FIFO overflow"),
    (0x081f, "DDR-T write completion FIFO underflow"),
    (0x0820, "CMI read completion FIFO overflow"),
    (0x0821, "CMI read completion FIFO underflow"),
    (0x0822, "TME key parity"),
    (0x0823, "TME CMI"),
    (0x0824, "TME CMI overflow"),
    (0x0825, "TME CMI underflow"),
    (0x0826, "TME integrity check of a secure line"),
    (0x0827, "TME under-fill parity"),
    (0x0829, "internal"),
    (0x082a, "TME integrity"),
    (0x082b, "TME TDX"),
    (0x082c, "TME under-fill of a secure line"),
    (0x082d, "TME key poison"),
    (0x082e, "TME security engine"),
    (
        0x1008,
        "corrected patrol scrub error of a mirror's second half",
    ),
    (
        0x1010,
        "uncorrected patrol scrub error of a mirror's second half",
    ),
    (
        0x1020,
        "corrected error during sparing of a mirror's second half",
    ),
    (
        0x1040,
        "uncorrected error during sparing of a mirror's second half",
    ),
    (0x1080, "corrected read error of a mirror's second half"),
    (0x10a0, "uncorrected read error of a mirror's second half"),
];

const GNR_CHANNEL: &Table = &[
    (0x0001, "address parity"),
    (0x0002, "write data parity, sub-channel 0"),
    (0x0003, "write data ECC, sub-channel 0"),
    (0x0004, "write byte enable parity, sub-channel 0"),
    (0x0005, "write MAC parity, sub-channel 0"),
    (0x0008, "corrected patrol scrub error"),
    (0x0010, "uncorrected patrol scrub error"),
    (0x0020, "corrected error during sparing"),
    (0x0040, "uncorrected error during sparing"),
    (0x0080, "corrected or transient read error"),
    (0x00a0, "uncorrected read error"),
    (0x00b0, "poison read with poison disabled"),
    (0x00c0, "2LM metadata"),
    (0x0100, "write buffer read parity, sub-channel 0"),
    (0x0102, "write buffer read ECC, sub-channel 0"),
    (0x0104, "write buffer byte enable parity, sub-channel 0"),
    (0x0106, "write buffer persistent ECC, sub-channel 0"),
    (0x0108, "DDR link failure"),
    (0x0109, "illegal opcode"),
    (0x0200, "command/address parity or write CRC"),
    (0x0400, "scheduler address parity"),
    (0x0832, "internal"),
    (0x0833, "tracker address parity"),
    (0x2002, "write data parity, sub-channel 1"),
    (0x2003, "write data ECC, sub-channel 1"),
    (0x2004, "write byte enable parity, sub-channel 1"),
    (0x2005, "write MAC parity, sub-channel 1"),
    (0x2100, "write buffer read parity, sub-channel 1"),
    (0x2102, "write buffer read ECC, sub-channel 1"),
    (0x2104, "write buffer byte enable parity, sub-channel 1"),
    (0x2106, "write buffer persistent ECC, sub-channel 1"),
];

const MESH_BITS: &Table = &[
    (0x0001, "read data error from the memory controller"),
    (0x0004, "partial write data error"),
    (0x0008, "full write data error"),
    (0x0010, "clock-domain crossing"),
    (0x0020, "time-out"),
    (0x0040, "tracker parity"),
    (0x0080, "fatal (bucket 1)"),
];

const GNR_MESH: &Table = &[
    (0x0001, "read ECC"),
    (0x0002, "bucket 1"),
    (0x0003, "tracker parity"),
    (0x0004, "security mismatch"),
    (0x0007, "read completion parity"),
    (0x0008, "response parity"),
    (0x0009, "time-out"),
    (0x000a, "address parity"),
    (0x000c, "CMI credits oversubscribed"),
    (0x000d, "access attributes mismatch"),
];

const UPI: &Table = &[
    (0x00, "uncorrected: physical layer initialization"),
    (0x01, "uncorrected: drift buffer alarm"),
    (0x02, "uncorrected: latency buffer rollover"),
    (0x10, "uncorrected: CRC, link-layer retry aborted"),
    (0x11, "uncorrected: unknown packet"),
    (0x12, "uncorrected: link or physical layer control"),
    (0x13, "uncorrected: parameter exchange"),
    (0x14, "uncorrected: TDX"),
    (0x15, "uncorrected: SGX"),
    (0x16, "uncorrected: transmit parity"),
    (0x17, "uncorrected: receive parity"),
    (0x18, "uncorrected: flit encryption"),
    (0x1f, "uncorrected: control error from the mesh"),
    (0x20, "corrected: physical layer initialization aborted"),
    (0x21, "corrected: physical layer reset"),
    (0x22, "corrected: lane failure, at x8 now"),
    (0x23, "corrected: L0c error without reset"),
    (0x24, "corrected: L0c error with reset"),
    (0x25, "corrected: L0p exit error with reset"),
    (0x30, "corrected: CRC, retried without reset"),
    (0x31, "corrected: CRC, retried with reset"),
    (0x32, "corrected: the other side asked for a retry"),
];

const UPI_CONTROL_BITS: &Table = &[
    (1 << 6, "physical layer control"),
    (1 << 7, "unexpected retry acknowledgement"),
    (1 << 8, "unexpected retry request"),
    (1 << 9, "register file parity"),
    (1 << 10, "routing table"),
    (1 << 11, "unexpected protocol flit to send"),
    (1 << 12, "header or credit crossing overflow or underflow"),
    (1 << 13, "link layer still in reset when the link came up"),
    (1 << 14, "link layer reset while busy"),
    (1 << 15, "transmit parity"),
];
