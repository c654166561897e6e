// SPDX-License-Identifier: GPL-2.0
//! Heartbeats for the nullhz stall watchdog, `/dev/nullhz-stall`.
//!
//! A training process registers one [`Rank`] and says after every step that it is alive: one store
//! to a page that the kernel reads, no system call.
//!
//! ```no_run
//! use nullhz_stall::{Options, Phase, Rank};
//!
//! # fn train_one_step() {}
//! # fn save_and_fsync() -> std::io::Result<()> { Ok(()) }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rank = Rank::register(&Options::new(0, "my-model"))?;
//! rank.set_phase(Phase::Step);
//! for step in 1..=1000 {
//!     train_one_step();
//!     rank.beat(step);
//!     if let Some(request) = rank.checkpoint_wanted() {
//!         let _checkpoint = rank.enter(Phase::Checkpoint);
//!         save_and_fsync()?;
//!         rank.checkpoint_done(request);
//!     }
//! }
//! rank.leave()?;
//! # Ok(())
//! # }
//! ```
//!
//! Deadlines are learned from the steps; [`Options`] fixes those that cannot be.
//! [`Rank::register_if_present`] lets a program run where there is no watchdog.
//!
//! [`Device`] is for those who look after ranks: it asks all of them for a checkpoint and lists
//! them.

#[path = "../../../drivers/stall/abi.rs"]
pub mod abi;
mod device;
mod error;
mod options;
mod rank;
mod sys;

pub use abi::{Phase, State};
pub use device::Device;
pub use error::Error;
pub use options::Options;
pub use rank::{CheckpointRequest, InPhase, Rank};

/// Where udev makes the device.
pub const DEVICE: &str = "/dev/nullhz-stall";
