// SPDX-License-Identifier: GPL-2.0

//! The logic of batched invalidation without a kernel around it.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

#[path = "../../../../drivers/mmu_batch/combine.rs"]
pub mod combine;
#[path = "../../../../drivers/mmu_batch/gather.rs"]
pub mod gather;
#[path = "../../../../drivers/mmu_batch/spans.rs"]
pub mod spans;

#[cfg(test)]
mod tests;
