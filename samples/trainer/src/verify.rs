// SPDX-License-Identifier: GPL-2.0
//! `nullhz-trainer verify`: are the checkpoints in a directory, or in a
//! snapshot of it, what was written?

use std::path::PathBuf;

use anyhow::{bail, ensure, Result};
use serde_json::json;

use crate::checkpoint;

/// What to verify.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyOptions {
    /// Directory of checkpoints, such as a snapshot of one
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// One JSON object per checkpoint instead of text
    #[arg(long)]
    json: bool,
}

/// Prints what each checkpoint holds, oldest first.
///
/// # Errors
///
/// When one is broken, and when there is none.
pub fn run(options: &VerifyOptions) -> Result<()> {
    let entries = checkpoint::list(&options.dir)?;
    let dir = options.dir.display();
    ensure!(!entries.is_empty(), "{dir}: no checkpoint");
    let mut broken = 0;
    for entry in &entries {
        let step = entry.step;
        let found = entry.verify();
        if options.json {
            let error = found.as_ref().err().map(|err| format!("{err:#}"));
            let loss = found.as_ref().ok().map(|manifest| manifest.loss);
            println!(
                "{}",
                json!({"checkpoint": entry.to_string(), "step": step, "ok": found.is_ok(),
                       "loss": loss, "error": error})
            );
        } else {
            match &found {
                Ok(manifest) => println!("{entry}: ok, loss {}", manifest.loss),
                Err(err) => println!("{entry}: BROKEN: {err:#}"),
            }
        }
        broken += usize::from(found.is_err());
    }
    match broken {
        0 => Ok(()),
        _ => bail!("{dir}: {broken} of {} checkpoints broken", entries.len()),
    }
}
