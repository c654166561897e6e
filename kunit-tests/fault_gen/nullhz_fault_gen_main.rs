// SPDX-License-Identifier: GPL-2.0

//! nullhz_fault_gen: fault sources for tests, which report what they are told to.
//!
//! Registers sources 32 to 35. In `/sys/kernel/debug/nullhz_fault_gen/`:
//!
//! - `run`: what is written there is done before the write returns, for example
//!   `count=1000 level=imminent kind=7 context=hardirq source=33 rate=0 sum=1`; each part may be
//!   left out. `rate` is in reports per second, 0 is as fast as possible; `sum` is the number of
//!   occurrences that each report stands for. Each payload is a 64-bit number, counted by source.
//! - `persist`: whatever is written there makes source 32 say its last words.
//! - `withdraw`: whatever is written there makes source 32 take them back.
//! - `report_ns`: reading it measures what a report costs, and what a printk() costs, in ns.

use core::str::FromStr;
use kernel::{
    debugfs::Scope,
    fmt,
    irq_work::{HardIrqHandler, HardIrqWork},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        new_raw_spinlock, Arc, RawSpinLock,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
    uaccess::UserSliceReader, //
};

#[path = "../../drivers/include/nullhz/fault.rs"]
mod fault;

use fault::{abi, Level, Report, Source};

module! {
    type: GenModule,
    name: "nullhz_fault_gen",
    authors: ["nullhz"],
    description: "Fault sources for tests",
    license: "GPL",
}

extern "C" {
    fn nullhz_gen_bh_disable();
    fn nullhz_gen_bh_enable();
    fn nullhz_gen_printk(source: u32, kind: u32, number: u64);
}

const FIRST: u16 = abi::source::PRIVATE;
const NAMES: [&CStr; 4] = [c"gen0", c"gen1", c"gen2", c"gen3"];
/// Reports in one hard interrupt.
const BURST: u32 = 64;
/// Calls that are measured.
const SAMPLES: usize = 2000;

/// Where reports are made.
#[derive(Clone, Copy, PartialEq)]
enum Context {
    Process,
    /// Process context with bottom halves off.
    SoftIrq,
    /// Hard interrupt, from an irq_work.
    HardIrq,
    /// Interrupts off and a raw spinlock held.
    Raw,
}

/// What to do.
#[derive(Clone, Copy)]
struct Job {
    count: u32,
    level: Level,
    kind: u16,
    context: Context,
    source: u16,
    rate: u32,
    sum: u32,
}

impl FromStr for Job {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut job = Self {
            count: 1,
            level: Level::Watch,
            kind: 1,
            context: Context::Process,
            source: FIRST,
            rate: 0,
            sum: 1,
        };
        for part in text.split_ascii_whitespace() {
            let (key, value) = part.split_once('=').ok_or(EINVAL)?;
            let number = || value.parse::<u32>().map_err(|_| EINVAL);
            match key {
                "count" => job.count = number()?,
                "level" => {
                    let mut levels = Level::ALL.into_iter();
                    job.level = levels.find(|level| level.name() == value).ok_or(EINVAL)?;
                }
                "kind" => job.kind = value.parse().map_err(|_| EINVAL)?,
                "context" => {
                    job.context = match value {
                        "process" => Context::Process,
                        "softirq" => Context::SoftIrq,
                        "hardirq" => Context::HardIrq,
                        "raw" => Context::Raw,
                        _ => return Err(EINVAL),
                    }
                }
                "source" => job.source = value.parse().map_err(|_| EINVAL)?,
                "rate" => job.rate = number()?,
                "sum" => job.sum = number()?,
                _ => return Err(EINVAL),
            }
        }
        Ok(job)
    }
}

/// A source and the number of its next report.
struct Generator {
    source: Source,
    next: Atomic<u64>,
}

impl Generator {
    fn new(index: usize) -> Result<Self> {
        let name = NAMES.get(index).ok_or(EINVAL)?;
        Ok(Self {
            source: Source::register(FIRST + index as u16, name)?,
            next: Atomic::new(0),
        })
    }

    fn report(&self, job: &Job) -> Result {
        let number = self.next.fetch_add(1, Relaxed);
        let flags = match job.sum {
            1 => abi::flag::INJECTED,
            _ => abi::flag::INJECTED | abi::flag::SUMMARY,
        };
        self.source.report(&Report {
            kind: job.kind,
            flags,
            count: job.sum,
            payload: &number.to_ne_bytes(),
            ..Report::new(job.level)
        })
    }
}

/// Reports from a hard interrupt.
struct Burst {
    generators: Arc<Generators>,
    job: Job,
    left: Atomic<u32>,
    failed: Atomic<i32>,
}

impl HardIrqHandler for Burst {
    fn run(&self) {
        let burst = self.left.load(Relaxed).min(BURST);
        for _ in 0..burst {
            if let Err(error) = self.generators.report(&self.job) {
                self.failed.store(error.to_errno(), Relaxed);
            }
        }
        // Only one interrupt runs at a time, and nobody else counts.
        self.left.store(self.left.load(Relaxed) - burst, Relaxed);
    }
}

#[pin_data]
struct Generators {
    all: KVec<Generator>,
    #[pin]
    lock: RawSpinLock<()>,
}

impl Generators {
    fn new() -> Result<Arc<Self>> {
        let mut all = KVec::with_capacity(NAMES.len(), GFP_KERNEL)?;
        for index in 0..NAMES.len() {
            all.push(Generator::new(index)?, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                all,
                lock <- new_raw_spinlock!((), "nullhz_gen"),
            }),
            GFP_KERNEL,
        )
    }

    fn generator(&self, source: u16) -> Result<&Generator> {
        let index = source.checked_sub(FIRST).ok_or(EINVAL)?;
        self.all.get(usize::from(index)).ok_or(EINVAL)
    }

    fn report(&self, job: &Job) -> Result {
        self.generator(job.source)?.report(job)
    }

    fn report_once(&self, job: &Job) -> Result {
        match job.context {
            Context::Process => self.report(job),
            Context::SoftIrq => {
                // SAFETY: Process context; undone below.
                unsafe { nullhz_gen_bh_disable() };
                let result = self.report(job);
                // SAFETY: Done above.
                unsafe { nullhz_gen_bh_enable() };
                result
            }
            Context::Raw => self.lock.with(|()| self.report(job)),
            Context::HardIrq => Err(EINVAL),
        }
    }

    fn burst(self: &Arc<Self>, job: &Job, count: u32) -> Result {
        let burst = Burst {
            generators: self.clone(),
            job: *job,
            left: Atomic::new(count),
            failed: Atomic::new(0),
        };
        let work = KBox::pin_init(HardIrqWork::new(burst), GFP_KERNEL)?;
        while work.left.load(Relaxed) != 0 && !current!().signal_pending() {
            work.queue();
            work.sync();
        }
        kernel::error::to_result(work.failed.load(Relaxed))
    }

    fn run(self: &Arc<Self>, job: &Job) -> Result {
        self.generator(job.source)?;
        // At a rate, a few at a time: a sleep is not that short.
        let step = if job.rate == 0 {
            job.count
        } else {
            (job.rate / 100).max(1)
        };
        let mut left = job.count;
        while left != 0 {
            let now = left.min(step);
            if job.context == Context::HardIrq {
                self.burst(job, now)?;
            } else {
                for _ in 0..now {
                    self.report_once(job)?;
                }
            }
            left -= now;
            if job.rate != 0 {
                let us = i64::from(now) * 1_000_000 / i64::from(job.rate);
                fsleep(Delta::from_micros(us));
            }
            if current!().signal_pending() {
                return Err(EINTR);
            }
        }
        Ok(())
    }
}

fn write_run(generators: &Arc<Generators>, reader: &mut UserSliceReader) -> Result {
    let mut buffer = [0; 128];
    let len = reader.len();
    let bytes = buffer.get_mut(..len).ok_or(EINVAL)?;
    reader.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    generators.run(&text.parse()?)
}

fn write_persist(generators: &Arc<Generators>, _reader: &mut UserSliceReader) -> Result {
    let generator = generators.generator(FIRST)?;
    generator.source.persist(&Report {
        kind: 9,
        cpu: Some(0),
        payload: b"last words",
        ..Report::new(Level::Fatal)
    })
}

fn write_withdraw(generators: &Arc<Generators>, _reader: &mut UserSliceReader) -> Result {
    generators.generator(FIRST)?.source.withdraw()
}

/// Minimum, median and 99th percentile of what `f` takes, in ns.
fn measure(mut f: impl FnMut(u64)) -> Result<[i64; 3]> {
    let mut times = KVVec::with_capacity(SAMPLES, GFP_KERNEL)?;
    for number in 0..SAMPLES {
        let start = Instant::<Monotonic>::now();
        f(number as u64);
        times.push(start.elapsed().as_nanos(), GFP_KERNEL)?;
    }
    times.sort_unstable();
    let at = |percent| times.get(SAMPLES * percent / 100).copied().ok_or(EINVAL);
    Ok([at(0)?, at(50)?, at(99)?])
}

fn show_report_ns(generators: &Arc<Generators>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let job = "count=1".parse().map_err(|_: Error| fmt::Error)?;
    let report = measure(|_| {
        // The source is registered and the report well-formed.
        let _ = generators.report(&job);
    });
    // SAFETY: Process context.
    let printk = measure(|number| unsafe { nullhz_gen_printk(FIRST.into(), 1, number) });
    let nothing = measure(|_| ());
    for (name, times) in [("report", report), ("printk", printk), ("nothing", nothing)] {
        let [min, median, p99] = times.map_err(|_| fmt::Error)?;
        writeln!(f, "{name} min={min} median={median} p99={p99}")?;
    }
    Ok(())
}

#[pin_data]
struct GenModule {
    #[pin]
    debugfs: Scope<Arc<Generators>>,
}

impl kernel::InPlaceModule for GenModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let generators = Generators::new()?;
            Ok(try_pin_init!(Self {
                debugfs <- Scope::dir(generators, c"nullhz_fault_gen", |generators, dir| {
                    dir.write_only_callback_file(c"run", generators, &write_run);
                    dir.write_only_callback_file(c"persist", generators, &write_persist);
                    dir.write_only_callback_file(c"withdraw", generators, &write_withdraw);
                    dir.read_callback_file(c"report_ns", generators, &show_report_ns);
                }),
            }? Error))
        })
    }
}
