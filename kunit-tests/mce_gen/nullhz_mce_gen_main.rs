// SPDX-License-Identifier: GPL-2.0

//! nullhz_mce_gen: machine-check records for tests.
//!
//! The records take the way of real ones, through `mce_log()`. In
//! `/sys/kernel/debug/nullhz_mce_gen/`:
//!
//! - `run`: what is written there is done before the write returns, for example
//!   `count=1000 status=0x8c00004000800090 bank=13 addr=0x100000 step=4096 rate=0 context=hardirq`.
//!   Each part may be left out. `step` is added to the address after every record; `rate` is in
//!   records per second, 0 is as fast as possible; `cpu`, `vendor` (the kernel's number), `cpuid`,
//!   `mcgcap`, `mcgstatus`, `misc`, `ipid`, `synd`, `cs`, `ip`, `socket`, `severity` and `kflags`
//!   are those of `struct mce`. The default is a corrected read on channel 0 of a Cascade Lake that
//!   the console is not told of (`kflags=1`).
//! - `last`: how many records the last job logged, and when the first and the last one was made
//!   (`CLOCK_MONOTONIC`, ns).
//!
//! The time-stamp counter of a record holds the `CLOCK_MONOTONIC` nanoseconds of its making, so
//! that whoever sees the record can tell how long it was on its way. `inject_flags` is not 0.

use core::str::FromStr;
use kernel::{
    debugfs::Scope,
    fmt,
    irq_work::{HardIrqHandler, HardIrqWork},
    mce::{self, Record, Vendor},
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Mutex,
    },
    time::{delay::fsleep, Delta},
    uaccess::UserSliceReader, //
};

module! {
    type: GenModule,
    name: "nullhz_mce_gen",
    authors: ["nullhz"],
    description: "Machine-check records for tests",
    license: "GPL",
}

extern "C" {
    fn nullhz_mce_gen_mono_ns() -> u64;
    fn nullhz_mce_gen_real_s() -> u64;
}

fn mono_ns() -> u64 {
    // SAFETY: Called in process or hard interrupt context.
    unsafe { nullhz_mce_gen_mono_ns() }
}

/// Records in one hard interrupt.
const BURST: u64 = 256;

const MCG_CMCI_P: u64 = 1 << 10;
const MCG_SER_P: u64 = 1 << 24;
/// `MCE_HANDLED_CEC`: nobody prints the record.
const HANDLED_CEC: u64 = 1;
/// `MCJ_CTX_PROCESS`.
const INJECTED: u8 = 1;

/// What to do.
#[derive(Clone, Copy)]
struct Job {
    record: Record,
    count: u64,
    step: u64,
    rate: u64,
    hardirq: bool,
}

fn number(text: &str) -> Result<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|_| EINVAL)
}

fn vendor(number: u8) -> Vendor {
    match number {
        0 => Vendor::Intel,
        2 => Vendor::Amd,
        9 => Vendor::Hygon,
        10 => Vendor::Zhaoxin,
        other => Vendor::Other(other),
    }
}

impl FromStr for Job {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut job = Job {
            record: Record::new()
                .with_status(0x8c00_0040_0080_0090)
                .with_misc(0x8c)
                .with_cpuid(0x50657)
                .with_bank(13)
                .with_mcgcap(MCG_CMCI_P | MCG_SER_P)
                .with_kflags(HANDLED_CEC)
                .with_inject_flags(INJECTED),
            count: 1,
            step: 0,
            rate: 0,
            hardirq: false,
        };
        for part in text.split_ascii_whitespace() {
            let (key, value) = part.split_once('=').ok_or(EINVAL)?;
            if key == "context" {
                job.hardirq = match value {
                    "process" => false,
                    "hardirq" => true,
                    _ => return Err(EINVAL),
                };
                continue;
            }
            let value = number(value)?;
            let byte = || u8::try_from(value).map_err(|_| ERANGE);
            let word = || u32::try_from(value).map_err(|_| ERANGE);
            let record = job.record;
            job.record = match key {
                "status" => record.with_status(value),
                "addr" => record.with_addr(value),
                "misc" => record.with_misc(value),
                "mcgstatus" => record.with_mcgstatus(value),
                "mcgcap" => record.with_mcgcap(value),
                "ip" => record.with_ip(value),
                "ipid" => record.with_ipid(value),
                "synd" => record.with_synd(value),
                "kflags" => record.with_kflags(value),
                "cpu" => record.with_cpu(word()?),
                "cpuid" => record.with_cpuid(word()?),
                "socket" => record.with_socketid(word()?),
                "vendor" => record.with_vendor(vendor(byte()?)),
                "bank" => record.with_bank(byte()?),
                "cs" => record.with_cs(byte()?),
                "severity" => record.with_severity(byte()?),
                "count" => {
                    job.count = value;
                    record
                }
                "step" => {
                    job.step = value;
                    record
                }
                "rate" => {
                    job.rate = value;
                    record
                }
                _ => return Err(EINVAL),
            };
        }
        Ok(job)
    }
}

impl Job {
    /// Logs the record once and moves on to the next address. Process or hard interrupt context.
    fn log(&mut self) -> Result {
        // SAFETY: As for `mono_ns()`.
        let real_s = unsafe { nullhz_mce_gen_real_s() };
        mce::log(&self.record.with_time(real_s).with_tsc(mono_ns()))?;
        self.record = self
            .record
            .with_addr(self.record.addr().wrapping_add(self.step));
        Ok(())
    }
}

/// Logs from a hard interrupt, [`BURST`] records in each.
struct Burst {
    job: Job,
    left: Atomic<u64>,
    failed: Atomic<bool>,
}

impl HardIrqHandler for Burst {
    fn run(&self) {
        let left = self.left.load(Relaxed);
        let burst = left.min(BURST);
        let mut job = self.job;
        let done = job.count.wrapping_sub(left);
        job.record = job
            .record
            .with_addr(job.record.addr().wrapping_add(done.wrapping_mul(job.step)));
        for _ in 0..burst {
            if job.log().is_err() {
                self.failed.store(true, Relaxed);
            }
        }
        self.left.store(left - burst, Relaxed);
    }
}

/// What the last job did.
#[derive(Clone, Copy, Default)]
struct Last {
    logged: u64,
    first_ns: u64,
    last_ns: u64,
}

/// Records from an interrupt.
fn burst(mut job: Job, count: u64) -> Result {
    job.count = count;
    let work = KBox::pin_init(
        HardIrqWork::new(Burst {
            job,
            left: Atomic::new(count),
            failed: Atomic::new(false),
        }),
        GFP_KERNEL,
    )?;
    while work.left.load(Relaxed) != 0 && !current!().signal_pending() {
        work.queue();
        work.sync();
    }
    if work.failed.load(Relaxed) {
        return Err(EINVAL);
    }
    if work.left.load(Relaxed) != 0 {
        return Err(EINTR);
    }
    Ok(())
}

fn run(mut job: Job) -> Result<Last> {
    let first_ns = mono_ns();
    // At a rate, a few at a time: a sleep is not that short.
    let step = match job.rate {
        0 => job.count,
        rate => (rate / 100).max(1),
    };
    let mut left = job.count;
    while left != 0 {
        let now = left.min(step);
        if job.hardirq {
            burst(job, now)?;
            let addr = job.record.addr().wrapping_add(now.wrapping_mul(job.step));
            job.record = job.record.with_addr(addr);
        } else {
            for _ in 0..now {
                job.log()?;
                if current!().signal_pending() {
                    return Err(EINTR);
                }
            }
        }
        left -= now;
        if let Some(us) = (now * 1_000_000).checked_div(job.rate) {
            fsleep(Delta::from_micros(us as i64));
        }
        if current!().signal_pending() {
            return Err(EINTR);
        }
    }
    Ok(Last {
        logged: job.count,
        first_ns,
        last_ns: mono_ns(),
    })
}

fn write_run(last: &Pin<KBox<Mutex<Last>>>, reader: &mut UserSliceReader) -> Result {
    let mut buffer = [0; 512];
    let len = reader.len();
    let bytes = buffer.get_mut(..len).ok_or(EINVAL)?;
    reader.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    let result = run(text.parse()?)?;
    *last.lock() = result;
    Ok(())
}

fn show_last(last: &Pin<KBox<Mutex<Last>>>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = *last.lock();
    writeln!(
        f,
        "logged={} first_ns={} last_ns={}",
        last.logged, last.first_ns, last.last_ns
    )
}

#[pin_data]
struct GenModule {
    #[pin]
    debugfs: Scope<Pin<KBox<Mutex<Last>>>>,
}

impl kernel::InPlaceModule for GenModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let last = KBox::pin_init(new_mutex!(Last::default()), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                debugfs <- Scope::dir(last, c"nullhz_mce_gen", |last, dir| {
                    dir.write_only_callback_file(c"run", last, &write_run);
                    dir.read_callback_file(c"last", last, &show_last);
                }),
            }? Error))
        })
    }
}
