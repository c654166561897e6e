// SPDX-License-Identifier: GPL-2.0
//! A rank's registration with the stall watchdog, or none: training then goes
//! on without being watched.

use std::time::Duration;

use anyhow::{Context, Result};
use nullhz_stall::{Error, Options, Rank};

use crate::options::WatchOptions;

/// Registers the calling thread as `rank`.
///
/// # Errors
///
/// When there is no watchdog that this user may use and one is required, and
/// when there is one that refuses the rank.
pub fn register(watch: &WatchOptions, rank: u32) -> Result<Rank> {
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let mut options = Options::new(rank, &watch.name)
        .device(&watch.stall_device)
        // What waits for the ring does so in COMM_WAIT, all of it.
        .tells_waits()
        .floor(ms(watch.floor_ms))
        .warmup(watch.warmup);
    for (phase, deadline) in &watch.deadline {
        options = options.deadline(*phase, ms(*deadline));
    }
    match Rank::register(&options) {
        Err(err @ (Error::NoDevice(_) | Error::Permission(_))) if !watch.require_watchdog => {
            if rank == 0 {
                eprintln!("trainer: warning: nobody watches this training: {err}");
            }
            Ok(Rank::unwatched()?)
        }
        result => result.context("register with the stall watchdog"),
    }
}
