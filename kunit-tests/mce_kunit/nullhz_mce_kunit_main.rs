// SPDX-License-Identifier: GPL-2.0

//! nullhz_mce_kunit: the machine-check module's logic in the kernel, with the kernel's compiler
//! flags, memory and atomics.

use kernel::prelude::*;

#[path = "../../drivers/fault/abi.rs"]
mod abi;
#[path = "../../drivers/mce/atomic.rs"]
mod atomic;
#[path = "../../drivers/mce/buckets.rs"]
mod buckets;
// Each suite uses its own part.
#[allow(dead_code)]
#[path = "../../drivers/mce/decode/mod.rs"]
mod decode;
#[path = "../../drivers/mce/predict.rs"]
mod predict;
#[path = "../../drivers/mce/slots.rs"]
mod slots;
#[path = "../vectors/mce.rs"]
mod vectors;

mod decoding;
mod grading;
mod prediction;
mod storage;

module! {
    type: KunitModule,
    name: "nullhz_mce_kunit",
    authors: ["nullhz"],
    description: "Tests of nullhz_mce",
    license: "GPL",
}

struct KunitModule;

impl kernel::Module for KunitModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(KunitModule)
    }
}

/// The kernel's memory for tables.
enum Memory {}

impl buckets::Arena for Memory {
    type Buffer<T: Copy> = kernel::alloc::KVVec<T>;
    type Error = kernel::alloc::AllocError;

    fn filled<T: Copy>(len: usize, value: T) -> Result<Self::Buffer<T>, Self::Error> {
        kernel::alloc::KVVec::from_elem(value, len, GFP_KERNEL)
    }
}

/// Grades a record by what it says of its own machine.
fn graded(record: &decode::record::Record, exception: bool) -> decode::severity::Graded {
    use decode::severity::{grade, Context, Features};

    grade(
        record,
        Context::of(record),
        &Features::assumed(record),
        exception,
    )
}

/// A corrected memory read in page `page`.
fn corrected(page: u64) -> decode::record::Record {
    decode::record::Record {
        status: 0x9c00_0000_0000_0090,
        addr: page << 12,
        misc: 0x8c,
        mcgcap: decode::record::CAP_SER_P,
        cpuid: 0x206d7,
        bank: 9,
        ..Default::default()
    }
}
