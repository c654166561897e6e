// SPDX-License-Identifier: GPL-2.0

//! The machine-check module's logic; what it calls `crate::abi` is this crate's.

// The module's own counters and the agent's names are not used here.
#![allow(dead_code, unreachable_pub)]

#[path = "../../host/mce/src/atomic.rs"]
mod atomic;
#[path = "../../../drivers/mce/buckets.rs"]
pub mod buckets;
#[path = "../../../drivers/mce/predict.rs"]
pub mod predict;
#[path = "../../../drivers/mce/slots.rs"]
mod slots;

pub(crate) use crate::decode;
