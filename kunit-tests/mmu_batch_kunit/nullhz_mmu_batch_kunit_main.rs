// SPDX-License-Identifier: GPL-2.0

//! nullhz_mmu_batch_kunit: the logic of batched invalidation in the kernel, with the kernel's
//! compiler flags, locks and threads.

// The files without a kernel in them are the public interface of a crate on the host.
#![allow(dead_code, unreachable_pub)]

use kernel::prelude::*;

#[path = "../../drivers/mmu_batch/combine.rs"]
mod combine;
#[path = "../../drivers/mmu_batch/gather.rs"]
mod gather;
#[path = "../../drivers/mmu_batch/spans.rs"]
mod spans;

mod combining;
mod deferring;
mod machine;
mod merging;

module! {
    type: KunitModule,
    name: "nullhz_mmu_batch_kunit",
    authors: ["nullhz"],
    description: "Tests of nullhz_mmu_batch",
    license: "GPL",
}

struct KunitModule;

impl kernel::Module for KunitModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(KunitModule)
    }
}
