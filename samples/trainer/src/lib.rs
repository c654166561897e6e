// SPDX-License-Identifier: GPL-2.0
//! nullhz-trainer: a small training job that is a good client of the stall
//! watchdog: heartbeats, phases, checkpoints on request, exact resumption.
//!
//! | file | what |
//! |---|---|
//! | [`launcher`] | starts the ranks, tells what became of them |
//! | [`rank`] | the training loop |
//! | [`heart`] | heartbeats, phases and checkpoint requests |
//! | [`ring`] | all-reduce between the ranks |
//! | [`checkpoint`] | what is kept, and its verification |
//! | [`model`], [`adam`], [`data`] | what is trained |
//! | [`stall`] | stalls on purpose |

pub mod adam;
pub mod checkpoint;
pub mod data;
pub mod heart;
pub mod launcher;
pub mod model;
pub mod options;
pub mod rank;
pub mod ring;
pub mod stall;
pub mod verify;
