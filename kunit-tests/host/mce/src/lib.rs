// SPDX-License-Identifier: GPL-2.0

//! Machine checks without a kernel around them: grading, decoding, prediction, and the slots.

#![forbid(unsafe_code)]
#![cfg(test)]

#[path = "../../../../drivers/fault/abi.rs"]
mod abi;
mod atomic;
#[path = "../../../../drivers/mce/buckets.rs"]
mod buckets;
// The module's counters and the agent's names are not used here.
#[allow(dead_code)]
#[path = "../../../../drivers/mce/decode/mod.rs"]
mod decode;
#[path = "../../../../drivers/mce/predict.rs"]
mod predict;
mod reference;
#[path = "../../../../drivers/mce/slots.rs"]
mod slots;
#[path = "../../../vectors/mce.rs"]
mod vectors;

mod tests;
