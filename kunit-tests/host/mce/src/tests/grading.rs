// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::decode::record::*;
use crate::decode::severity::{Grade, Severity};
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

/// `mce_severity_intel()` once more, as nested decisions instead of a table.
fn kernel_intel(r: &Record, context: Context, ser: bool, exception: bool) -> Severity {
    use Severity as L;
    let code = r.status & 0xefff;
    let (uc, s, ar, over) = (r.has(UC), r.has(S), r.has(AR), r.has(OVER));
    let (rip, eip) = (r.mcgstatus & 1 != 0, r.mcgstatus & 2 != 0);
    if !r.has(VAL) || (exception && !r.has(EN)) {
        return L::No;
    }
    if r.has(PCC) {
        return L::Panic;
    }
    if exception && (r.mcgstatus & 4 == 0 || (!rip && !eip) || (context != Context::User && !rip)) {
        return L::Panic;
    }
    if !ser {
        return match (uc, over, context) {
            (false, ..) => L::Keep,
            (true, true, _) | (true, _, Context::Kernel) => L::Panic,
            _ => L::Uncorrected,
        };
    }
    if uc && !ar && (code & 0xfff0 == 0xc0 || code == 0x17a) {
        return L::ActionOptional;
    }
    let skx = r.cpuvendor == 0 && r.family() == 6 && r.model() == 0x55 && r.stepping() >= 4;
    if skx
        && (13..=18).contains(&r.bank)
        && !uc
        && r.has(MISCV)
        && r.has(ADDRV)
        && r.mscod() == 0x10
        && code & 0xfff0 == 0xc0
    {
        return L::ActionOptional;
    }
    match (uc, s, ar) {
        (true, false, false) => L::Deferred,
        (true, false, true) if !over => L::Panic,
        (_, false, _) => L::Keep,
        (true, true, true) if over => L::Panic,
        (true, true, true) => {
            let located = r.has(ADDRV) && r.has(MISCV);
            let data = code == 0x134;
            let consumed = data || code == 0x150;
            let seam = r.mcgstatus & (1 << 12) != 0;
            if located && rip && !eip {
                L::Keep
            } else if located && consumed {
                match context {
                    Context::User => L::ActionRequired,
                    Context::KernelRecoverable if data => L::ActionRequired,
                    Context::KernelRecoverable => L::Panic,
                    Context::Kernel if seam => L::ActionRequired,
                    Context::Kernel => L::Panic,
                }
            } else {
                L::Panic
            }
        }
        (true, true, false) => L::Some,
        (false, true, _) => L::Some,
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
        let expected = if record.has(PCC) {
            Severity::Panic
        } else if record.has(DEFERRED) {
            Severity::Deferred
        } else if !record.has(UC) {
            Severity::Keep
        } else if (record.has(OVER) && !overflow_recov) || !succor || !user {
            Severity::Panic
        } else {
            Severity::ActionRequired
        };
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
                    || (record.vendor().is_amd() && record.has(DEFERRED))
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
}
