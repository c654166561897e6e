// SPDX-License-Identifier: GPL-2.0
//! The command line; see README.md.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nullhz_trainer::options::RunOptions;
use nullhz_trainer::ring::Gone;
use nullhz_trainer::verify::{self, VerifyOptions};
use nullhz_trainer::{launcher, rank};

/// A small data-parallel training job under the stall watchdog
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train, from the newest checkpoint if there is one
    Run(RunOptions),

    /// Verify the checkpoints in a directory or snapshot
    Verify(VerifyOptions),

    /// One process of a run; the launcher starts it
    #[command(hide = true)]
    Rank {
        #[arg(long)]
        rank: u32,

        /// Process id of the launcher
        #[arg(long)]
        launcher: i32,

        #[command(flatten)]
        options: RunOptions,
    },
}

fn main() -> ExitCode {
    let (who, ended) = match Cli::parse().command {
        Command::Run(options) => (String::new(), launcher::run(&options)),
        Command::Verify(options) => (String::new(), verify::run(&options)),
        Command::Rank {
            rank,
            launcher,
            options,
        } => (
            format!("rank {rank}: "),
            rank::run(&options, rank, launcher),
        ),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("nullhz-trainer: {who}{err:#}");
            match err.is::<Gone>() {
                true => launcher::PEER_GONE.into(),
                false => ExitCode::FAILURE,
            }
        }
    }
}
