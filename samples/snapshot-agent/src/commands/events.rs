// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent events`.

use std::path::Path;

use clap::ValueEnum;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::print;
use crate::abi::Level;
use crate::bus::{Bus, Device, BATCH};
use crate::error::{Error, Result};
use crate::view::{self, EventView};

/// What to print, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// One JSON object per line
    #[arg(long)]
    json: bool,

    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Leave out what has happened already; implies --follow
    #[arg(long)]
    new: bool,

    /// Only this level and worse
    #[arg(long, value_enum, default_value_t)]
    level: LevelArg,

    /// Only this source, such as mce, stall or a number; may be repeated
    #[arg(long, value_parser = view::parse_source, value_name = "SOURCE")]
    source: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LevelArg {
    #[default]
    Watch,
    Degrading,
    Imminent,
    Fatal,
}

impl From<LevelArg> for Level {
    fn from(arg: LevelArg) -> Level {
        match arg {
            LevelArg::Watch => Level::Watch,
            LevelArg::Degrading => Level::Degrading,
            LevelArg::Imminent => Level::Imminent,
            LevelArg::Fatal => Level::Fatal,
        }
    }
}

/// Prints events.
///
/// # Errors
///
/// Those of opening and reading the device.
pub fn run(path: &Path, options: &Options) -> Result<()> {
    let device = Device::open(path)?;
    let mask = options.source.iter().fold(0, |mask, id| mask | 1u64 << id);
    let mask = if mask == 0 { u64::MAX } else { mask };
    device.filter(Level::from(options.level) as u32, mask)?;
    if options.new {
        device.seek_newest()?;
    }
    let mut events = Vec::with_capacity(BATCH);
    loop {
        device.read(&mut events).map_err(|errno| Error::Bus {
            what: "read",
            errno,
        })?;
        for event in &events {
            if options.json {
                print(&EventView::new(event).json())?;
            } else {
                print(&view::line(event))?;
            }
        }
        if events.is_empty() {
            if !(options.follow || options.new) {
                return Ok(());
            }
            wait(&device)?;
        }
    }
}

fn wait(device: &Device) -> Result<()> {
    let mut fds = [PollFd::new(device.fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::errno("poll")(errno)),
    }
}
