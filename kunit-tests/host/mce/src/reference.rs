// SPDX-License-Identifier: GPL-2.0

//! The kernel's grading once more, as nested decisions instead of a table: what the driver's is
//! compared with, here and by the fuzzer.

use crate::decode::record::*;
use crate::decode::severity::{Context, Features, Severity};

/// `mce_severity_intel()`.
pub(crate) fn kernel_intel(r: &Record, context: Context, ser: bool, exception: bool) -> Severity {
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

/// `mce_severity_amd()`.
pub(crate) fn kernel_amd(record: &Record, context: Context, features: &Features) -> Severity {
    let lost = record.has(OVER) && !features.overflow_recov;
    if record.has(PCC) {
        Severity::Panic
    } else if record.has(DEFERRED) {
        Severity::Deferred
    } else if !record.has(UC) {
        Severity::Keep
    } else if lost || !features.succor || context == Context::Kernel {
        Severity::Panic
    } else {
        Severity::ActionRequired
    }
}
