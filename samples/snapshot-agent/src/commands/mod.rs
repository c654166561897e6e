// SPDX-License-Identifier: GPL-2.0
//! The commands, one file each, and the command line.

pub mod bench;
pub mod decode;
pub mod events;
pub mod restore;
pub mod snapshots;
pub mod status;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};

use crate::agent;
use crate::bus::{Device, DeviceArg};
use crate::error::{Error, Result};
use crate::ranks::StallDeviceArg;
use crate::store::Layout;

/// Takes a BTRFS snapshot of the training state before a node fails
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, infer_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong arguments, 3 no fault bus, \
    4 no permission, 5 checkpoint volume unusable, 6 no such snapshot, 7 in use. \
    See nullhz-agent(8)."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the fault bus and take snapshots
    Run {
        #[command(flatten)]
        device: DeviceArg,

        #[command(flatten)]
        options: Box<agent::Options>,

        /// How to log to standard error
        #[arg(long, env = "NULLHZ_LOG_FORMAT", value_enum, default_value_t)]
        log_format: LogFormat,
    },

    /// Say how the bus, the ranks, the agent and the snapshots are
    Status {
        #[command(flatten)]
        device: DeviceArg,

        #[command(flatten)]
        stall_device: StallDeviceArg,

        #[command(flatten)]
        layout: Layout,

        /// The agent's own state
        #[arg(long, env = "NULLHZ_STATE_FILE", default_value = agent::STATE_FILE, value_name = "FILE")]
        state_file: PathBuf,

        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },

    /// Print fault events
    Events {
        #[command(flatten)]
        device: DeviceArg,

        #[command(flatten)]
        options: events::Options,
    },

    /// Explain a record or machine-check registers
    Decode(decode::Options),

    /// List the snapshots
    Snapshots {
        #[command(flatten)]
        layout: Layout,

        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },

    /// Bring a snapshot back
    Restore {
        #[command(flatten)]
        layout: Layout,

        #[command(flatten)]
        options: restore::Options,
    },

    /// Measure how long snapshots of this volume take
    Bench(bench::Options),
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people and syslog.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    ///
    /// Whatever ends the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Run {
                device,
                options,
                log_format,
            } => {
                log_to_stderr(log_format);
                let watchdogs = Arc::new(options.stall_device.stall_device.clone());
                agent::run(Device::open(&device.device)?, watchdogs, &options)
            }
            Command::Status {
                device,
                stall_device,
                layout,
                state_file,
                json,
            } => status::Places {
                bus: device.device,
                watchdog: stall_device.stall_device,
                layout,
                state_file,
            }
            .run(json),
            Command::Events { device, options } => events::run(&device.device, &options),
            Command::Decode(options) => decode::run(&options),
            Command::Snapshots { layout, json } => snapshots::run(&layout, json),
            Command::Restore { layout, options } => restore::run(&layout, &options),
            Command::Bench(options) => bench::run(&options),
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Prints a line; a reader that has gone away ends the program in silence, as
/// it does the likes of cat(1).
fn print(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(err) => Err(Error::io("standard output")(err)),
    }
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string(value).map_err(|err| Error::io("JSON")(err.into()))?;
    print(&json)
}
