// SPDX-License-Identifier: GPL-2.0

//! The sampler's threads: one on each of a few housekeeping CPUs, of which one does the work.
//!
//! A thread that sleeps is woken by a timer of its CPU, and a CPU that is wedged with interrupts
//! off serves no timers. So the other threads look in now and then: when the last pass is too long
//! ago, whoever sees it first goes on with the work, and the CPU that has not run its thread for a
//! second is evidence against the node. A CPU that stops in the middle of a pass takes the table's
//! lock with it; then no pass is completed any more, the permit ends, and the hardware resets the
//! node, as with a kernel that has lost all its housekeeping CPUs.

use crate::abi::evidence;
use crate::ffi;
use crate::monitor::Monitor;
use crate::tunables::PERIOD_NS;
use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    kthread::{Handler, Next, RtThread},
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, AtomicFlag, Relaxed},
        Arc,
    },
    time::Delta, //
};

/// `SCHED_FIFO` priority: above interrupt threads and what training runs.
const PRIORITY: u8 = 80;
/// Threads at most; further housekeeping CPUs are not watched.
const THREADS: usize = 8;
/// How often the threads that do not do the work look in, ns.
const STANDBY_NS: u64 = 25_000_000;
/// A pass this long ago makes one of them go on, ns. With [`STANDBY_NS`] less than what counts as
/// a gap of the sampler.
const TAKEOVER_NS: u64 = 3 * PERIOD_NS;
/// A CPU that has not run its thread for so long does not run its threads, ns.
const SILENT_NS: u64 = 1_000_000_000;

const _: () = assert!(STANDBY_NS + TAKEOVER_NS < crate::clock::LATE_PERIODS * PERIOD_NS);

/// One of the threads.
struct Beat {
    /// Where it runs; [`None`]: wherever the scheduler puts it. A cpuset may isolate the CPU while
    /// the module is loaded: as long as it does, the thread runs wherever the scheduler puts it.
    cpu: Option<CpuId>,
    /// `CLOCK_MONOTONIC` of its last run.
    at: Atomic<u64>,
    silent: AtomicFlag,
}

/// All of them.
pub(crate) struct Watch {
    beats: KVec<Beat>,
    /// The one that does the work.
    leader: Atomic<usize>,
    /// `CLOCK_MONOTONIC` of the last pass, or when the next one would have been due had it been
    /// on time.
    last: Atomic<u64>,
}

impl Watch {
    /// Chooses the CPUs.
    pub(crate) fn new() -> Result<Self> {
        let now = ffi::monotonic_ns();
        let mut beats = KVec::with_capacity(THREADS, GFP_KERNEL)?;
        let cpus = (0..nr_cpu_ids()).filter_map(CpuId::from_u32);
        let housekeeping = cpus.filter(|cpu| !cpu.is_isolated() && ffi::online(*cpu));
        let beat = |cpu| Beat {
            cpu,
            at: Atomic::new(now),
            silent: AtomicFlag::new(false),
        };
        for cpu in housekeeping.take(THREADS) {
            beats.push(beat(Some(cpu)), GFP_KERNEL)?;
        }
        if beats.is_empty() {
            beats.push(beat(None), GFP_KERNEL)?;
        }
        Ok(Self {
            beats,
            leader: Atomic::new(0),
            last: Atomic::new(now),
        })
    }

    /// What the threads know of the node.
    pub(crate) fn evidence(&self) -> u32 {
        match self.beats.iter().any(|beat| beat.silent.load(Relaxed)) {
            true => evidence::HOUSEKEEPING,
            false => 0,
        }
    }

    /// Notes who is silent since when, at `now`. Calls `f` with who has become so. Whoever owns an
    /// isolated CPU may keep it from the thread for as long as that has not left.
    fn listen(&self, now: u64, mut f: impl FnMut(CpuId, u64)) {
        for beat in self.beats.iter() {
            let age = now.saturating_sub(beat.at.load(Relaxed));
            let isolated = beat.cpu.is_some_and(CpuId::is_isolated);
            let silent = age >= SILENT_NS && !isolated;
            if beat.silent.xchg(silent, Relaxed) != silent && silent {
                if let Some(cpu) = beat.cpu {
                    f(cpu, age);
                }
            }
        }
    }

    /// After a gap in which nobody ran: nobody is silent because of that.
    fn forgive(&self, now: u64) {
        for beat in self.beats.iter() {
            beat.at.store(now, Relaxed);
        }
    }
}

/// What one of the threads does.
pub(crate) struct Sampler {
    monitor: Arc<Monitor>,
    index: usize,
}

impl Sampler {
    /// Starts the threads.
    pub(crate) fn start(monitor: &Arc<Monitor>) -> Result<KVec<RtThread<Sampler>>> {
        let mut threads = KVec::with_capacity(monitor.watch.beats.len(), GFP_KERNEL)?;
        for (index, beat) in monitor.watch.beats.iter().enumerate() {
            let name = match beat.cpu {
                Some(cpu) => CString::try_from_fmt(fmt!("nullhz_stall/{}", cpu.as_u32()))?,
                None => CString::try_from_fmt(fmt!("nullhz_stall"))?,
            };
            let sampler = Self {
                monitor: monitor.clone(),
                index,
            };
            let sampler = Arc::new(sampler, GFP_KERNEL)?;
            threads.push(RtThread::new(&name, PRIORITY, sampler)?, GFP_KERNEL)?;
        }
        Ok(threads)
    }

    /// Sees to it that the thread is where it belongs: at its start, and after its CPU has been
    /// offline, or isolated by a cpuset.
    fn settle(&self, beat: &Beat) {
        let Some(cpu) = beat.cpu else {
            return;
        };
        let here = CpuId::current();
        if cpu.is_isolated() {
            // The kernel has moved the thread away, unless it was just about to settle there. If
            // this fails, the next run tries again.
            if here.is_isolated() {
                let _ = ffi::unbind();
            }
        } else if cpu != here && ffi::online(cpu) {
            // When the CPU goes offline right now the thread works from another one.
            let _ = ffi::bind(cpu);
        }
    }

    fn pass(&self, now: u64, last: u64) {
        let Monitor {
            watch, counters, ..
        } = &*self.monitor;
        if watch.leader.xchg(self.index, Relaxed) != self.index {
            counters.takeovers.add(1);
        }
        // In step with the last pass, unless that would be for the second time in a period.
        let due = last.saturating_add(PERIOD_NS);
        let on_time = now.saturating_sub(due) < PERIOD_NS;
        watch.last.store(if on_time { due } else { now }, Relaxed);
        if now.saturating_sub(last) > crate::clock::LATE_PERIODS * PERIOD_NS {
            watch.forgive(now);
        }
        watch.listen(now, |cpu, age| self.monitor.report_silent(cpu, age));
        self.monitor.pass();
    }
}

impl Handler for Sampler {
    fn run(&self) -> Next {
        let watch = &self.monitor.watch;
        let Some(beat) = watch.beats.get(self.index) else {
            return Next::UntilWoken;
        };
        self.settle(beat);
        let now = ffi::monotonic_ns();
        beat.at.store(now, Relaxed);
        let last = watch.last.load(Relaxed);
        let leads = watch.leader.load(Relaxed) == self.index;
        let patience = if leads { PERIOD_NS } else { TAKEOVER_NS };
        if now.saturating_sub(last) >= patience {
            self.pass(now, last);
        }
        let leads = watch.leader.load(Relaxed) == self.index;
        let next = match leads {
            true => watch.last.load(Relaxed).saturating_add(PERIOD_NS),
            false => now.saturating_add(STANDBY_NS),
        };
        let wait = next.saturating_sub(ffi::monotonic_ns());
        Next::After(Delta::from_nanos(i64::try_from(wait).unwrap_or(i64::MAX)))
    }
}
