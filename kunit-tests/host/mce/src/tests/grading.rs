// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::decode::record::*;
use crate::decode::severity::Grade;
use crate::reference::{kernel_amd, kernel_intel};
use crate::vectors::VECTORS;

#[test]
fn vectors_have_the_grade_that_they_should() {
    for vector in VECTORS {
        let got = graded(&vector.record, vector.exception);
        assert_eq!(
            (got.grade, got.severity),
            (vector.grade, vector.severity),
            "{} ({})",
            vector.name,
            got.why
        );
        let level = Node::new()
            .predictor
            .judge(&vector.record, &got, SECOND, &Thresholds::DEFAULT);
        assert_eq!(level.level, vector.level, "{}", vector.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// The table says what the kernel's says, for Intel.
    #[test]
    fn intel_severity_is_the_kernels(
        mut record in any_record(),
        context in prop::sample::select(vec![
            Context::User, Context::Kernel, Context::KernelRecoverable,
        ]),
        code in prop::sample::select(vec![0u64, 0xc0, 0x10c5, 0x17a, 0x134, 0x150, 0x92, 0x1134]),
        known_code in any::<bool>(),
        skx in any::<bool>(),
        located in any::<bool>(),
        no_pcc in any::<bool>(),
        ser in any::<bool>(),
        exception in any::<bool>(),
    ) {
        record.cpuvendor = 0;
        record.bank %= 64;
        if known_code {
            record.status = record.status & !0xffff | code;
        }
        if skx {
            record.cpuid = 0x50657;
            record.status = record.status & !0xffff_0000 | 0x10_0000;
            record.bank = 13 + record.bank % 6;
        }
        if located {
            record.status |= ADDRV | MISCV;
        }
        if no_pcc {
            record.status &= !PCC;
        }
        let features = Features { ser, overflow_recov: false, succor: false, smca: false };
        let ours = grade(&record, context, &features, exception);
        prop_assert_eq!(
            ours.severity,
            kernel_intel(&record, context, ser, exception),
            "{}", ours.why
        );
    }

    /// And for AMD.
    #[test]
    fn amd_severity_is_the_kernels(
        mut record in any_record(),
        hygon in any::<bool>(),
        overflow_recov in any::<bool>(),
        succor in any::<bool>(),
        user in any::<bool>(),
    ) {
        record.cpuvendor = if hygon { 9 } else { 2 };
        record.status |= VAL;
        record.bank %= 64;
        let context = if user { Context::User } else { Context::Kernel };
        let features = Features { ser: false, overflow_recov, succor, smca: true };
        let expected = kernel_amd(&record, context, &features);
        prop_assert_eq!(grade(&record, context, &features, true).severity, expected);
    }

    /// What loses data is never taken for a corrected error, and the other way round.
    #[test]
    fn corrected_means_corrected(record in any_record(), exception in any::<bool>()) {
        let got = graded(&record, exception);
        match got.grade {
            Grade::Invalid => {}
            Grade::Corrected => prop_assert!(!record.has(UC)),
            Grade::HiddenUncorrected => prop_assert!(!record.has(UC)),
            _ => prop_assert!(
                record.has(UC)
                    || record.has(PCC)
                    || (record.format().is_amd() && record.has(DEFERRED))
                    || exception
            ),
        }
    }

    /// Packing loses nothing.
    #[test]
    fn words_hold_the_record(record in any_record()) {
        prop_assert_eq!(Record::unpack(&record.pack()), record);
    }
}

#[test]
fn user_mode_is_ring_3_alone() {
    for cs in 0..8 {
        let record = Record {
            cs,
            ..Record::default()
        };
        let expected = match cs & 3 {
            3 => Context::User,
            _ => Context::Kernel,
        };
        assert_eq!(Context::of(&record), expected, "cs {cs}");
    }
}

#[test]
fn corrected_count_is_intels_only() {
    let mut record = Record {
        status: VAL | 7 << 38,
        mcgcap: CAP_CMCI_P,
        ..Record::default()
    };
    assert_eq!(record.corrected_count(), 7);
    record.mcgcap = 0;
    assert_eq!(record.corrected_count(), 1);
    record.mcgcap = CAP_CMCI_P;
    record.cpuvendor = 2;
    assert_eq!(record.corrected_count(), 1);
    record.cpuvendor = 0;
    record.status = VAL;
    assert_eq!(record.corrected_count(), 1);
}

#[test]
fn cpuid_is_read_as_the_manuals_say() {
    for (cpuid, family, model, stepping) in [
        (0x50657, 6, 0x55, 7),
        (0xa60f12, 0x19, 0x61, 2),
        (0x900f11, 0x18, 0x01, 1),
        (0x706a1, 6, 0x7a, 1),
        (0x633, 6, 3, 3),
        (0x520, 5, 2, 0),
    ] {
        let record = Record {
            cpuid,
            ..Record::default()
        };
        assert_eq!(
            (record.family(), record.model(), record.stepping()),
            (family, model, stepping),
            "{cpuid:#x}"
        );
    }
}

#[test]
fn addresses_are_physical_only_when_the_record_says_so() {
    let record = Record {
        status: VAL | ADDRV | MISCV,
        addr: 0x1234_5678,
        misc: 0x8c,
        ..Record::default()
    };
    assert_eq!(record.physical_address(), Some((0x1234_5678, 12)));
    for (status, misc) in [
        (VAL | MISCV, 0x8c),
        (VAL | ADDRV, 0x8c),
        (VAL | ADDRV | MISCV, 0x4c),
        (VAL | ADDRV | MISCV, 0x8d),
    ] {
        let record = Record {
            status,
            misc,
            ..record
        };
        assert_eq!(record.physical_address(), None, "{status:#x} {misc:#x}");
    }
    let amd = Record {
        cpuvendor: 2,
        ..record
    };
    assert_eq!(amd.physical_address(), None);
    let poison = Record {
        status: VAL | ADDRV | POISON,
        ..amd
    };
    assert_eq!(poison.physical_address(), Some((0x1234_5678, 6)));
    let firmware = Record {
        bank: BANK_NONE,
        ..amd
    };
    assert_eq!(firmware.physical_address(), Some((0x1234_5678, 12)));
}
