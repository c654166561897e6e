// SPDX-License-Identifier: GPL-2.0

//! Machine checks: graded, told and judged.

use std::collections::BTreeMap;

use super::buckets::{Exact, Heap};
use crate::abi::{mce as reason, Level};
use crate::decode::location::{is_memory_error, locate};
use crate::decode::record::*;
use crate::decode::severity::{grade, Context, Features, Grade, Graded, Severity};
use crate::decode::text::{Flags, Origin, Summary};
use crate::input::Input;
use crate::mce::buckets::Window;
use crate::mce::predict::{Predictor, Thresholds, Verdict};
use crate::reference::{kernel_amd, kernel_intel};

fn any_record(input: &mut Input<'_>) -> Record {
    const CPUS: &[u32] = &[
        0x50657, 0x50653, 0x606a6, 0x606c1, 0x80665, 0x806f8, 0xc06f2, 0xa06d1, 0xa10f11, 0xa90f01,
        0xb40f40, 0x900f11,
    ];
    let cpuid = match input.below(13) {
        12 => input.u32(),
        n => CPUS[n as usize],
    };
    Record {
        cpuid,
        cpuvendor: input.u8(),
        bank: input.u8(),
        cs: input.u8(),
        status: input.u64(),
        mcgstatus: input.u16().into(),
        kflags: input.u8().into(),
        misc: input.u64(),
        addr: input.u64(),
        mcgcap: input.u32().into(),
        ipid: input.u64(),
        socketid: input.u8().into(),
        synd: input.u64(),
        ip: input.u64(),
        tsc: input.u64(),
        time: input.u64(),
        synd1: input.u64(),
        synd2: input.u64(),
        ppin: input.u64(),
        cpu: input.u32(),
        apicid: input.u32(),
        microcode: input.u32(),
        inject_flags: input.u8(),
        severity: input.u8(),
    }
}

pub(super) fn severity(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let bits = input.u8();
    let flag = |bit: u8| bits & 1 << bit != 0;
    let features = Features {
        ser: flag(0),
        overflow_recov: flag(1),
        succor: flag(2),
        smca: flag(3),
    };
    let (exception, own_context) = (flag(4), flag(5));
    let given = input.pick(&[Context::User, Context::Kernel, Context::KernelRecoverable]);
    let mut record = any_record(input);
    if flag(6) {
        // Codes that rules are about, and what is next to them.
        let code = input.pick(&[0xc0, 0x17a, 0x134, 0x150, 0x90, 0]);
        let bit = input.pick(&[0, 1 << 12, 1 << 4, 1, 1 << 15]);
        record.status = record.status & !0xffff | code ^ bit;
        record.status |= u64::from(input.u8()) << 56;
    }
    let context = if own_context {
        Context::of(&record)
    } else {
        given
    };

    let graded = grade(&record, context, &features, exception);
    let plausible = record.has(VAL) && (record.bank < 64 || record.bank == 255);
    let kernels = match (plausible, record.vendor()) {
        (false, _) => Severity::No,
        // The kernel grades none of these.
        (true, _) if record.bank == BANK_NONE => graded.severity,
        (true, Vendor::Amd | Vendor::Hygon) => kernel_amd(&record, context, &features),
        (true, _) => kernel_intel(&record, context, features.ser, exception),
    };
    assert_eq!(graded.severity, kernels, "{}", graded.why);
    assert_eq!(
        graded.grade == Grade::Fatal,
        kernels == Severity::Panic,
        "{}",
        graded.why
    );
    assert!(!graded.why.is_empty());
    if !plausible {
        assert_eq!(graded.grade, Grade::Invalid);
    }
    // What is lost is never called corrected, nor the other way round.
    match graded.grade {
        Grade::Corrected | Grade::HiddenUncorrected => assert!(!record.has(UC)),
        Grade::Deferred | Grade::ActionOptional | Grade::ActionRequired => {
            assert!(record.has(UC) || record.has(DEFERRED));
        }
        Grade::Invalid | Grade::Fatal => {}
    }
}

/// One line that a terminal can show.
fn check_line(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes: {text}", text.len());
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}

pub(super) fn decode(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let kind = input.u8();
    let mut record = any_record(input);
    match kind & 3 {
        // Of a memory controller that tells where.
        1 => {
            record.cpuvendor = 0;
            record.bank = 13 + (kind >> 2) % 16;
            record.status = record.status & !0xffff | 0x90 | ADDRV | MISCV;
        }
        2 => {
            record.cpuvendor = 2;
            record.ipid = record.ipid & 0xffff_ffff | 0x96 << 32;
        }
        _ => {}
    }
    check_line(&Summary(&record).to_string(), 1000);
    check_line(&Origin(&record).to_string(), 80);
    assert_eq!(Record::unpack(&record.pack()), record);
    assert!(record.corrected_count() >= 1);

    let known = if record.format().is_amd() {
        VAL | OVER | UC | EN | MISCV | ADDRV | PCC | TCC | SYNDV | DEFERRED | POISON | SCRUB
    } else {
        VAL | OVER | UC | EN | MISCV | ADDRV | PCC | S | AR
    };
    let flags = Flags(&record).to_string();
    let names = flags.split('|').filter(|name| !name.is_empty());
    assert_eq!(names.count() as u32, (record.status & known).count_ones());

    let place = locate(&record);
    if let Some(place) = place {
        assert!(record.bank != BANK_NONE);
        assert!(record.vendor().is_amd() || is_memory_error(&record));
        // Fields are packed into keys, with a value for what is not told.
        let fields = [
            place.controller,
            place.channel,
            place.dimm,
            place.rank,
            place.bank_group,
            place.bank,
        ];
        assert!(fields.iter().flatten().all(|field| *field != 0xff));
        assert!(place.row.is_none_or(|row| row < 1 << 22));
        assert!(place.column.is_none_or(|column| column < 1 << 13));
    }
    if let Some((address, granularity)) = record.physical_address() {
        assert!(record.has(ADDRV) && granularity <= 12);
        assert_eq!(address, record.addr);
    }
    // Parts that differ have keys that differ.
    let mut other = record;
    other.misc ^= 1 << input.below(64);
    other.ipid ^= input.pick(&[0, 0, 1 << 20, 1 << 28, 1 << 12]);
    other.bank ^= input.pick(&[0, 0, 1, 2, 4]);
    if let (Some(a), Some(b)) = (place, locate(&other)) {
        let part = |place: &crate::decode::location::Location| {
            [place.controller, place.channel, place.dimm, place.rank]
        };
        let (a_key, b_key) = (a.part_key(1, 2), b.part_key(1, 2));
        assert_eq!(part(&a) == part(&b), a_key == b_key);
    }
}

/// A bucket's thresholds, counted exactly, by what it is about.
struct Counts {
    window: Window,
    buckets: BTreeMap<u64, Exact>,
}

impl Counts {
    fn new(seconds: u32) -> Self {
        Counts {
            window: Window::from_secs(seconds),
            buckets: BTreeMap::new(),
        }
    }

    fn fill(&mut self, key: u64, now: u64, errors: u32, threshold: u32) -> (u32, u8) {
        let bucket = self.buckets.entry(key).or_default();
        bucket.fill(&self.window, now, errors, threshold)
    }

    fn level(&mut self, key: u64, now: u64) -> u32 {
        let bucket = self.buckets.get_mut(&key);
        bucket.map_or(0, |bucket| bucket.level(&self.window, now))
    }
}

/// The part of a verdict that does not depend on where in memory an error was.
struct Model {
    banks: Counts,
    sockets: Counts,
    storms: Counts,
    overflows: Counts,
}

impl Model {
    fn new(thresholds: &Thresholds) -> Self {
        Model {
            banks: Counts::new(thresholds.window_s),
            sockets: Counts::new(thresholds.window_s),
            storms: Counts::new(thresholds.storm_window_s),
            overflows: Counts::new(thresholds.window_s),
        }
    }

    fn judge(
        &mut self,
        record: &Record,
        graded: &Graded,
        now: u64,
        thresholds: &Thresholds,
        verdict: &Verdict,
    ) {
        let socket = u64::from(record.socketid);
        let bank = socket << 8 | u64::from(record.bank);
        let mut reasons = 0;
        let mut level = Level::Watch;
        match graded.grade {
            Grade::Invalid => assert_eq!(*verdict, QUIET),
            Grade::Corrected => {
                let mut fill = |counts: &mut Counts, key, errors, threshold, why| {
                    let (count, trips) = counts.fill(key, now, errors, threshold);
                    if trips != 0 {
                        let most =
                            thresholds.escalate != 0 && u32::from(trips) >= thresholds.escalate;
                        level = level.max(if most {
                            Level::Imminent
                        } else {
                            Level::Degrading
                        });
                        reasons |= why;
                    }
                    count
                };
                let (errors, t) = (record.corrected_count(), thresholds);
                let count = fill(&mut self.banks, bank, errors, t.bank, reason::R_BANK);
                assert_eq!(verdict.bank_count, count);
                let count = fill(
                    &mut self.sockets,
                    socket,
                    errors,
                    t.socket,
                    reason::R_SOCKET,
                );
                assert_eq!(verdict.socket_count, count);
                fill(&mut self.storms, bank, 1, t.storm, reason::R_STORM);
                if record.has(OVER) {
                    fill(&mut self.overflows, bank, 1, t.overflow, reason::R_OVERFLOW);
                }
                let others = reason::R_PAGE
                    | reason::R_DIMM
                    | reason::R_COLUMNS
                    | reason::R_PARITY
                    | reason::R_ESCALATED
                    | reason::R_EVICTED;
                assert_eq!(verdict.reason & !others, reasons);
                assert!(verdict.level >= level && verdict.level < Level::Fatal);
                assert_eq!(
                    verdict.level == Level::Watch,
                    verdict.reason & !reason::R_EVICTED == 0
                );
            }
            lost => {
                assert_eq!(verdict.bank_count, self.banks.level(bank, now));
                assert_eq!(verdict.socket_count, self.sockets.level(socket, now));
                let expected = match lost {
                    Grade::Fatal => Level::Fatal,
                    Grade::Deferred if record.is_spurious() => Level::Watch,
                    _ => Level::Imminent,
                };
                assert_eq!(verdict.level, expected);
            }
        }
    }
}

const QUIET: Verdict = Verdict {
    level: Level::Watch,
    reason: 0,
    page_count: 0,
    dimm_count: 0,
    bank_count: 0,
    socket_count: 0,
    evicted: 0,
};

pub(super) fn predict(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let thresholds = Thresholds {
        page: input.u8().into(),
        dimm: input.u8().into(),
        bank: input.u8().into(),
        socket: input.u8().into(),
        window_s: input.u8().into(),
        storm: input.u8().into(),
        storm_window_s: input.u8().into(),
        columns: input.u8().into(),
        overflow: input.u8().into(),
        parity: input.u8().into(),
        escalate: input.u8().into(),
    };
    let Ok(mut predictor) = Predictor::<Heap>::new();
    let mut model = Model::new(&thresholds);
    let mut now = 0u64;
    // A bank's table has 32 sets of 8: with so few nothing is ever evicted from it.
    let mut places = std::collections::BTreeSet::new();
    while !input.is_empty() {
        now = now.saturating_add(input.u32().into());
        let vendor = input.pick(&[0, 2, 9]);
        let bank = input.below(4) as u8;
        let record = Record {
            cpuvendor: vendor,
            bank,
            socketid: input.below(2) as u32,
            status: VAL | input.u64(),
            misc: input.u64(),
            addr: input.u64(),
            mcgcap: CAP_SER_P | CAP_CMCI_P,
            cpuid: input.pick(&[0x50657, 0x606a6, 0x806f8, 0xa06d1, 0xa10f11, 0xa90f01]),
            ipid: input.pick(&[0, 0x0000_0096_0005_0f00, 0x0001_0096_0010_0f00]) ^ input.u64(),
            ..Record::default()
        };
        places.insert((record.socketid, record.bank));
        assert!(places.len() <= 8);
        let features = Features::assumed(&record);
        let graded = grade(&record, Context::of(&record), &features, false);
        let verdict = predictor.judge(&record, &graded, now, &thresholds);
        model.judge(&record, &graded, now, &thresholds, &verdict);
    }
}
