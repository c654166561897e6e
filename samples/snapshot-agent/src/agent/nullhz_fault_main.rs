// SPDX-License-Identifier: GPL-2.0

//! nullhz_fault: one stream of events for every fault source of a node.
//!
//! Sources report faults through `drivers/include/nullhz/fault.h`, programs read them from
//! `/dev/nullhz-fault` (`drivers/include/uapi/nullhz/fault.h`). The worst of them open incidents,
//! which somebody has to acknowledge, with a snapshot, before a deadline.

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(unreachable_pub)]

use kernel::{
    debugfs::Scope,
    kthread::RtThread,
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::Arc, //
};

mod abi;
mod bus;
mod debugfs;
mod device;
mod ffi;
mod hub;
mod incident;
mod persist;
#[path = "../include/nullhz/privilege.rs"]
mod privilege;
mod report;
mod ring;
mod slots;
mod stores;
mod storm;
mod sysfs;

use bus::Bus;
use device::Reader;
use ffi::Published;

module! {
    type: FaultModule,
    name: "nullhz_fault",
    authors: ["nullhz"],
    description: "Fault event bus",
    license: "GPL",
    params: {
        ring_events: u32 {
            default: 4096,
            description: "Records kept for replay: a power of two, 64 to 65536",
        },
    },
}

/// `SCHED_FIFO` priority of the bus thread: above interrupt threads and what training runs.
const PRIORITY: u8 = 80;

/// Fields are dropped from first to last: the device goes before the thread that serves it.
#[pin_data]
struct FaultModule {
    #[pin]
    device: MiscDeviceRegistration<Reader>,
    published: Published,
    thread: RtThread<Bus>,
    #[pin]
    debugfs: Scope<Arc<Bus>>,
}

impl kernel::InPlaceModule for FaultModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let events = *module_parameters::ring_events.value_ref();
            if !events.is_power_of_two() || !(64..=65536).contains(&events) {
                pr_err!("ring_events={events}: must be a power of two, 64 to 65536\n");
                return Err(EINVAL);
            }
            let bus = Arc::pin_init(Bus::new(events.trailing_zeros())?, GFP_KERNEL)?;
            let thread = RtThread::new(c"nullhz_fault", PRIORITY, bus.clone())?;
            bus.set_waker(thread.waker());
            let options = MiscDeviceOptions::new(c"nullhz-fault")
                .mode(0o640)
                .groups(sysfs::GROUPS);
            Ok(try_pin_init!(Self {
                device <- MiscDeviceRegistration::register(options, bus.clone()),
                thread,
                debugfs <- debugfs::new(bus.clone()),
                // Nothing fails from here on: readers will get what the previous boot has left. Nor
                // has any source been able to write yet.
                _: { bus.stores.clear() },
                // SAFETY: Modules are initialised once.
                published: unsafe { Published::new(bus) },
            }))
        })
    }
}
