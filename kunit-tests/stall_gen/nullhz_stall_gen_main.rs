// SPDX-License-Identifier: GPL-2.0

//! nullhz_stall_gen: kernel code that does not come to an end, for tests.
//!
//! In `/sys/kernel/debug/nullhz_stall_gen/`:
//!
//! - `run`: a write stalls the writer, on the CPU that it runs on, for example
//!   `context=irq ms=3000 gather=4`. Contexts: `irq` (busy with interrupts off), `preempt` (busy
//!   with preemption off), `busy` (busy in the kernel, preemptible), `sleep` (uninterruptible,
//!   state D), `doze` (the same, but it wakes ten times a second). `ms=0` is for ever; a signal
//!   ends `busy` only. With `gather` the stall begins when that many writers are there, so that
//!   one on every CPU wedges the machine at a stroke.
//! - `reboot`: milliseconds for which a clean reboot, halt or power-off then hangs in a reboot
//!   notifier, asleep.

use core::{hint, str::FromStr};
use kernel::{
    debugfs::Scope,
    interrupt::local_interrupt_disable,
    prelude::*,
    reboot::{Action, RebootNotifier, RebootRegistration},
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
    uaccess::UserSliceReader, //
};

module! {
    type: GenModule,
    name: "nullhz_stall_gen",
    authors: ["nullhz"],
    description: "Stalls in the kernel for tests",
    license: "GPL",
}

extern "C" {
    fn nullhz_stall_gen_preempt_disable();
    fn nullhz_stall_gen_preempt_enable();
}

/// Where the writer is stuck.
#[derive(Clone, Copy)]
enum Context {
    Irq,
    Preempt,
    Busy,
    Sleep,
    Doze,
}

/// What was written to `run`.
struct Job {
    context: Context,
    ms: i64,
    gather: u32,
}

impl FromStr for Job {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut job = Job {
            context: Context::Busy,
            ms: 1000,
            gather: 1,
        };
        for part in text.split_ascii_whitespace() {
            let (key, value) = part.split_once('=').ok_or(EINVAL)?;
            match (key, value) {
                ("context", "irq") => job.context = Context::Irq,
                ("context", "preempt") => job.context = Context::Preempt,
                ("context", "busy") => job.context = Context::Busy,
                ("context", "sleep") => job.context = Context::Sleep,
                ("context", "doze") => job.context = Context::Doze,
                ("ms", _) => job.ms = value.parse::<u32>().map_err(|_| EINVAL)?.into(),
                ("gather", _) => job.gather = value.parse().map_err(|_| EINVAL)?,
                _ => return Err(EINVAL),
            }
        }
        Ok(job)
    }
}

impl Job {
    fn over(&self, begun: Instant<Monotonic>) -> bool {
        self.ms != 0 && begun.elapsed().as_millis() >= self.ms
    }

    fn spin(&self) {
        let begun = Instant::<Monotonic>::now();
        while !self.over(begun) {
            hint::spin_loop();
        }
    }

    fn run(&self) {
        match self.context {
            Context::Irq => {
                let _disabled = local_interrupt_disable();
                self.spin();
            }
            Context::Preempt => {
                // SAFETY: Undone below; nothing in between sleeps.
                unsafe { nullhz_stall_gen_preempt_disable() };
                self.spin();
                // SAFETY: Undoes the call above.
                unsafe { nullhz_stall_gen_preempt_enable() };
            }
            Context::Busy => {
                let begun = Instant::<Monotonic>::now();
                while !self.over(begun) && !current!().signal_pending() {
                    hint::spin_loop();
                }
            }
            Context::Sleep => sleep(self.ms, SLEEP_MS),
            Context::Doze => sleep(self.ms, 100),
        }
    }
}

/// Longest sleep at a stretch, ms: short enough for the detector of hung tasks, which is not what
/// a test looks for.
const SLEEP_MS: i64 = 10_000;

/// Sleeps in state D, for ever if `ms` is 0, and for `stretch` ms at a stretch.
fn sleep(ms: i64, stretch: i64) {
    let begun = Instant::<Monotonic>::now();
    loop {
        let rest = match ms {
            0 => stretch,
            ms => ms - begun.elapsed().as_millis(),
        };
        if rest <= 0 {
            return;
        }
        fsleep(Delta::from_millis(rest.min(stretch)));
    }
}

/// State of the module.
struct Gen {
    /// Writers that are there.
    gathered: Atomic<u32>,
    /// How long a reboot hangs.
    reboot_ms: Atomic<u64>,
}

impl Gen {
    fn stall(&self, job: &Job) -> Result {
        self.gathered.fetch_add(1, Relaxed);
        while self.gathered.load(Relaxed) < job.gather {
            if current!().signal_pending() {
                self.gathered.fetch_sub(1, Relaxed);
                return Err(EINTR);
            }
            fsleep(Delta::from_millis(1));
        }
        job.run();
        self.gathered.fetch_sub(1, Relaxed);
        Ok(())
    }
}

/// Hangs when the machine goes down.
struct Hang(Arc<Gen>);

impl RebootNotifier for Hang {
    fn reboot(&self, _action: Action) {
        if let ms @ 1.. = self.0.reboot_ms.load(Relaxed) {
            pr_info!("the reboot hangs for {ms} ms\n");
            sleep(ms as i64, SLEEP_MS);
        }
    }
}

/// What a write to a file says.
fn parse<T: FromStr>(reader: &mut UserSliceReader) -> Result<T> {
    let mut buffer = [0; 128];
    let len = reader.len();
    let bytes = buffer.get_mut(..len).ok_or(EINVAL)?;
    reader.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    text.trim().parse().map_err(|_| EINVAL)
}

fn write_run(state: &Arc<Gen>, reader: &mut UserSliceReader) -> Result {
    state.stall(&parse::<Job>(reader)?)
}

fn write_reboot(state: &Arc<Gen>, reader: &mut UserSliceReader) -> Result {
    state.reboot_ms.store(parse::<u32>(reader)?.into(), Relaxed);
    Ok(())
}

#[pin_data]
struct GenModule {
    #[pin]
    debugfs: Scope<Arc<Gen>>,
    /// After every other notifier, as a driver that hangs would be.
    #[pin]
    reboot: RebootRegistration<Hang>,
}

impl kernel::InPlaceModule for GenModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let state = Gen {
                gathered: Atomic::new(0),
                reboot_ms: Atomic::new(0),
            };
            let state = Arc::new(state, GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                debugfs <- Scope::dir(state.clone(), c"nullhz_stall_gen", |state, dir| {
                    dir.write_only_callback_file(c"run", state, &write_run);
                    dir.write_only_callback_file(c"reboot", state, &write_reboot);
                }),
                reboot <- RebootRegistration::new(-100, Hang(state)),
            }? Error))
        })
    }
}
