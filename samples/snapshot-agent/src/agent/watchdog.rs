// SPDX-License-Identifier: GPL-2.0
//! Feeding a hardware watchdog when nothing else on the node does.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys;

/// An open watchdog. Opening it arms it; see [`Watchdog::disarm`].
pub struct Watchdog {
    file: File,
    timeout: Duration,
}

impl Watchdog {
    /// Opens and so arms the watchdog, and asks for its timeout.
    ///
    /// # Errors
    ///
    /// `Io`; `EBUSY` when something else feeds it.
    pub fn open(path: &Path) -> Result<Self> {
        let what = || format!("watchdog {}", path.display());
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(Error::io(what()))?;
        let mut seconds = 0;
        let asked = sys::WATCHDOG_GETTIMEOUT.call(file.as_fd(), &mut seconds);
        let mut watchdog = Self {
            file,
            timeout: Duration::ZERO,
        };
        match asked {
            Ok(_) if seconds > 0 => {
                watchdog.timeout = Duration::from_secs(seconds.unsigned_abs().into())
            }
            Ok(_) | Err(_) => {
                watchdog.disarm();
                return Err(Error::Input(format!(
                    "{}: has no timeout: not a watchdog?",
                    path.display()
                )));
            }
        }
        Ok(watchdog)
    }

    /// How often to feed it: three times in its timeout.
    pub fn interval(&self) -> Duration {
        self.timeout / 3
    }

    /// Feeds it.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn feed(&self) -> nix::Result<()> {
        sys::WATCHDOG_KEEPALIVE
            .call(self.file.as_fd(), &mut 0)
            .map(drop)
    }

    /// Writes the magic character, so that closing the file stops the watchdog
    /// – unless it is `nowayout`: then it fires if nobody takes over, as asked.
    /// Without this call, that is when the agent crashes, it goes on running.
    pub fn disarm(&mut self) {
        // A watchdog that cannot be told stays armed, which is the safe side.
        let _ = self.file.write_all(b"V");
    }
}
