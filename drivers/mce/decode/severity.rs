// SPDX-License-Identifier: GPL-2.0

//! How bad a machine check is.
//!
//! Records reach the module from places that grade them (the exception handler, polling) and from
//! places that do not (software injection, firmware), so all are graded here, by the rules of
//! arch/x86/kernel/cpu/mce/severity.c: with the same input the [`Severity`] is the kernel's own.
//! The [`Grade`] is finer where that is not enough to act on: a corrected error and an uncorrected
//! one that nobody signalled are both "keep" to the kernel.

use super::record::{
    Record, Vendor, ADDRV, AR, CAP_SER_P, DEFERRED, EN, KFLAG_IN_KERNEL_RECOV, MCG_EIPV, MCG_MCIP,
    MCG_RIPV, MCG_SEAM_NR, MISCV, OVER, PCC, S, UC,
};

/// What a record means for the node; the numbers are `NULLHZ_MCE_*` of the fault ABI.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    /// Not a record: not valid, not enabled, or of a bank that cannot be.
    Invalid = 0,
    /// The hardware repaired it.
    Corrected = 1,
    /// Data is lost but was not used yet: AMD deferred, Intel UCNA.
    Deferred = 2,
    /// Data is lost, found by a scrubber or a write-back: Intel SRAO.
    ActionOptional = 3,
    /// Lost data was consumed and the consumer can be stopped: Intel SRAR.
    ActionRequired = 4,
    /// The processor's context is lost, or nothing can be recovered.
    Fatal = 5,
    /// Data is lost but logged as if it had been corrected: Skylake and Cascade Lake scrubbers.
    HiddenUncorrected = 6,
}

impl Grade {
    /// How many grades there are.
    pub(crate) const COUNT: usize = 7;

    /// Short name for logs, sysfs and JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Grade::Invalid => "invalid",
            Grade::Corrected => "corrected",
            Grade::Deferred => "deferred",
            Grade::ActionOptional => "action_optional",
            Grade::ActionRequired => "action_required",
            Grade::Fatal => "fatal",
            Grade::HiddenUncorrected => "hidden_uncorrected",
        }
    }
}

/// `enum severity_level` of the kernel (arch/x86/kernel/cpu/mce/internal.h).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// `MCE_NO_SEVERITY`.
    No = 0,
    /// `MCE_DEFERRED_SEVERITY`, `MCE_UCNA_SEVERITY`.
    Deferred = 1,
    /// `MCE_KEEP_SEVERITY`.
    Keep = 2,
    /// `MCE_SOME_SEVERITY`.
    Some = 3,
    /// `MCE_AO_SEVERITY`.
    ActionOptional = 4,
    /// `MCE_UC_SEVERITY`.
    Uncorrected = 5,
    /// `MCE_AR_SEVERITY`.
    ActionRequired = 6,
    /// `MCE_PANIC_SEVERITY`.
    Panic = 7,
}

/// What the processor was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    /// User mode.
    User,
    /// The kernel, or unknown, which counts as the kernel.
    Kernel,
    /// The kernel at a place that has a fixup for machine checks.
    KernelRecoverable,
}

impl Context {
    /// What the kernel's `error_context()` found out when it graded the record itself.
    pub(crate) const fn of(record: &Record) -> Self {
        let recoverable = MCG_RIPV | MCG_EIPV;
        if record.cs & 3 == 3 {
            Context::User
        } else if record.mcgstatus & recoverable == recoverable
            && record.kflags & KFLAG_IN_KERNEL_RECOV != 0
        {
            Context::KernelRecoverable
        } else {
            Context::Kernel
        }
    }
}

/// What the processor offers for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Intel: software error recovery (`MCG_CAP.SER_P`).
    pub(crate) ser: bool,
    /// AMD: overflow is recoverable (`CPUID 8000_0007 EBX[0]`).
    pub(crate) overflow_recov: bool,
    /// AMD: uncorrected errors are contained (`CPUID 8000_0007 EBX[1]`).
    pub(crate) succor: bool,
    /// AMD: scalable MCA (`CPUID 8000_0007 EBX[3]`).
    pub(crate) smca: bool,
}

impl Features {
    /// What can be told from the record alone, for a record of another machine.
    pub(crate) const fn assumed(record: &Record) -> Self {
        let zen = record.vendor().is_amd() && record.family() >= 0x17;
        Features {
            ser: record.mcgcap & CAP_SER_P != 0,
            overflow_recov: zen,
            succor: zen,
            smca: zen,
        }
    }
}

/// The result of grading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Graded {
    /// What it means for the node.
    pub(crate) grade: Grade,
    /// What the kernel says about the same record.
    pub(crate) severity: Severity,
    /// The rule that matched.
    pub(crate) why: &'static str,
}

/// Grades `record`.
///
/// `exception` tells whether it was found by the machine-check handler; polling finds the same
/// registers in a state that the handler must not see.
pub(crate) fn grade(
    record: &Record,
    context: Context,
    features: &Features,
    exception: bool,
) -> Graded {
    if !record.is_plausible() {
        return Graded {
            grade: Grade::Invalid,
            severity: Severity::No,
            why: "no valid record",
        };
    }
    if record.is_firmware_first() {
        return grade_firmware_first(record);
    }
    if record.vendor().is_amd() {
        return grade_amd(record, context, features);
    }
    for rule in INTEL {
        if rule.matches(record, context, features, exception) {
            return rule.result;
        }
    }
    NO_MATCH
}

const fn graded(grade: Grade, severity: Severity, why: &'static str) -> Graded {
    Graded {
        grade,
        severity,
        why,
    }
}

const NO_MATCH: Graded = graded(Grade::Corrected, Severity::Some, "no rule matches");

/// `apei_mce_report_mem_error()`: UC from `GHES_SEV_RECOVERABLE` on, PCC from `GHES_SEV_PANIC` on.
///
/// The kernel never grades these, and goes on after what firmware calls recoverable. The vendor's
/// rules would take the context of the work queue that made the record for that of a consumer.
fn grade_firmware_first(record: &Record) -> Graded {
    if record.has(PCC) {
        graded(Grade::Fatal, Severity::Panic, "firmware: fatal")
    } else if record.has(UC) {
        graded(Grade::Deferred, Severity::Deferred, "firmware: recoverable")
    } else {
        graded(Grade::Corrected, Severity::Keep, "firmware: corrected")
    }
}

/// AMD APM volume 2, "Machine Check Error Handling"; `mce_severity_amd()`.
fn grade_amd(record: &Record, context: Context, features: &Features) -> Graded {
    use Severity::{ActionRequired, Deferred, Keep, Panic};

    if record.has(PCC) {
        graded(Grade::Fatal, Panic, "processor context corrupt")
    } else if record.has(DEFERRED) {
        graded(Grade::Deferred, Deferred, "deferred")
    } else if !record.has(UC) {
        graded(Grade::Corrected, Keep, "corrected")
    } else if record.has(OVER) && !features.overflow_recov {
        graded(
            Grade::Fatal,
            Panic,
            "uncorrected with overflow, not recoverable here",
        )
    } else if !features.succor {
        graded(
            Grade::Fatal,
            Panic,
            "uncorrected, no recovery on this processor",
        )
    } else if matches!(context, Context::Kernel) {
        graded(Grade::Fatal, Panic, "uncorrected in the kernel")
    } else {
        graded(
            Grade::ActionRequired,
            ActionRequired,
            "uncorrected, contained",
        )
    }
}

/// One row of the Intel table. Rows are tried in order and the first that matches decides.
struct Rule {
    result: Graded,
    /// `MCi_STATUS & .0 == .1`.
    status: (u64, u64),
    /// `MCG_STATUS & .0 == .1`.
    mcg: (u64, u64),
    ser: Option<bool>,
    context: Option<Context>,
    only_exception: bool,
    /// Only Skylake and Cascade Lake memory controllers that hide uncorrected scrub errors.
    only_skx_scrub: bool,
}

impl Rule {
    const fn new(grade: Grade, severity: Severity, why: &'static str) -> Self {
        Rule {
            result: graded(grade, severity, why),
            status: (0, 0),
            mcg: (0, 0),
            ser: None,
            context: None,
            only_exception: false,
            only_skx_scrub: false,
        }
    }

    /// Of the bits `mask` exactly `set` are set in `MCi_STATUS`.
    const fn status(mut self, mask: u64, set: u64) -> Self {
        self.status = (mask, set);
        self
    }

    /// Of the bits `mask` exactly `set` are set in `MCG_STATUS`.
    const fn mcg(mut self, mask: u64, set: u64) -> Self {
        self.mcg = (mask, set);
        self
    }

    /// With, or without, software error recovery.
    const fn ser(mut self, present: bool) -> Self {
        self.ser = Some(present);
        self
    }

    const fn in_context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    const fn in_exception(mut self) -> Self {
        self.only_exception = true;
        self
    }

    const fn on_skx_scrub(mut self) -> Self {
        self.only_skx_scrub = true;
        self
    }

    fn matches(
        &self,
        record: &Record,
        context: Context,
        features: &Features,
        exception: bool,
    ) -> bool {
        record.status & self.status.0 == self.status.1
            && record.mcgstatus & self.mcg.0 == self.mcg.1
            && self.ser.is_none_or(|ser| ser == features.ser)
            && self.context.is_none_or(|wanted| wanted == context)
            && (!self.only_exception || exception)
            && (!self.only_skx_scrub || is_skx_scrub(record))
    }
}

/// Whether the record is from a memory controller of a Skylake server (from stepping 4 on).
fn is_skx_scrub(record: &Record) -> bool {
    matches!(record.vendor(), Vendor::Intel)
        && record.family() == 6
        && record.model() == 0x55
        && record.stepping() >= 4
        && (13..=18).contains(&record.bank)
}

/// `MCACOD` without bit 12, which only says whether the hardware filters corrected errors.
const CODE: u64 = 0xefff;
/// The same without the channel: all of memory scrubbing is one code.
const CODE_CLASS: u64 = 0xeff0;
const CODE_SCRUB: u64 = 0x00c0;
const CODE_L3_WRITEBACK: u64 = 0x017a;
const CODE_DATA_LOAD: u64 = 0x0134;
const CODE_INSTRUCTION_FETCH: u64 = 0x0150;
const SAR: u64 = UC | S | AR;
const LOCATED: u64 = ADDRV | MISCV;

/// A consumed error whose address is known, with nothing overwritten and code `code`.
const fn consumed(rule: Rule, code: u64) -> Rule {
    rule.status(OVER | SAR | LOCATED | CODE, SAR | LOCATED | code)
        .ser(true)
}

/// SDM volume 3B, "UCR Error Classification" and "MCA Error Codes"; `severities[]`.
const INTEL: &[Rule] = &{
    use Context::{Kernel, KernelRecoverable, User};
    use Grade as G;
    use Severity as L;

    [
        Rule::new(G::Invalid, L::No, "not enabled")
            .status(EN, 0)
            .in_exception(),
        Rule::new(G::Fatal, L::Panic, "processor context corrupt").status(PCC, PCC),
        Rule::new(G::Fatal, L::Panic, "exception without MCIP")
            .mcg(MCG_MCIP, 0)
            .in_exception(),
        Rule::new(G::Fatal, L::Panic, "neither restart nor error IP")
            .mcg(MCG_RIPV | MCG_EIPV, 0)
            .in_exception(),
        Rule::new(G::Fatal, L::Panic, "in the kernel without restart IP")
            .mcg(MCG_RIPV, 0)
            .in_context(Kernel)
            .in_exception(),
        Rule::new(G::Fatal, L::Panic, "in the kernel without restart IP")
            .mcg(MCG_RIPV, 0)
            .in_context(KernelRecoverable)
            .in_exception(),
        Rule::new(G::Corrected, L::Keep, "corrected")
            .status(UC, 0)
            .ser(false),
        // The S bit tells machine check from CMCI here, not the kind of the error.
        Rule::new(G::ActionOptional, L::ActionOptional, "memory scrubbing")
            .status(UC | AR | CODE_CLASS, UC | CODE_SCRUB)
            .ser(true),
        Rule::new(G::ActionOptional, L::ActionOptional, "cache write-back")
            .status(UC | AR | CODE, UC | CODE_L3_WRITEBACK)
            .ser(true),
        // The scrubber may be set up to report what it cannot correct as if it had: UC = 0,
        // model-specific code 0x0010, code 000x 0000 1100 xxxx.
        Rule::new(
            G::HiddenUncorrected,
            L::ActionOptional,
            "uncorrected scrub error, logged as corrected",
        )
        .status(
            UC | LOCATED | 0xffff_eff0,
            LOCATED | 0x0010_0000 | CODE_SCRUB,
        )
        .ser(true)
        .on_skx_scrub(),
        Rule::new(G::Deferred, L::Deferred, "uncorrected, no action required")
            .status(SAR, UC)
            .ser(true),
        Rule::new(
            G::Fatal,
            L::Panic,
            "no action required and action required at once",
        )
        .status(OVER | SAR, UC | AR)
        .ser(true),
        Rule::new(G::Corrected, L::Keep, "corrected")
            .status(UC | S, 0)
            .ser(true),
        Rule::new(G::Deferred, L::Keep, "uncorrected but not signalled")
            .status(S, 0)
            .ser(true),
        Rule::new(G::Fatal, L::Panic, "action required, with lost errors")
            .status(OVER | SAR, OVER | SAR)
            .ser(true),
        Rule::new(
            G::ActionRequired,
            L::Keep,
            "action required of another thread",
        )
        .status(OVER | SAR | LOCATED, SAR | LOCATED)
        .mcg(MCG_RIPV | MCG_EIPV, MCG_RIPV)
        .ser(true),
        consumed(
            Rule::new(
                G::ActionRequired,
                L::ActionRequired,
                "data load with a fixup in the kernel",
            ),
            CODE_DATA_LOAD,
        )
        .in_context(KernelRecoverable),
        consumed(
            Rule::new(
                G::ActionRequired,
                L::ActionRequired,
                "data load in user mode",
            ),
            CODE_DATA_LOAD,
        )
        .in_context(User),
        consumed(
            Rule::new(
                G::ActionRequired,
                L::ActionRequired,
                "instruction fetch in user mode",
            ),
            CODE_INSTRUCTION_FETCH,
        )
        .in_context(User),
        consumed(
            Rule::new(
                G::ActionRequired,
                L::ActionRequired,
                "data load in SEAM non-root mode",
            ),
            CODE_DATA_LOAD,
        )
        .mcg(MCG_SEAM_NR, MCG_SEAM_NR)
        .in_context(Kernel),
        consumed(
            Rule::new(
                G::ActionRequired,
                L::ActionRequired,
                "instruction fetch in SEAM non-root mode",
            ),
            CODE_INSTRUCTION_FETCH,
        )
        .mcg(MCG_SEAM_NR, MCG_SEAM_NR)
        .in_context(Kernel),
        consumed(
            Rule::new(G::Fatal, L::Panic, "data load in the kernel"),
            CODE_DATA_LOAD,
        )
        .in_context(Kernel),
        consumed(
            Rule::new(G::Fatal, L::Panic, "instruction fetch in the kernel"),
            CODE_INSTRUCTION_FETCH,
        )
        .in_context(Kernel),
        Rule::new(G::Fatal, L::Panic, "action required, code not known")
            .status(OVER | SAR, SAR)
            .ser(true),
        Rule::new(
            G::ActionOptional,
            L::Some,
            "action optional, code not known",
        )
        .status(OVER | SAR, UC | S)
        .ser(true),
        Rule::new(
            G::ActionOptional,
            L::Some,
            "action optional, with lost errors",
        )
        .status(OVER | SAR, OVER | UC | S)
        .ser(true),
        Rule::new(G::Fatal, L::Panic, "uncorrected with overflow").status(OVER | UC, OVER | UC),
        Rule::new(G::Fatal, L::Panic, "uncorrected in the kernel")
            .status(UC, UC)
            .in_context(Kernel),
        Rule::new(G::ActionRequired, L::Uncorrected, "uncorrected").status(UC, UC),
        // What is left is corrected, with an S bit that means nothing then.
    ]
};
