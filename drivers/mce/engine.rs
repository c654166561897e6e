// SPDX-License-Identifier: GPL-2.0

//! From a stored record to an event on the bus.
//!
//! [`Engine::notify`] runs where the record is made, in any context. The rest runs in a FIFO thread
//! on a housekeeping processor; nothing runs on others but the interrupt that wakes that thread, on
//! the processor that had the machine check.

use crate::abi::{flag, mce as kind, source, Level, Mce};
use crate::atomic::AtomicU64;
use crate::buckets::Arena;
use crate::decode::record::{Record, CAP_SER_P, MCG_MCIP, WORDS};
use crate::decode::severity::{grade, Context, Features, Grade};
use crate::decode::smca;
use crate::fault::{Report, Source};
use crate::ffi::{machine_ser, machine_vendor, trace_record, Time, Trace};
use crate::predict::Predictor;
use crate::slots::{identity, Missed, Ring, Slot};
use crate::tunables::{Counters, Tunables};
use kernel::{
    alloc::KVVec,
    kthread::{Handler, Next},
    mce::{self, NmiContext, Stage},
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

/// The kernel's memory for the tables of the predictor.
pub(crate) enum KernelArena {}

impl Arena for KernelArena {
    type Buffer<T: Copy> = KVVec<T>;
    type Error = kernel::alloc::AllocError;

    fn filled<T: Copy>(len: usize, value: T) -> Result<KVVec<T>, Self::Error> {
        KVVec::from_elem(value, len, GFP_KERNEL)
    }
}

/// A record with its two times, packed.
const ENTRY_WORDS: usize = WORDS + 2;

/// As many records as may come before the thread gets to run. The kernel's own pool has 80, or two
/// for each processor; machine checks are rare, but firmware and software can make them by the
/// thousand. About 700 KiB.
const SLOTS: usize = 4096;

/// Identities of dropped records; a few times what the kernel can have in its pool.
const MISSED: usize = 4096;

/// Everything between the machine-check code and the bus.
#[pin_data(PinnedDrop)]
pub(crate) struct Engine {
    ring: Ring<KVVec<Slot<ENTRY_WORDS>>, ENTRY_WORDS>,
    missed: Missed<KVVec<AtomicU64>>,
    /// What may be set at run time.
    pub(crate) tunables: Tunables,
    /// What was counted.
    pub(crate) counters: Counters,
    machine: Machine,
    #[pin]
    predictor: Mutex<Predictor<KernelArena>>,
    source: Source,
}

/// What the processors of this machine can do.
struct Machine {
    amd: bool,
    features: Features,
}

impl Machine {
    fn this() -> Self {
        Machine {
            amd: machine_vendor().is_amd(),
            features: Features {
                ser: machine_ser(),
                overflow_recov: mce::overflow_recovery(),
                succor: mce::succor(),
                smca: mce::smca(),
            },
        }
    }

    /// The features to grade `record` by: the machine's, unless the record is another machine's.
    fn features(&self, record: &Record) -> Features {
        if record.vendor().is_amd() != self.amd {
            return Features::assumed(record);
        }
        Features {
            // As the kernel, which asks the machine; records of software have no MCG_CAP.
            ser: self.features.ser || record.mcgcap & CAP_SER_P != 0,
            ..self.features
        }
    }
}

impl Engine {
    /// An engine that reports to the bus as the machine-check source.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let mut slots = KVVec::with_capacity(SLOTS, GFP_KERNEL)?;
            for _ in 0..SLOTS {
                slots.push(Slot::new(), GFP_KERNEL)?;
            }
            let mut places = KVVec::with_capacity(MISSED, GFP_KERNEL)?;
            for _ in 0..MISSED {
                places.push(AtomicU64::new(0), GFP_KERNEL)?;
            }
            let ring = Ring::new(slots).ok_or(EINVAL)?;
            let predictor = Predictor::new()?;
            let source = Source::register(source::MCE, c"mce")?;
            Ok(try_pin_init!(Self {
                ring,
                missed: Missed::new(places),
                tunables: Tunables::new(),
                counters: Counters::new(),
                machine: Machine::this(),
                predictor <- new_mutex!(predictor, "nullhz_mce::predictor"),
                source,
            }? Error))
        })
    }

    /// Takes a record where it is made. Returns whether there is something for the thread to do.
    ///
    /// Any context, NMI and #MC included: it copies and counts. Before a panic, which prints
    /// anyway, the bus writes to its stores and then prints a line; both are made for this
    /// context, and neither waits for a lock.
    pub(crate) fn notify(
        &self,
        _cx: &NmiContext<'_>,
        stage: Stage,
        record: Option<&mce::Record>,
    ) -> bool {
        match (stage, record.map(import)) {
            (Stage::Logged, Some(record)) => self.store(&record),
            (Stage::Panic, record) => {
                self.last_words(record.as_ref());
                false
            }
            // The node goes on, and the record was logged.
            (Stage::FakePanic, _) | (Stage::Logged, None) => false,
        }
    }

    fn store(&self, record: &Record) -> bool {
        let time = Time::now();
        let mut entry = [0; ENTRY_WORDS];
        let words = record.pack();
        let times = [time.mono_ns, time.real_ns];
        for (to, from) in entry.iter_mut().zip(Iterator::chain(words.iter(), &times)) {
            *to = *from;
        }
        if self.ring.push(&entry) {
            return true;
        }
        self.counters.dropped.add(1);
        // What finds no place here either stays lost, and is counted as such.
        self.missed.insert(record_identity(record), time.mono_ns);
        // The slots are full: there is plenty to do.
        true
    }

    /// Leaves a record of the node's end for its next boot.
    fn last_words(&self, record: Option<&Record>) {
        let time = Time::now();
        let bytes;
        let mut report = Report {
            mono_ns: time.mono_ns,
            real_ns: time.real_ns,
            kind: kind::FATAL,
            ..Report::new(Level::Fatal)
        };
        if let Some(record) = record {
            let payload = Mce {
                reason: kind::R_GRADE,
                ..payload(record)
            };
            bytes = payload.to_bytes();
            report.payload = &bytes;
            report.cpu = Some(record.cpu);
        }
        // Nobody is left to be told of a failure.
        let _ = self.source.persist(&report);
    }

    /// A record of the decode chain: one that found the slots full comes in late.
    pub(crate) fn decode(&self, record: &mce::Record) {
        let record = import(record);
        if self.missed.take(record_identity(&record)) {
            self.counters.repaired.add(1);
            self.process(&record, Time::now(), 0);
        }
    }

    /// A record from before the module was loaded.
    pub(crate) fn replay(&self, record: &mce::Record) {
        const NSEC_PER_SEC: u64 = 1_000_000_000;

        let record = import(record);
        let now = Time::now();
        let real_ns = record.time.saturating_mul(NSEC_PER_SEC);
        let time = match now.real_ns.checked_sub(real_ns) {
            // Before this boot, or before the clock was set: as early as can be said.
            Some(age) if record.time != 0 => Time {
                mono_ns: now.mono_ns.saturating_sub(age).max(1),
                real_ns,
            },
            _ => now,
        };
        self.counters.boot.add(1);
        self.process(&record, time, flag::BOOT);
    }

    fn drain(&self) {
        while let Some(entry) = self.ring.pop() {
            let Some((words, [mono_ns, real_ns])) = entry.split_first_chunk() else {
                return;
            };
            let time = Time {
                mono_ns: *mono_ns,
                real_ns: *real_ns,
            };
            self.process(&Record::unpack(words), time, 0);
        }
    }

    /// Grades, judges and reports a record. Process context.
    fn process(&self, record: &Record, time: Time, flags: u8) {
        let graded = grade(
            record,
            Context::of(record),
            &self.machine.features(record),
            record.mcgstatus & MCG_MCIP != 0,
        );
        let verdict =
            self.predictor
                .lock()
                .judge(record, &graded, time.mono_ns, &self.tunables.thresholds());
        let level = match flags & flag::BOOT {
            0 => verdict.live_level(),
            // Of the boot before, as likely as not.
            _ => verdict.level,
        };
        let flags = match record.inject_flags {
            0 => flags,
            _ => flags | flag::INJECTED,
        };
        let payload = Mce {
            reason: verdict.reason,
            page_count: verdict.page_count,
            dimm_count: verdict.dimm_count,
            bank_count: verdict.bank_count,
            socket_count: verdict.socket_count,
            ..payload(record)
        };
        let report = Report {
            mono_ns: time.mono_ns,
            real_ns: time.real_ns,
            kind: graded.grade as u16,
            flags,
            cpu: Some(record.cpu),
            payload: &payload.to_bytes(),
            ..Report::new(level)
        };
        if self.source.report(&report).is_err() {
            self.counters.refused.add(1);
        }
        self.counters.count(graded.grade);
        self.counters.evicted.add(verdict.evicted.into());
        if graded.grade == Grade::Deferred && record.is_spurious() {
            self.counters.spurious.add(1);
        }
        trace_record(
            &payload,
            &Trace {
                mono_ns: time.mono_ns,
                cpu: record.cpu,
                kind: report.kind,
                level,
                flags,
                severity: graded.severity as u8,
            },
        );
    }
}

impl Handler for Engine {
    fn run(&self) -> Next {
        self.drain();
        Next::UntilWoken
    }
}

#[pinned_drop]
impl PinnedDrop for Engine {
    fn drop(self: Pin<&mut Self>) {
        // What came after the thread's last run. There is no other user of the ring any more.
        self.drain();
    }
}

/// The identity of a record, the same here and on the decode chain, where only `kflags` changes.
fn record_identity(record: &Record) -> u64 {
    let words = Record {
        kflags: 0,
        ..*record
    }
    .pack();
    identity(&words)
}

/// Readers of the bus need no right to the kernel's addresses; `cs` tells that it was the kernel.
fn user_address(ip: u64) -> u64 {
    match ip >> 63 {
        0 => ip,
        _ => 0,
    }
}

/// The part of the payload that is the record itself, less the kernel's addresses.
fn payload(record: &Record) -> Mce {
    Mce {
        status: record.status,
        addr: record.addr,
        misc: record.misc,
        mcgstatus: record.mcgstatus,
        ip: user_address(record.ip),
        synd: record.synd,
        ipid: record.ipid,
        synd1: record.synd1,
        synd2: record.synd2,
        mcgcap: record.mcgcap,
        ppin: record.ppin,
        tsc: record.tsc,
        cpuid: record.cpuid,
        apicid: record.apicid,
        socketid: record.socketid,
        microcode: record.microcode,
        cpuvendor: record.cpuvendor,
        bank: record.bank,
        cs: record.cs,
        kernel_severity: record.severity,
        smca_type: smca::bank_type(record).map_or(0, |bank| bank as u32 + 1),
        ..Mce::ZERO
    }
}

/// The kernel's record as the decoder takes it.
fn import(record: &mce::Record) -> Record {
    // Software injection leaves them as they are on machines that have none.
    let (synd1, synd2) = match record.ipid() {
        0 => (0, 0),
        _ => (record.synd1(), record.synd2()),
    };
    Record {
        status: record.status(),
        addr: record.addr(),
        misc: record.misc(),
        mcgstatus: record.mcgstatus(),
        ip: record.ip(),
        tsc: record.tsc(),
        time: record.time(),
        mcgcap: record.mcgcap(),
        synd: record.synd(),
        ipid: record.ipid(),
        synd1,
        synd2,
        ppin: record.ppin(),
        kflags: record.kflags(),
        cpuid: record.cpuid(),
        cpu: record.cpu(),
        socketid: record.socketid(),
        apicid: record.apicid(),
        microcode: record.microcode(),
        cpuvendor: match record.vendor() {
            mce::Vendor::Intel => 0,
            mce::Vendor::Amd => 2,
            mce::Vendor::Hygon => 9,
            mce::Vendor::Zhaoxin => 10,
            mce::Vendor::Other(other) => other,
        },
        inject_flags: record.inject_flags(),
        severity: record.severity(),
        cs: record.cs(),
        bank: record.bank(),
    }
}
