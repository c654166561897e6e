// SPDX-License-Identifier: GPL-2.0
//! nullhz-agent(8).

use std::process::ExitCode;

use clap::Parser;
use nullhz_agent::commands::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("nullhz-agent: {err}");
            ExitCode::from(err.exit_code())
        }
    }
}
