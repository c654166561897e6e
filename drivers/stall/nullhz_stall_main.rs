// SPDX-License-Identifier: GPL-2.0

//! nullhz_stall: training stalls, seen within milliseconds of their deadline and ended by hardware.
//!
//! A training process maps a page and stores its step counter there: that is its heartbeat. A
//! thread on a housekeeping CPU looks at all pages every 10 ms; nothing of ours ever runs on a
//! training core. What it sees leads a rank up the ladder, rung by rung, to events, stacks, a
//! checkpoint request, and, with evidence against this very node, to the hardware watchdog, whose
//! pings need this thread's permit:
//!
//! ```text
//!   page of a rank --> sampler --> ladder --> fault bus (events, incident) --> snapshot
//!                         |           +-----> witness: stacks, signals
//!                         |           +-----> last words kept, gate shut --> hardware resets
//!                         +-- after every whole pass: permit for a second --> pings go through
//! ```

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(unreachable_pub)]

use kernel::{
    debugfs::Scope,
    kthread::RtThread,
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    reboot::{PanicRegistration, RebootRegistration},
    sync::Arc,
    watchdog::Registration, //
};

mod abi;
mod attributes;
mod budget;
mod clock;
mod culprit;
mod deadline;
mod debugfs;
mod device;
mod face;
#[path = "../include/nullhz/fault.rs"]
mod fault;
mod ffi;
mod keeper;
mod ladder;
mod member;
mod monitor;
#[path = "../include/nullhz/privilege.rs"]
mod privilege;
mod quantile;
mod rank;
mod report;
mod stores;
mod table;
mod timeout;
mod tunables;
mod watch;
mod watchdog;
mod witness;

use device::Handle;
use face::Face;
use keeper::{End, Keeper};
use monitor::Monitor;
use tunables::Tunables;
use watch::Sampler;
use witness::Witness;

module! {
    type: StallModule,
    name: "nullhz_stall",
    authors: ["nullhz"],
    description: "Training-stall watchdog",
    license: "GPL",
    params: {
        max_ranks: u32 {
            default: 1024,
            description: "Ranks that can be registered at a time: 1 to 4096",
        },
        reset: u32 {
            default: 1,
            description: "1: a stall of this node may end in a reset, 0: it may not",
        },
        budget: u32 {
            default: 3,
            description: "Resets within a day after which the node does not reset itself: 0 to 16",
        },
    },
}

// The parameter's default, which must be a literal.
const _: () = assert!(budget::DEFAULT_LIMIT == 3);

/// Fields are dropped from first to last: no file is open any more, then nobody looks at the ranks
/// any more, then the gate goes with the last reference to the monitor.
#[pin_data]
struct StallModule {
    #[pin]
    device: MiscDeviceRegistration<Handle>,
    #[pin]
    debugfs: Scope<Arc<Monitor>>,
    face: Option<Pin<KBox<Registration<Face>>>>,
    #[pin]
    reboot: RebootRegistration<End>,
    #[pin]
    panic: PanicRegistration<End>,
    samplers: KVec<RtThread<Sampler>>,
    witness: RtThread<Witness>,
    keeper: RtThread<Keeper>,
    unload: Unload,
}

/// Tells the ledger that the module was unloaded.
struct Unload(Arc<Monitor>);

impl Drop for Unload {
    fn drop(&mut self) {
        self.0.take_back_at_unload();
        self.0.watchdog.unload();
    }
}

/// A parameter within its range.
fn parameter(name: &str, value: u32, range: core::ops::RangeInclusive<u32>) -> Result<u32> {
    if !range.contains(&value) {
        pr_err!(
            "{name}={value}: must be {} to {}\n",
            range.start(),
            range.end()
        );
        return Err(EINVAL);
    }
    Ok(value)
}

impl kernel::InPlaceModule for StallModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let max_ranks = *module_parameters::max_ranks.value_ref();
            let max_ranks = parameter("max_ranks", max_ranks, 1..=4096)?;
            let reset = parameter("reset", *module_parameters::reset.value_ref(), 0..=1)?;
            let budget = *module_parameters::budget.value_ref();
            let budget = parameter("budget", budget, 0..=budget::REMEMBERED as u32)?;

            let tunables = Tunables::new(reset, budget);
            let monitor = Arc::pin_init(Monitor::new(max_ranks, tunables)?, GFP_KERNEL)?;
            let unload = Unload(monitor.clone());
            let witness = Arc::pin_init(Witness::new(monitor.clone())?, GFP_KERNEL)?;
            let witness = RtThread::new(c"nullhz_stall_log", witness::PRIORITY, witness)?;
            monitor.witness.populate(witness.waker());
            let samplers = Sampler::start(&monitor)?;
            // After the samplers: what arms the node needs somebody who extends its permit.
            let keeper = Arc::new(Keeper(monitor.clone()), GFP_KERNEL)?;
            let keeper = RtThread::new(c"nullhz_stall_hw", keeper::PRIORITY, keeper)?;
            monitor.keeper.populate(keeper.waker());
            monitor.report_boot();
            let face = Face::register(&monitor)?;

            let options = MiscDeviceOptions::new(c"nullhz-stall")
                .mode(0o660)
                .groups(attributes::GROUPS);
            Ok(try_pin_init!(Self {
                reboot <- RebootRegistration::new(keeper::REBOOT_PRIORITY, End(monitor.clone())),
                panic <- PanicRegistration::new(0, End(monitor.clone())),
                debugfs <- debugfs::new(monitor.clone()),
                device <- MiscDeviceRegistration::register(options, monitor),
                face,
                samplers,
                witness,
                keeper,
                unload,
            }? Error))
        })
    }
}
