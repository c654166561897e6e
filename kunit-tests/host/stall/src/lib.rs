// SPDX-License-Identifier: GPL-2.0

//! The stall detector without a kernel around it.

#![no_std]
#![forbid(unsafe_code)]

#[path = "../../../../drivers/stall/abi.rs"]
pub mod abi;
#[path = "../../../../drivers/stall/budget.rs"]
pub mod budget;
#[path = "../../../../drivers/stall/clock.rs"]
pub mod clock;
#[path = "../../../../drivers/stall/culprit.rs"]
pub mod culprit;
#[path = "../../../../drivers/stall/deadline.rs"]
pub mod deadline;
#[path = "../../../../drivers/stall/ladder.rs"]
pub mod ladder;
#[path = "../../../../drivers/stall/quantile.rs"]
pub mod quantile;
#[path = "../../../../drivers/stall/rank.rs"]
pub mod rank;
#[path = "../../../../drivers/stall/timeout.rs"]
pub mod timeout;
