// SPDX-License-Identifier: GPL-2.0

//! Where in memory an error was, as far as its record tells.
//!
//! Sources: drivers/edac/i10nm_base.c (Ice Lake and later decode `MCi_MISC`), skx_base.c,
//! amd64_edac.c and drivers/ras/amd/atl/umc.c of Linux 7.3; SDM volume 3B, model-specific chapters.
//! What a record does not tell is [`None`], never a guess: translating system addresses to DIMMs
//! takes the platform's address decoders, which this code does not read.

use super::intel::{self, Model, Unit};
use super::mcacod::Code;
use super::record::{bits, Record, ADDRV, MISCV, SYNDV};
use super::smca::{self, BankType};

/// A place in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// Memory controller of the socket.
    pub(crate) controller: Option<u8>,
    /// Channel of the controller; of the socket where no controller is told.
    pub(crate) channel: Option<u8>,
    /// DIMM of the channel.
    pub(crate) dimm: Option<u8>,
    /// Rank of the DIMM; of the channel (chip select) where no DIMM is told.
    pub(crate) rank: Option<u8>,
    /// Bank group.
    pub(crate) bank_group: Option<u8>,
    /// Bank of the group; of the device where no group is told.
    pub(crate) bank: Option<u8>,
    /// Row.
    pub(crate) row: Option<u32>,
    /// Column.
    pub(crate) column: Option<u32>,
}

/// Packs small fields into a key that is unique for them.
struct Packer(u64);

impl Packer {
    fn byte(self, value: u8) -> Self {
        Packer(self.0 << 8 | u64::from(value))
    }

    /// An absent field is 0xff, which no field can be.
    fn optional(self, value: Option<u8>) -> Self {
        self.byte(value.unwrap_or(0xff))
    }
}

impl Location {
    /// A key for the smallest replaceable part that the location names: DIMM and rank, or the
    /// channel, or the controller. `bank` keeps apart what only the reporting bank keeps apart.
    pub(crate) fn part_key(&self, socket: u32, bank: u8) -> u64 {
        Packer(u64::from(socket & 0xff_ffff))
            .byte(bank)
            .optional(self.controller)
            .optional(self.channel)
            .optional(self.dimm)
            .optional(self.rank)
            .0
    }

    /// A key for the row within its part, when it is known.
    pub(crate) fn row_key(&self) -> Option<u64> {
        let row = self.row?;
        let key = Packer(u64::from(row))
            .optional(self.bank_group)
            .optional(self.bank);
        Some(key.0)
    }
}

/// Where the memory error of `record` was; [`None`] when it is not one of memory, or does not tell.
pub(crate) fn locate(record: &Record) -> Option<Location> {
    if record.is_firmware_first() {
        return None;
    }
    if record.format().is_amd() {
        locate_amd(record)
    } else {
        locate_intel(record)
    }
}

/// Whether `record` is about memory (not the caches, not the buses).
pub(crate) fn is_memory_error(record: &Record) -> bool {
    if record.format().is_amd() {
        const DRAM_ECC: u8 = 0;
        const LEGACY_NORTHBRIDGE: u8 = 4;
        const LEGACY_DRAM_ECC: u64 = 8;

        match smca::bank_type(record) {
            Some(BankType::Umc | BankType::UmcV2) => record.extended() == DRAM_ECC,
            Some(_) => false,
            None => {
                record.family() < 0x17
                    && record.bank == LEGACY_NORTHBRIDGE
                    && bits(record.status, 20, 16) == LEGACY_DRAM_ECC
            }
        }
    } else {
        Code::decode(record.mcacod(), record.format()).is_memory_controller()
    }
}

fn locate_intel(record: &Record) -> Option<Location> {
    let (Code::Memory(_, channel) | Code::ExtendedMemory(_, channel)) =
        Code::decode(record.mcacod(), record.format())
    else {
        return None;
    };
    let model = Model::of(record);
    let generic = Location {
        channel,
        ..Location::default()
    };
    Some(match (model, intel::unit(model, record.bank)) {
        (Model::SkylakeX, Some(Unit::MemoryController)) => locate_skx(record, generic),
        (Model::IceLakeX | Model::IceLakeD, Some(Unit::MemoryController)) => {
            locate_icx(record, generic)
        }
        (Model::SapphireRapids, Some(Unit::MemoryController)) => locate_spr(record, generic),
        (Model::GraniteRapids, Some(Unit::MemoryController)) => locate_gnr(record, generic),
        _ => generic,
    })
}

/// Skylake and Cascade Lake: banks 13 to 15 are the channels of controller 0, 16 to 18 those of
/// controller 1; `MCi_MISC` names the failed rank of a corrected error (bit 62: valid, 50:46).
fn locate_skx(record: &Record, generic: Location) -> Location {
    let index = record.bank.saturating_sub(13);
    let rank = (record.has(MISCV) && bits(record.misc, 62, 62) != 0)
        .then(|| bits(record.misc, 50, 46) as u8);
    Location {
        controller: Some(index / 3),
        channel: Some(index % 3),
        rank,
        ..generic
    }
}

const ECC_MODE_DDRT: u64 = 8;

/// Whether `MCi_MISC` of a memory controller holds a DRAM address and not one of persistent memory.
fn is_dram_address(record: &Record) -> bool {
    record.has(MISCV | ADDRV)
        && bits(record.misc, 62, 59) != ECC_MODE_DDRT
        && !matches!(
            record.mscod(),
            0x0106 | 0x0107 | 0x0800 | 0x0804 | 0x0806..=0x0808 | 0x080a..=0x080e
                | 0x0810 | 0x0811 | 0x0816 | 0x081e | 0x081f
        )
}

/// Ice Lake: four controllers of four banks each, of which the first is the mesh (M2M) and the next
/// ones are its channels.
fn locate_icx(record: &Record, generic: Location) -> Location {
    let index = record.bank.saturating_sub(12);
    let part = Location {
        controller: Some(index / 4),
        channel: Some((index % 4).saturating_sub(1)),
        ..generic
    };
    // The third channel of a controller exists in the table of banks only.
    if !is_dram_address(record) || part.channel == Some(2) {
        return part;
    }
    let misc = record.misc;
    let rank = bits(misc, 58, 56) as u8;
    Location {
        dimm: Some(rank >> 2),
        rank: Some(rank & 3),
        bank_group: Some((bits(misc, 41, 40) | bits(misc, 44, 44) << 2) as u8),
        bank: Some(bits(misc, 43, 42) as u8),
        row: Some(bits(misc, 39, 19) as u32),
        column: Some((bits(misc, 18, 9) << 2) as u32),
        ..part
    }
}

/// Sapphire and Emerald Rapids: banks 13 to 20, two channels to a controller.
fn locate_spr(record: &Record, generic: Location) -> Location {
    let index = record.bank.saturating_sub(13);
    let part = Location {
        controller: Some(index / 2),
        channel: Some(index % 2),
        ..generic
    };
    if !is_dram_address(record) {
        return part;
    }
    let misc = record.misc;
    Location {
        dimm: Some(bits(misc, 58, 58) as u8),
        rank: Some(bits(misc, 57, 57) as u8),
        bank_group: Some((bits(misc, 38, 37) | bits(misc, 41, 41) << 2) as u8),
        bank: Some(bits(misc, 40, 39) as u8),
        row: Some(bits(misc, 36, 19) as u32),
        column: Some((bits(misc, 18, 9) << 2) as u32),
        ..part
    }
}

/// Granite Rapids: banks 13 to 24, one channel to a controller.
fn locate_gnr(record: &Record, generic: Location) -> Location {
    let part = Location {
        controller: Some(record.bank.saturating_sub(13)),
        channel: Some(0),
        ..generic
    };
    if !is_dram_address(record) {
        return part;
    }
    let misc = record.misc;
    Location {
        dimm: Some(bits(misc, 57, 57) as u8),
        rank: Some(bits(misc, 56, 55) as u8),
        bank_group: Some(bits(misc, 41, 39) as u8),
        bank: Some(bits(misc, 38, 37) as u8),
        row: Some(bits(misc, 36, 19) as u32),
        column: Some((bits(misc, 18, 9) << 2) as u32),
        ..part
    }
}

/// AMD: the instance id in `MCA_IPID` names the memory controller, which is the channel.
fn locate_amd(record: &Record) -> Option<Location> {
    const DRAM_ECC: u8 = 0;

    if !matches!(
        smca::bank_type(record),
        Some(BankType::Umc | BankType::UmcV2)
    ) {
        return None;
    }
    let instance = bits(record.ipid, 31, 0);
    if smca::is_mi300(record) {
        // Two fields of the instance id tell the controllers of its HBM stacks apart; `MCA_ADDR`
        // holds a DRAM address on ECC errors.
        let part = Location {
            controller: Some(bits(instance, 23, 20) as u8),
            channel: Some(bits(instance, 15, 12) as u8),
            ..Location::default()
        };
        if !(record.has(ADDRV) && record.extended() == DRAM_ECC) {
            return Some(part);
        }
        let addr = record.addr;
        return Some(Location {
            // Stack id and pseudo-channel stand where DIMMs have ranks.
            rank: Some(bits(addr, 27, 25) as u8),
            bank: Some(bits(addr, 9, 6) as u8),
            row: Some(bits(addr, 24, 10) as u32),
            column: Some(bits(addr, 5, 1) as u32),
            ..part
        });
    }
    // A number that no processor has is no channel, and not another one's either.
    let channel = u8::try_from(bits(instance, 31, 20)).ok();
    Some(Location {
        channel: channel.filter(|channel| *channel != u8::MAX),
        rank: record.has(SYNDV).then(|| bits(record.synd, 1, 0) as u8),
        ..Location::default()
    })
}
