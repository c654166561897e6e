// SPDX-License-Identifier: GPL-2.0

//! Runs: threads of the device, each on a CPU, which access pages one after the other.

use crate::abi::{self, KINDS};
use crate::context::Context;
use crate::engine::Seen;
use crate::hardware::elapsed;
use crate::oracle::{Oracle, Pages};
use kernel::{
    cpu::CpuId,
    kthread::{CpuThread, Handler, Next},
    new_condvar, new_mutex,
    prelude::*,
    sync::{atomic::Relaxed, Arc, CondVar, Mutex},
    time::{Delta, Instant, Monotonic},
};

/// What a thread does before it lets others have the CPU.
const BATCH: u32 = 256;
const BATCH_TIME: Delta = Delta::from_millis(1);

/// A generator of random numbers (xorshift64*), good enough to scatter accesses.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Never 0, and different for seeds that differ little.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(number) * u128::from(bound)) >> 64) as u64
    }
}

/// How far a run is.
struct Progress {
    report: abi::Stop,
    random: Random,
    /// The next page, in turn.
    next: u64,
    done: bool,
}

impl Progress {
    fn page(&mut self, pages: &Pages, random: bool) -> u64 {
        if random {
            return self.random.below(pages.count());
        }
        let page = self.next;
        self.next = if page + 1 < pages.count() {
            page + 1
        } else {
            0
        };
        page
    }

    fn tally(&mut self, seen: &Seen) {
        let report = &mut self.report;
        report.accesses += 1;
        *if seen.hit {
            &mut report.hits
        } else {
            &mut report.walks
        } += 1;
        report.faults += u64::from(seen.faults);
        report.writes += u64::from(seen.written);
        let outcome = match seen.outcome {
            abi::STAMPED => Some(&mut report.stamped),
            abi::BLANK => Some(&mut report.blank),
            abi::UNJUDGED => Some(&mut report.unjudged),
            abi::REFUSED => Some(&mut report.refused),
            _ => report.violations.get_mut(seen.kind as usize),
        };
        if let Some(counter) = outcome {
            *counter += 1;
        }
    }
}

/// The thread's part of a run.
#[pin_data]
pub(crate) struct Worker {
    context: Arc<Context>,
    oracle: Option<Arc<Oracle>>,
    pages: Pages,
    /// 0: until it is stopped.
    accesses: u64,
    flags: u32,
    cpu: u32,
    start: Instant<Monotonic>,
    #[pin]
    progress: Mutex<Progress>,
    #[pin]
    done: CondVar,
}

impl Handler for Worker {
    fn run(&self) -> Next {
        let Some(tlb) = self.context.shared.hardware.tlb(self.cpu) else {
            return Next::UntilWoken;
        };
        let oracle = self.oracle.as_deref();
        let mut progress = self.progress.lock();
        let start = Instant::<Monotonic>::now();
        for _ in 0..BATCH {
            if progress.done {
                return Next::UntilWoken;
            }
            let page = progress.page(&self.pages, self.flags & abi::RANDOM != 0);
            let write = (self.flags & abi::WRITE != 0).then_some(progress.report.writes + 1);
            let address = self.pages.address(page);
            let seen = self.context.access(oracle, self.cpu, tlb, address, write);
            progress.tally(&seen);
            if progress.report.accesses == self.accesses {
                progress.report.run_ns = elapsed(self.start);
                progress.done = true;
                self.done.notify_all();
            }
            if seen.faults != 0 && start.elapsed() > BATCH_TIME {
                break;
            }
        }
        Next::Again
    }
}

/// A run.
pub(crate) struct Run {
    id: u32,
    worker: Arc<Worker>,
    /// Stopped when it is dropped.
    _thread: CpuThread<Worker>,
}

impl Run {
    /// [`EINVAL`]: `raw` is not right, or the CPU is offline.
    pub(crate) fn start(
        context: &Arc<Context>,
        oracle: Option<Arc<Oracle>>,
        raw: &abi::Run,
        id: u32,
    ) -> Result<Self> {
        let pages = Pages::new(&raw.pages)?;
        let cpu = i32::try_from(raw.cpu).map_err(|_| EINVAL)?;
        let cpu = CpuId::from_i32(cpu).ok_or(EINVAL)?;
        let progress = Progress {
            report: abi::Stop::ZERO,
            random: Random::new(raw.seed),
            next: pages.wrap(raw.seed),
            done: false,
        };
        let worker = Arc::pin_init(
            pin_init!(Worker {
                context: context.clone(),
                oracle,
                pages,
                accesses: raw.accesses,
                flags: raw.flags,
                cpu: raw.cpu,
                start: Instant::now(),
                progress <- new_mutex!(progress, "nullhz_soft_gpu_progress"),
                done <- new_condvar!("nullhz_soft_gpu_done"),
            }),
            GFP_KERNEL,
        )?;
        let thread = CpuThread::new(c"soft_gpu", cpu, worker.clone())?;
        Ok(Self {
            id,
            worker,
            _thread: thread,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn worker(&self) -> Arc<Worker> {
        self.worker.clone()
    }

    /// Ends it, and tells what it did.
    pub(crate) fn stop(self) -> abi::Stop {
        let Self {
            worker, _thread, ..
        } = self;
        // Told before, so that it does not go through the rest of a batch.
        drop(_thread);
        let mut progress = worker.progress.lock();
        let mut report = progress.report;
        if !progress.done {
            report.run_ns = elapsed(worker.start);
            // Who waits for it may be another one.
            progress.done = true;
            worker.done.notify_all();
        }
        drop(progress);
        let counters = &worker.context.shared.counters;
        counters.accesses.add(report.accesses, Relaxed);
        report
    }
}

impl Worker {
    /// Waits for its accesses. [`ERESTARTSYS`]: a signal came.
    pub(crate) fn wait(&self) -> Result {
        let mut progress = self.progress.lock();
        while !progress.done {
            if self.done.wait_interruptible(&mut progress) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }
}

const _: () = assert!(KINDS == abi::FOREIGN as usize + 1);
