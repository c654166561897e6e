// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::decode::intel::{self, Model, Unit};
use crate::decode::location::{is_memory_error, locate};
use crate::decode::mcacod::*;
use crate::decode::record::*;
use crate::decode::smca::{self, BankType};
use crate::decode::smca_text;
use crate::decode::text::{Flags, Origin, Summary};
use crate::vectors::VECTORS;

/// Hardware ids and MCA types of the bank types, for generators.
pub(crate) fn some_ipid(n: usize) -> u64 {
    const IDS: &[(u64, u64)] = &[
        (0x2e, 0),
        (0x2e, 1),
        (0x2e, 2),
        (0x2e, 4),
        (0xb0, 0),
        (0xb0, 1),
        (0xb0, 2),
        (0xb0, 3),
        (0xb0, 5),
        (0xb0, 6),
        (0xb0, 7),
        (0xb0, 0x10),
        (0x96, 0),
        (0x96, 1),
        (0x01, 1),
        (0x01, 3),
    ];
    let (hwid, mca_type) = IDS[n % IDS.len()];
    mca_type << 48 | hwid << 32 | (n as u64) << 12
}

#[test]
fn vectors_read_as_they_should() {
    for vector in VECTORS {
        assert_eq!(
            Summary(&vector.record).to_string(),
            vector.summary,
            "{}",
            vector.name
        );
    }
}

/// The compound forms of the SDM, as patterns over the 16 bits; `x` is anything.
const FORMS: &[(&str, &str)] = &[
    ("000f000000000000", "no error"),
    ("000f000000000001", "unclassified"),
    ("000f000000000010", "microcode ROM parity"),
    ("000f000000000011", "external"),
    ("000f000000000100", "functional redundancy"),
    ("000f000000000101", "internal parity"),
    ("000f000000000110", "SMM handler"),
    ("000f010000000000", "internal timer"),
    ("000f111000001011", "I/O error"),
    ("000f01xxxxxxxxxx", "internal, unclassified"),
    ("000f0000000011xx", "cache hierarchy"),
    ("000f00000001xxxx", "TLB"),
    ("000f00001xxxxxxx", "memory controller"),
    ("000f0001xxxxxxxx", "cache:"),
    ("000f00101xxxxxxx", "memory as a cache"),
    ("000f1xxxxxxxxxxx", "bus or interconnect"),
];

fn form(code: u16) -> Option<&'static str> {
    FORMS
        .iter()
        .find(|(pattern, _)| {
            pattern.bytes().zip((0..16).rev()).all(|(c, bit)| match c {
                b'0' => code & 1 << bit == 0,
                b'1' => code & 1 << bit != 0,
                _ => true,
            })
        })
        .map(|(_, name)| *name)
}

#[test]
fn all_codes_have_the_form_that_the_manual_names() {
    // All 4096 codes, with and without the filter bit, and with the bits above it.
    for code in 0..=u16::MAX {
        let text = Code::decode(code, Vendor::Intel).to_string();
        match form(code) {
            Some(name) => assert!(text.starts_with(name), "{code:#06x}: {text} is not {name}"),
            None => assert!(text.starts_with("not an arch"), "{code:#06x}: {text}"),
        }
        assert_eq!(is_filtered(code, Vendor::Intel), code & 0x1000 != 0);
        assert!(!is_filtered(code, Vendor::Amd));
    }
}

#[test]
fn amd_codes_have_their_forms() {
    for code in 0..=u16::MAX {
        let decoded = Code::decode(code, Vendor::Amd);
        let expected = if code == 0 {
            matches!(decoded, Code::NoError)
        } else if code & 0xfff0 == 0x0010 {
            matches!(decoded, Code::Tlb(..))
        } else if code & 0xff00 == 0x0100 {
            matches!(decoded, Code::Cache(..))
        } else if code & 0xf800 == 0x0800 {
            matches!(decoded, Code::Bus(..))
        } else if code & 0xfcff == 0x0400 {
            matches!(decoded, Code::Internal(_))
        } else {
            matches!(decoded, Code::Unknown(_))
        };
        assert!(expected, "{code:#06x}: {decoded:?}");
        assert_eq!(decoded, Code::decode(code, Vendor::Hygon));
    }
}

#[test]
fn fields_of_compound_codes() {
    use Code::*;
    for (code, expected) in [
        (0x0090, Memory(MemoryOperation::Read, Some(0))),
        (0x009f, Memory(MemoryOperation::Read, None)),
        (0x00a3, Memory(MemoryOperation::Write, Some(3))),
        (0x00b1, Memory(MemoryOperation::AddressCommand, Some(1))),
        (0x00c2, Memory(MemoryOperation::Scrub, Some(2))),
        (0x10c2, Memory(MemoryOperation::Scrub, Some(2))),
        (0x0285, ExtendedMemory(MemoryOperation::Generic, Some(5))),
        (
            0x0134,
            Cache(Request::DataRead, Transaction::Data, CacheLevel::L0),
        ),
        (
            0x0150,
            Cache(
                Request::InstructionFetch,
                Transaction::Instruction,
                CacheLevel::L0,
            ),
        ),
        (
            0x017a,
            Cache(Request::Eviction, Transaction::Generic, CacheLevel::L2),
        ),
        (0x0014, Tlb(Transaction::Data, CacheLevel::L0)),
        (
            0x0b0a,
            Bus(
                Participation::Responder,
                true,
                Request::Generic,
                Target::Io,
                CacheLevel::L2,
            ),
        ),
        (
            0x0e0f,
            Bus(
                Participation::Generic,
                false,
                Request::Generic,
                Target::Other,
                CacheLevel::Generic,
            ),
        ),
    ] {
        assert_eq!(Code::decode(code, Vendor::Intel), expected, "{code:#06x}");
    }
}

fn smca_record(ipid: u64, extended: u64) -> Record {
    Record {
        status: VAL | EN | extended << 16,
        ipid,
        cpuvendor: 2,
        cpuid: 0xa10f11,
        ..Record::default()
    }
}

#[test]
fn every_smca_type_is_known_by_its_id() {
    // arch/x86/kernel/cpu/mce/amd.c, smca_hwid_mcatypes[], in the order of enum smca_bank_types.
    const IDS: &[(u64, u64)] = &[
        (0x2e, 0x0),
        (0x2e, 0x2),
        (0x164, 0x0),
        (0x157, 0x0),
        (0xb0, 0x3),
        (0x1e0, 0x0),
        (0xb0, 0x5),
        (0xb0, 0x6),
        (0x241, 0x0),
        (0x269, 0x0),
        (0xb0, 0x1),
        (0xb0, 0x2),
        (0xb0, 0x7),
        (0xb0, 0x0),
        (0xb0, 0x10),
        (0x2e, 0x4),
        (0x01, 0x2),
        (0xff, 0x2),
        (0xfd, 0x0),
        (0xfd, 0x1),
        (0xbe, 0x0),
        (0x01, 0x3),
        (0xf9, 0x0),
        (0x12, 0x0),
        (0x6c, 0x0),
        (0x18, 0x0),
        (0x05, 0x0),
        (0x46, 0x0),
        (0x46, 0x1),
        (0x1e1, 0x0),
        (0x2e, 0x1),
        (0xff, 0x0),
        (0xff, 0x1),
        (0x00, 0x0),
        (0xa8, 0x0),
        (0x80, 0x0),
        (0x01, 0x0),
        (0x01, 0x1),
        (0x5c, 0x0),
        (0x96, 0x0),
        (0x96, 0x1),
        (0xaa, 0x0),
        (0x180, 0x0),
        (0x170, 0x0),
        (0x267, 0x0),
        (0x50, 0x0),
        (0x259, 0x0),
    ];
    for (number, (hwid, mca_type)) in IDS.iter().enumerate() {
        // Instance ids must not matter.
        for instance in [1u64, 0x0005_0f00, 0xffff_ffff] {
            let ipid = mca_type << 48 | 0xf << 44 | hwid << 32 | instance;
            let record = smca_record(ipid, 0);
            let found = smca::bank_type(&record).map(|t| t as usize);
            assert_eq!(found, Some(number), "{hwid:#x}/{mca_type:#x}");
            assert!(smca::name(&record).is_some());
            for extended in 0..64 {
                let record = smca_record(ipid, extended);
                let _ = smca_text::describe(&record);
                let _ = locate(&record);
                assert!(!Summary(&record).to_string().is_empty());
            }
        }
    }
    assert_eq!(IDS.len(), BankType::XgmiPhy as usize + 1);
    assert_eq!(
        smca::bank_type(&smca_record(0x0000_0123_0000_0000, 0)),
        None
    );
    assert_eq!(smca::bank_type(&smca_record(0, 0)), None);
}

#[test]
fn extended_codes_of_memory_controllers() {
    let umc = 0x0000_0096_0005_0f00;
    for (code, text) in [
        (0, Some("DRAM ECC")),
        (1, Some("data poison")),
        (4, Some("command/address parity")),
        (5, Some("write data CRC")),
        (12, None),
        (63, None),
    ] {
        assert_eq!(smca_text::describe(&smca_record(umc, code)), text);
        assert_eq!(smca::is_command_parity(&smca_record(umc, code)), code == 4);
        assert_eq!(is_memory_error(&smca_record(umc, code)), code == 0);
    }
    // MI300's table is another one.
    let mi300 = Record {
        cpuid: 0xa90f01,
        ..smca_record(umc, 15)
    };
    assert_eq!(smca_text::describe(&mi300), Some("HBM CRC"));
}

#[test]
fn every_listed_unit_has_words_for_its_codes() {
    for (cpuid, memory, mesh) in [
        (0x50657, &[13u8, 14, 15, 16, 17, 18][..], &[7u8, 8][..]),
        (
            0x606a6,
            &[13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26, 27],
            &[12, 16, 20, 24],
        ),
        (0x806f8, &[13, 14, 15, 16, 17, 18, 19, 20], &[12]),
        (
            0xa06d1,
            &[13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24],
            &[12],
        ),
    ] {
        for bank in 0..=255u8 {
            let record = Record {
                status: VAL | 0x0001_0090,
                cpuid,
                bank,
                ..Record::default()
            };
            let unit = intel::unit(Model::of(&record), bank);
            assert_eq!(
                unit == Some(Unit::MemoryController),
                memory.contains(&bank),
                "{cpuid:#x} bank {bank}"
            );
            assert_eq!(unit == Some(Unit::MeshToMemory), mesh.contains(&bank));
            let mut said = 0;
            intel::describe(&record, |_| said += 1);
            if memory.contains(&bank) || mesh.contains(&bank) {
                assert_eq!(said, 1, "{cpuid:#x} bank {bank}");
            }
        }
    }
}

/// drivers/edac/i10nm_base.c, i10nm_mc_decode(), for banks that it decodes.
#[test]
fn locations_agree_with_edac() {
    let misc = 0x0d03_451d_e481_9486u64;
    let edac = |bank: u8, cpuid: u32| {
        let f = |high: u32, low: u32| ((misc >> low) & ((1 << (high - low + 1)) - 1)) as u32;
        let b = u32::from(bank) - 13;
        match cpuid {
            0x606a6 => (
                b / 4,
                b % 2,
                f(58, 56) >> 2,
                f(58, 56) % 4,
                f(41, 40) | f(44, 44) << 2,
                f(43, 42),
                f(39, 19),
                f(18, 9) << 2,
            ),
            0x806f8 => (
                b / 2,
                b % 2,
                f(58, 58),
                f(57, 57),
                f(38, 37) | f(41, 41) << 2,
                f(40, 39),
                f(36, 19),
                f(18, 9) << 2,
            ),
            _ => (
                b,
                0,
                f(57, 57),
                f(56, 55),
                f(41, 39),
                f(38, 37),
                f(36, 19),
                f(18, 9) << 2,
            ),
        }
    };
    for (cpuid, banks) in [
        (0x606a6, &[13u8, 14, 17, 18, 21, 22, 25, 26][..]),
        (0x806f8, &[13, 14, 15, 16, 17, 18, 19, 20]),
        (0xa06d1, &[13, 15, 18, 20, 24]),
    ] {
        for bank in banks {
            let place = locate(&Record {
                status: 0x8c00_0042_0080_0090,
                misc,
                cpuid,
                bank: *bank,
                ..Record::default()
            })
            .expect("a memory error");
            let got = (
                place.controller.map(u32::from).unwrap(),
                place.channel.map(u32::from).unwrap(),
                place.dimm.map(u32::from).unwrap(),
                place.rank.map(u32::from).unwrap(),
                place.bank_group.map(u32::from).unwrap(),
                place.bank.map(u32::from).unwrap(),
                place.row.unwrap(),
                place.column.unwrap(),
            );
            assert_eq!(got, edac(*bank, cpuid), "{cpuid:#x} bank {bank}");
        }
    }
}

#[test]
fn persistent_memory_has_no_dram_address() {
    let record = Record {
        status: 0x8c00_0042_0080_0090,
        misc: 8 << 59,
        cpuid: 0x606a6,
        bank: 13,
        ..Record::default()
    };
    assert_eq!(locate(&record).and_then(|place| place.row), None);
}

#[test]
fn a_channel_that_cannot_be_is_not_told() {
    let channel = |instance: u64| {
        let record = smca_record(0x0000_0096_0000_0000 | instance, 0);
        locate(&record).unwrap().channel
    };
    assert_eq!(channel(0x0fe0_0f00), Some(0xfe));
    // The key's word for "not told", and what eight bits cannot hold.
    assert_eq!(channel(0x0ff0_0f00), None);
    assert_eq!(channel(0x1000_0f00), None);
}

#[test]
fn records_of_firmware_have_no_place() {
    for cpuvendor in [0, 2, 9] {
        let record = Record {
            status: 0x9c00_0000_0000_009f,
            cpuvendor,
            bank: BANK_NONE,
            ipid: 0x0000_0096_0005_0f00,
            ..Record::default()
        };
        assert_eq!(locate(&record), None);
        assert_eq!(Origin(&record).to_string(), "firmware (GHES), no bank");
    }
}

#[test]
fn bit_55_has_the_name_of_its_vendor() {
    let intel = Record {
        status: VAL | 1 << 55,
        ..Record::default()
    };
    assert_eq!(Flags(&intel).to_string(), "VAL|AR");
    let amd = Record {
        cpuvendor: 2,
        ..intel
    };
    assert_eq!(Flags(&amd).to_string(), "VAL|TCC");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// No record can make decoding panic.
    #[test]
    fn any_record_can_be_read(record in any_record()) {
        let _ = format!("{} {} {}", Flags(&record), Origin(&record), Summary(&record));
        if let Some(place) = locate(&record) {
            let _ = (place.part_key(record.socketid, record.bank), place.row_key());
        }
    }

    /// Different places have different keys.
    #[test]
    fn parts_do_not_share_keys(a in any_record(), b in any_record()) {
        let (Some(x), Some(y)) = (locate(&a), locate(&b)) else { return Ok(()) };
        let part = |p: crate::decode::location::Location, r: &Record| {
            (r.socketid & 0xff_ffff, r.bank, p.controller, p.channel, p.dimm, p.rank)
        };
        if x.part_key(a.socketid, a.bank) == y.part_key(b.socketid, b.bank) {
            prop_assert_eq!(part(x, &a), part(y, &b));
        }
    }
}
