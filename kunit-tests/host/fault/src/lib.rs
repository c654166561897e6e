// SPDX-License-Identifier: GPL-2.0

//! The fault bus without a kernel around it.

#![no_std]
#![forbid(unsafe_code)]

#[path = "../../../../drivers/fault/abi.rs"]
pub mod abi;
#[path = "../../../../drivers/fault/hub.rs"]
pub mod hub;
#[path = "../../../../drivers/fault/incident.rs"]
pub mod incident;
#[path = "../../../../drivers/fault/persist.rs"]
pub mod persist;
#[path = "../../../../drivers/fault/report.rs"]
pub mod report;
#[path = "../../../../drivers/fault/ring.rs"]
pub mod ring;
#[path = "../../../../drivers/fault/storm.rs"]
pub mod storm;
