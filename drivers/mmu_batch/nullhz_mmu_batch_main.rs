// SPDX-License-Identifier: GPL-2.0

//! nullhz_mmu_batch: fewer and larger flushes of secondary TLBs, none of them too late.
//!
//! A library for drivers of devices that translate addresses themselves (GPUs, accelerators, RDMA):
//!
//! ```text
//!   event, interval by interval          unmap of the driver's own
//!      | zap, ticket (pass 1)               | zap, ticket
//!      v                                    v
//!   wait (pass 2) --> leader: one flush <-- window, size, submit, reuse, shrinker
//!                      for all tickets
//!                            | acknowledged
//!      v                     v              v
//!   the event goes on <------+------> pages and addresses are released
//! ```
//!
//! `combine.rs` says why it is right. `drivers/include/nullhz/mmu_batch.h` is what drivers in C
//! see, `mmu_batch.rs` beside it what drivers in Rust do.

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(unreachable_pub)]

use kernel::prelude::*;

mod abi;
mod attributes;
mod block;
mod combine;
mod deferral;
mod device;
mod engine;
mod exports;
mod ffi;
mod gather;
mod interval;
mod passes;
#[path = "../include/nullhz/privilege.rs"]
mod privilege;
mod space;
mod spans;
mod trace;
mod tunables;

#[cfg(not(nullhz_mmu_mutants))]
module! {
    type: MmuBatchModule,
    name: "nullhz_mmu_batch",
    authors: ["nullhz"],
    description: "Batched MMU-notifier invalidation",
    license: "GPL",
}

#[cfg(nullhz_mmu_mutants)]
module! {
    type: MmuBatchModule,
    name: "nullhz_mmu_batch",
    authors: ["nullhz"],
    description: "Batched MMU-notifier invalidation, with defects for tests",
    license: "GPL",
    params: {
        mutant: u32 {
            default: 0,
            description: "What is broken: enum Mutant in combine.rs, 0: nothing",
        },
    },
}

struct MmuBatchModule {
    _names: ffi::Names,
}

impl kernel::Module for MmuBatchModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            // SAFETY: Modules are initialised once.
            _names: unsafe { ffi::Names::new() },
        })
    }
}
