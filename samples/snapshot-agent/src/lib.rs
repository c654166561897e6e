// SPDX-License-Identifier: GPL-2.0
//! nullhz-agent: waits for the fault bus to say that the node is about to fail,
//! and then takes a BTRFS snapshot of the training state.
//!
//! See nullhz-agent(8) for what it does and [`agent`] for how.

/// The fault bus's ABI, shared with the kernel modules.
#[path = "../../../drivers/fault/abi.rs"]
pub mod abi;

/// What machine-check records say, shared with nullhz_mce.
#[path = "../../../drivers/mce/decode/mod.rs"]
#[allow(dead_code, clippy::wrong_self_convention)]
mod decode;

mod aer_text;
pub mod agent;
pub mod btrfs;
pub mod bus;
pub mod commands;
pub mod crash;
pub mod error;
pub mod mce_text;
pub mod preflush;
pub mod ranks;
pub mod snapshot;
mod stall_text;
pub mod store;
pub mod sys;
pub mod view;
