// SPDX-License-Identifier: GPL-2.0

//! nullhz_mce: machine checks as events on the fault bus.
//!
//! Sees every machine check where it is made, in the exception handler if need be, and brings it to
//! the bus without waiting for anything that a training node may keep busy:
//!
//! ```text
//!   #MC, CMCI, polling, firmware          any context    early handler: copy into a slot
//!     -> interrupt on the same processor  hardirq        wake the thread
//!     -> nullhz_mce, FIFO                 process        grade, judge, report
//! ```
//!
//! What finds the slots full comes in by the decode chain, late, or is counted as lost. Other
//! subscribers of machine checks see what they saw without this module.

use kernel::{
    irq_work::{HardIrqHandler, HardIrqWork},
    kthread::{RtThread, Waker},
    mce::{
        DecodeNotifier, DecodePriority, DecodeRegistration, EarlyNotifier, EarlyRegistration,
        NmiContext, Record, Stage,
    },
    prelude::*,
    sync::Arc, //
};

mod atomic;
mod attributes;
mod buckets;
// The names and texts are for the programs that share the decoder.
#[allow(dead_code)]
mod decode;
mod engine;
#[path = "../include/nullhz/fault.rs"]
mod fault;
mod ffi;
mod predict;
#[path = "../include/nullhz/privilege.rs"]
mod privilege;
mod slots;
mod tunables;

use engine::Engine;
use fault::abi;

module! {
    type: MceModule,
    name: "nullhz_mce",
    authors: ["nullhz"],
    description: "Machine checks for the fault bus",
    license: "GPL",
}

/// `SCHED_FIFO` priority of the thread: above interrupt threads and what training runs.
const PRIORITY: u8 = 80;

/// Wakes the thread from the interrupt.
struct Wake(Waker);

impl HardIrqHandler for Wake {
    fn run(&self) {
        self.0.wake();
    }
}

/// What the machine-check code calls.
#[pin_data]
struct Early {
    engine: Arc<Engine>,
    #[pin]
    work: HardIrqWork<Wake>,
}

impl EarlyNotifier for Early {
    fn notify(&self, cx: &NmiContext<'_>, stage: Stage, record: Option<&Record>) {
        if self.engine.notify(cx, stage, record) {
            self.work.queue();
        }
    }
}

/// What the decode chain calls.
struct Late(Arc<Engine>);

impl DecodeNotifier for Late {
    fn decode(&self, record: &Record) {
        self.0.decode(record);
    }
}

/// Fields are dropped from first to last: no record comes in any more when the thread goes, and the
/// engine reports what is left when the last of them lets go of it.
#[pin_data]
struct MceModule {
    #[pin]
    attributes: attributes::Device,
    #[pin]
    early: EarlyRegistration<Early>,
    #[pin]
    late: DecodeRegistration<Late>,
    thread: RtThread<Engine>,
}

impl kernel::InPlaceModule for MceModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let engine = Arc::pin_init(Engine::new(), GFP_KERNEL)?;
            let thread = RtThread::new(c"nullhz_mce", PRIORITY, engine.clone())?;
            let wake = Wake(thread.waker());
            let notified = engine.clone();
            let early = try_pin_init!(Early {
                engine: notified,
                work <- HardIrqWork::new(wake),
            }? Error);
            Ok(try_pin_init!(Self {
                // Before the early handler: what it cannot store must be seen by the chain.
                late <- DecodeRegistration::new(DecodePriority::Lowest, Late(engine.clone())),
                early <- EarlyRegistration::new(early),
                _: {
                    let lost = early.replay(|record| engine.replay(record));
                    engine.counters.boot_lost.add(lost.into());
                },
                attributes <- attributes::Device::new(
                    c"nullhz_mce",
                    attributes::GROUPS,
                    engine.clone(),
                ),
                thread,
            }? Error))
        })
    }
}
