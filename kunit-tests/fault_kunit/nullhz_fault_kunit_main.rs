// SPDX-License-Identifier: GPL-2.0

//! nullhz_fault_kunit: the fault bus, tested in the kernel.
//!
//! Its logic runs here as it runs in nullhz_fault, on the kernel's allocator and with the kernel's
//! compiler flags; the host's tests go further into its cases. Its functions for sources are those
//! of the module that is loaded.

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(dead_code, unreachable_pub)]

use kernel::prelude::*;

#[path = "../../drivers/fault/hub.rs"]
mod hub;
#[path = "../../drivers/fault/incident.rs"]
mod incident;
#[path = "../../drivers/fault/persist.rs"]
mod persist;
#[path = "../../drivers/fault/report.rs"]
mod report;
#[path = "../../drivers/fault/ring.rs"]
mod ring;
#[path = "../../drivers/fault/slots.rs"]
mod slots;
#[path = "../../drivers/fault/storm.rs"]
mod storm;

#[path = "../../drivers/include/nullhz/fault.rs"]
mod fault;

use fault::abi;

mod claims;
mod sources;
mod stream;

module! {
    type: KunitModule,
    name: "nullhz_fault_kunit",
    authors: ["nullhz"],
    description: "KUnit suites of the fault bus",
    license: "GPL",
}

struct KunitModule;

impl kernel::Module for KunitModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}
