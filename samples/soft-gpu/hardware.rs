// SPDX-License-Identifier: GPL-2.0

//! The device as such: a TLB per CPU, and the port through which they are flushed.
//!
//! A flush is a real broadcast: every CPU is interrupted, and its handler, in hard interrupt
//! context, invalidates entries with atomics only. It is acknowledged when all have done so and no
//! access is in flight any more that began before. The port takes one flush at a time, as the
//! invalidation engines of real devices do.

use crate::abi;
use crate::mmu_batch::Span;
use crate::tlb::Tlb;
use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    new_mutex,
    prelude::*,
    processor::cpu_relax,
    smp::on_each_cpu,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Mutex, //
    },
    time::{
        delay::{fsleep, udelay},
        Delta,
        Instant,
        Monotonic, //
    },
};

/// Longer, and the device is taken for dead.
const PATIENCE: Delta = Delta::from_secs(1);
/// Looks at an access in flight before the flush begins to sleep in between.
const SPINS: u32 = 2000;
const NAP: Delta = Delta::from_micros(20);

/// Bounds of the delays that can be asked for, µs.
const MAX_FLUSH_DELAY: u32 = 100_000;
const MAX_WALK_DELAY: u32 = 1_000;

/// How the device misbehaves.
struct Faults {
    unanswered: Atomic<u32>,
    failed_resets: Atomic<u32>,
    flush_delay_us: Atomic<u32>,
    walk_delay_us: Atomic<u32>,
    mutant: Atomic<u32>,
}

/// Takes one from `counter`, if there is any.
fn take(counter: &Atomic<u32>) -> bool {
    let mut left = counter.load(Relaxed);
    while left != 0 {
        match counter.cmpxchg(left, left - 1, Relaxed) {
            Ok(_) => return true,
            Err(now) => left = now,
        }
    }
    false
}

fn micros(counter: &Atomic<u32>) -> Option<Delta> {
    let us = counter.load(Relaxed);
    (us != 0).then(|| Delta::from_micros(us.into()))
}

/// Raises `maximum` to `value`.
pub(crate) fn raise(maximum: &Atomic<u64>, value: u64) {
    let mut seen = maximum.load(Relaxed);
    while value > seen {
        match maximum.cmpxchg(seen, value, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// ns since `start`.
pub(crate) fn elapsed(start: Instant<Monotonic>) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(0)
}

/// The device.
#[pin_data]
pub(crate) struct Hardware {
    /// By number of their CPU.
    tlbs: KVec<Tlb>,
    /// The number of the last broadcast.
    #[pin]
    port: Mutex<u64>,
    faults: Faults,
    flushes: Atomic<u64>,
    full: Atomic<u64>,
    spans: Atomic<u64>,
    remote: Atomic<u64>,
    drained: Atomic<u64>,
    unanswered: Atomic<u64>,
    resets: Atomic<u64>,
    flush_ns: Atomic<u64>,
    flush_max_ns: Atomic<u64>,
}

impl Hardware {
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let mut tlbs = KVec::new();
        for _ in 0..nr_cpu_ids() {
            tlbs.push(Tlb::new()?, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self {
            tlbs,
            port <- new_mutex!(0, "nullhz_soft_gpu_port"),
            faults: Faults {
                unanswered: Atomic::new(0),
                failed_resets: Atomic::new(0),
                flush_delay_us: Atomic::new(0),
                walk_delay_us: Atomic::new(0),
                mutant: Atomic::new(abi::NO_MUTANT),
            },
            flushes: Atomic::new(0),
            full: Atomic::new(0),
            spans: Atomic::new(0),
            remote: Atomic::new(0),
            drained: Atomic::new(0),
            unanswered: Atomic::new(0),
            resets: Atomic::new(0),
            flush_ns: Atomic::new(0),
            flush_max_ns: Atomic::new(0),
        }))
    }

    pub(crate) fn cpus(&self) -> u32 {
        self.tlbs.len() as u32
    }

    /// The TLB of a CPU.
    pub(crate) fn tlb(&self, cpu: u32) -> Option<&Tlb> {
        self.tlbs.get(cpu as usize)
    }

    /// Throws out the translations of `spans`, or all of all contexts.
    ///
    /// Process context, may sleep. [`ETIMEDOUT`]: the device does not acknowledge it.
    pub(crate) fn flush(&self, spans: Option<&[Span]>) -> Result {
        let start = Instant::now();
        let mut port = self.port.lock();
        self.flushes.add(1, Relaxed);
        match spans {
            None => self.full.add(1, Relaxed),
            Some(spans) => self.spans.add(spans.len() as u64, Relaxed),
        }
        *port = port.wrapping_add(1);
        let number = *port;
        let result = if take(&self.faults.unanswered) {
            Err(ETIMEDOUT)
        } else {
            self.broadcast(number, spans)
        };
        drop(port);
        if result.is_err() {
            self.unanswered.add(1, Relaxed);
        }
        let ns = elapsed(start);
        self.flush_ns.add(ns, Relaxed);
        raise(&self.flush_max_ns, ns);
        result
    }

    fn broadcast(&self, number: u64, spans: Option<&[Span]>) -> Result {
        let correct = !self.is_mutant();
        self.flush_delay();
        on_each_cpu(&|| {
            if let Some(tlb) = self.tlb(CpuId::current().as_u32()) {
                tlb.handle(number, spans, correct);
            }
        });
        for tlb in &self.tlbs {
            if !tlb.has_handled(number) {
                // Its CPU is offline, or never was online.
                tlb.flush(spans, correct);
                self.remote.add(1, Relaxed);
            }
        }
        self.flush_delay();
        if correct {
            self.drain()?;
        }
        Ok(())
    }

    /// Waits for the accesses in flight.
    fn drain(&self) -> Result {
        let start = Instant::<Monotonic>::now();
        for tlb in &self.tlbs {
            let drain = tlb.drain();
            if drain.is_done() {
                continue;
            }
            self.drained.add(1, Relaxed);
            let mut spins = 0;
            while !drain.is_done() {
                if spins < SPINS {
                    spins += 1;
                    cpu_relax();
                } else if start.elapsed() < PATIENCE {
                    fsleep(NAP);
                } else {
                    return Err(ETIMEDOUT);
                }
            }
        }
        Ok(())
    }

    /// Takes the power from the device: it knows no translations when it is back.
    ///
    /// Process context, may sleep. [`EIO`]: that failed; [`ETIMEDOUT`]: an access does not end.
    pub(crate) fn reset(&self) -> Result {
        let _port = self.port.lock();
        if take(&self.faults.failed_resets) {
            return Err(EIO);
        }
        for tlb in &self.tlbs {
            tlb.flush(None, true);
        }
        self.drain()?;
        self.resets.add(1, Relaxed);
        Ok(())
    }

    /// [`Self::flush`] as it is done without a library: the caller goes on only after the device
    /// has forgotten what it was to forget, however long that takes.
    pub(crate) fn flush_surely(&self, spans: Option<&[Span]>) {
        let mut nap = Delta::from_millis(1);
        if self.flush(spans).is_ok() {
            return;
        }
        pr_warn!("a flush was not acknowledged, the device is reset\n");
        while self.reset().is_err() {
            fsleep(nap);
            nap = if nap < Delta::from_secs(1) {
                nap + nap
            } else {
                nap
            };
        }
    }

    /// Called before and after each broadcast: half of what a flush takes longer.
    fn flush_delay(&self) {
        let us = self.faults.flush_delay_us.load(Relaxed);
        if us != 0 {
            fsleep(Delta::from_micros(us.div_ceil(2).into()));
        }
    }

    /// Called in each walk of the page table.
    pub(crate) fn walk_delay(&self) {
        if let Some(delay) = micros(&self.faults.walk_delay_us) {
            udelay(delay);
        }
    }

    /// Whether flushes leave walks alone that are in flight.
    pub(crate) fn is_mutant(&self) -> bool {
        cfg!(nullhz_mmu_mutants) && self.faults.mutant.load(Relaxed) == abi::NO_DRAIN
    }

    /// How it misbehaves from now on.
    pub(crate) fn misbehave(&self, faults: &abi::Faults) -> Result {
        if faults.pad != 0
            || faults.flush_delay_us > MAX_FLUSH_DELAY
            || faults.walk_delay_us > MAX_WALK_DELAY
            || faults.mutant > abi::NO_DRAIN
        {
            return Err(EINVAL);
        }
        if faults.mutant != abi::NO_MUTANT && !cfg!(nullhz_mmu_mutants) {
            return Err(EOPNOTSUPP);
        }
        let _port = self.port.lock();
        self.faults.unanswered.store(faults.unanswered, Relaxed);
        self.faults
            .failed_resets
            .store(faults.failed_resets, Relaxed);
        self.faults
            .flush_delay_us
            .store(faults.flush_delay_us, Relaxed);
        self.faults
            .walk_delay_us
            .store(faults.walk_delay_us, Relaxed);
        // Accesses that may write are over before the first flush that does not wait for any.
        self.faults.mutant.xchg(faults.mutant, Full);
        self.drain()
    }

    /// The device's part of `counters`.
    pub(crate) fn count(&self, counters: &mut abi::Counters) {
        let sum = |of: fn(&Tlb) -> &Atomic<u64>| {
            let values = self.tlbs.iter().map(|tlb| of(tlb).load(Relaxed));
            values.fold(0, u64::wrapping_add)
        };
        counters.device_flushes = self.flushes.load(Relaxed);
        counters.device_full = self.full.load(Relaxed);
        counters.device_spans = self.spans.load(Relaxed);
        counters.device_handled = sum(|tlb| &tlb.handled);
        counters.device_remote = self.remote.load(Relaxed);
        counters.device_drained = self.drained.load(Relaxed);
        counters.device_cancelled = sum(|tlb| &tlb.cancelled);
        counters.device_unanswered = self.unanswered.load(Relaxed);
        counters.device_resets = self.resets.load(Relaxed);
        counters.device_flush_ns = self.flush_ns.load(Relaxed);
        counters.device_flush_max_ns = self.flush_max_ns.load(Relaxed);
    }
}
