// SPDX-License-Identifier: GPL-2.0
//! Stalls on purpose, for tests and demonstrations: the rank really does what
//! its kind says, nothing is pretended.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{raise, Signal};

/// Which rank stalls, when, how and for how long.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Stalls on purpose (for tests)")]
pub struct StallOptions {
    /// Have a rank stall in this step
    #[arg(long, value_name = "STEP")]
    pub stall_at: Option<u64>,

    /// How: spin (in user space), sleep, stop (SIGSTOP), or dstate=FILE: write
    /// to a file whose filesystem is frozen (fsfreeze -f)
    #[arg(long, default_value = "spin", value_name = "KIND", value_parser = parse_kind)]
    #[arg(requires = "stall_at")]
    pub stall_kind: Kind,

    /// Which rank
    #[arg(long, default_value_t = 0, value_name = "RANK", requires = "stall_at")]
    pub stall_rank: u32,

    /// How long it spins or sleeps; without it: until it is killed
    #[arg(long, value_name = "MS", requires = "stall_at")]
    pub stall_ms: Option<u64>,
}

/// What a stalled rank does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs in user space.
    Spin,
    /// Sleeps, interruptibly.
    Sleep,
    /// Is stopped by a signal, until SIGCONT.
    Stop,
    /// Writes to this file.
    Disk(PathBuf),
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    match text.split_once('=') {
        None if text == "spin" => Ok(Kind::Spin),
        None if text == "sleep" => Ok(Kind::Sleep),
        None if text == "stop" => Ok(Kind::Stop),
        Some(("dstate", path)) if !path.is_empty() => Ok(Kind::Disk(path.into())),
        _ => Err("one of spin, sleep, stop, dstate=FILE is needed".into()),
    }
}

impl StallOptions {
    /// Whether `rank` is to stall in `step`.
    pub fn is_due(&self, rank: u32, step: u64) -> bool {
        self.stall_at == Some(step) && self.stall_rank == rank
    }

    /// Stalls, and returns when that is over.
    ///
    /// # Errors
    ///
    /// When it cannot stall in this way.
    pub fn stall(&self) -> Result<()> {
        let end = self
            .stall_ms
            .map(|ms| Instant::now() + Duration::from_millis(ms));
        let goes_on = || end.is_none_or(|end| Instant::now() < end);
        match &self.stall_kind {
            Kind::Spin => {
                while goes_on() {
                    std::hint::spin_loop();
                }
            }
            Kind::Sleep => {
                while goes_on() {
                    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                    thread::sleep(left.unwrap_or(Duration::MAX));
                }
            }
            Kind::Stop => raise(Signal::SIGSTOP)?,
            Kind::Disk(path) => {
                fs::write(path, "stalls while its filesystem is frozen\n")
                    .with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read() {
        assert_eq!(parse_kind("spin"), Ok(Kind::Spin));
        assert_eq!(parse_kind("dstate=/mnt/x"), Ok(Kind::Disk("/mnt/x".into())));
        for text in ["", "dstate", "dstate=", "spin=1", "nap"] {
            assert!(parse_kind(text).is_err(), "{text}");
        }
    }
}
