// SPDX-License-Identifier: GPL-2.0
//! The options of a run; the launcher and its ranks read the same ones.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use nullhz_stall::Phase;

use crate::checkpoint::Job;
use crate::model::Shape;
use crate::stall::StallOptions;

/// What a run does.
#[derive(Clone, Debug, clap::Args)]
pub struct RunOptions {
    /// Directory of the checkpoints, made when missing; training goes on from
    /// the newest whole one in it
    #[arg(long, default_value = "/checkpoint/current", value_name = "DIR")]
    pub dir: PathBuf,

    /// Train until this step
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub steps: u64,

    /// Processes that train together
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub ranks: u32,

    /// Of the first parameters and the data
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Rows that each rank learns from at a step
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub batch: usize,

    /// Learning rate
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    pub rate: f32,

    /// Write a checkpoint every N steps; 0: only when asked, and at the end
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub checkpoint_every: u64,

    /// Checkpoints to keep in the directory
    #[arg(long, default_value_t = 2, value_name = "N")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pub keep: usize,

    /// Evaluate every N steps; 0: never
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub eval_every: u64,

    /// CPUs for the ranks, one each in turn, such as 2-3
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    pub cpus: Option<Cpus>,

    /// Append a line of JSON for each step to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Say how it goes every N steps; 0: never
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub report_every: u64,

    /// The model.
    #[command(flatten)]
    pub shape: Shape,

    /// How the job is watched.
    #[command(flatten)]
    pub watch: WatchOptions,

    /// Stalls on purpose.
    #[command(flatten)]
    pub stall: StallOptions,
}

impl RunOptions {
    /// What has to be the same when training goes on.
    pub fn job(&self) -> Job {
        Job {
            seed: self.seed,
            ranks: self.ranks,
            batch: self.batch,
            rate: self.rate,
            shape: self.shape.clone(),
        }
    }
}

/// How the stall watchdog is to watch the ranks.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Stall watchdog")]
pub struct WatchOptions {
    /// Device of the stall watchdog
    #[arg(long, default_value = nullhz_stall::DEVICE, value_name = "FILE")]
    pub stall_device: PathBuf,

    /// Fail when there is no stall watchdog, instead of training without
    #[arg(long)]
    pub require_watchdog: bool,

    /// Name of the job
    #[arg(long, default_value = "trainer", value_name = "NAME")]
    pub name: String,

    /// Fixed deadline of a phase (init, step, comm-wait, checkpoint, eval);
    /// may be repeated. Without it: learned
    #[arg(long, value_name = "PHASE=MS", value_parser = parse_deadline)]
    pub deadline: Vec<(Phase, u32)>,

    /// No learned deadline is shorter; 0: as the watchdog is set
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub floor_ms: u32,

    /// Steps that the watchdog does not learn from; 0: as it is set
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u32,
}

/// CPUs, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

fn parse_cpus(text: &str) -> Result<Cpus, String> {
    let number = |text: &str| match text.parse::<usize>() {
        Ok(cpu) if cpu < nix::sched::CpuSet::count() => Ok(cpu),
        _ => Err(format!("{text:?} is no CPU number")),
    };
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{range:?} is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    Ok(Cpus(cpus))
}

fn parse_deadline(text: &str) -> Result<(Phase, u32), String> {
    let (name, ms) = text.split_once('=').ok_or("PHASE=MS is needed")?;
    let phase = Phase::ALL.iter().find(|phase| phase.name() == name);
    let phase = phase.ok_or_else(|| {
        let names: Vec<_> = Phase::ALL.iter().map(|phase| phase.name()).collect();
        format!("{name:?} is none of {}", names.join(", "))
    })?;
    let ms = ms.parse().map_err(|_| format!("{ms:?} is no number"))?;
    Ok((*phase, ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_as_the_kernel_writes_them() {
        assert_eq!(parse_cpus("2-3,7"), Ok(Cpus(vec![2, 3, 7])));
        for text in ["", "a", "3-2", "1,,2", "99999999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deadlines_name_a_phase() {
        assert_eq!(parse_deadline("comm-wait=500"), Ok((Phase::CommWait, 500)));
        for text in ["step", "steps=1", "step=-1", "step="] {
            assert!(parse_deadline(text).is_err(), "{text}");
        }
    }
}
