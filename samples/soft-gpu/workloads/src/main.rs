// SPDX-License-Identifier: GPL-2.0

//! Takes memory away from the software GPU in every way that Linux knows, in each of the
//! device's modes in turn, and prints one line of JSON: what was counted, how long it took, and
//! what the device saw that it should not have seen.

#[path = "../../abi.rs"]
mod abi;
mod gpu;
mod interrupts;
mod latency;
mod measure;
mod memory;
mod oracle;
mod process;
mod work;

use abi::feature;
use anyhow::{ensure, Result};
use clap::{Parser, Subcommand};
use gpu::{Gpu, Mode};
use latency::{Distribution, Samples};
use measure::{Counts, Meter};
use oracle::{Detail, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use work::{churn, crowd, fork, gather, munmap, reclaim, swap, victim, Stage, Workload};

/// Workloads that take memory away from the software GPU
#[derive(Parser)]
struct Arguments {
    /// The device
    #[arg(long, default_value = "/dev/nullhz-soft-gpu")]
    device: PathBuf,
    /// Counters of the device in nullhz_mmu_batch
    #[arg(
        long,
        default_value = "/sys/devices/faux/nullhz_mmu_batch.soft-gpu/counters"
    )]
    library: PathBuf,
    /// Modes, in turn in every round; default: B0, B1, B2 and BATCHED, if the device has them
    #[arg(long, value_enum, value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Rounds
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// CPUs on which the device runs threads; none: it does what is asked for only
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<u32>,
    /// Let the device write as well
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    faults: Faults,
    #[command(subcommand)]
    workload: Work,
}

/// How the device misbehaves meanwhile.
#[derive(clap::Args)]
struct Faults {
    /// The next flushes that are not acknowledged
    #[arg(long, default_value_t = 0)]
    unanswered: u32,
    /// The next resets that fail
    #[arg(long, default_value_t = 0)]
    failed_resets: u32,
    /// How much longer each flush takes, us
    #[arg(long, default_value_t = 0)]
    flush_delay_us: u32,
    /// How much longer each walk takes, us
    #[arg(long, default_value_t = 0)]
    walk_delay_us: u32,
    /// What is wrong with the device, of the ABI's NO_MUTANT and so on
    #[arg(long, default_value_t = 0)]
    mutant: u32,
}

impl Faults {
    fn raw(&self) -> abi::Faults {
        abi::Faults {
            unanswered: self.unanswered,
            failed_resets: self.failed_resets,
            flush_delay_us: self.flush_delay_us,
            walk_delay_us: self.walk_delay_us,
            mutant: self.mutant,
            pad: 0,
        }
    }
}

#[derive(Subcommand)]
enum Work {
    /// W1: one munmap() of a large range in many intervals
    Munmap(munmap::Options),
    /// W2: threads that give their buffers back and fill them anew
    Churn(churn::Options),
    /// W2 with processes, which give their memory back page by page, and do nothing else
    Crowd(crowd::Options),
    /// W3: munmap(), mmap() at the same addresses, immediate device read
    Swap(swap::Options),
    /// W4: pages that the kernel takes: reclaim, migration, compaction
    Reclaim(reclaim::Options),
    /// W5: fork() and copy on write
    Fork(fork::Options),
    /// W6: a killed process whose memory is taken from outside
    Mrelease(victim::Options),
    /// Buffers that the driver unmaps: the timed gather
    Gather(gather::Options),
    #[command(hide = true)]
    Victim(victim::Part),
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    workload: &'static str,
    device: PathBuf,
    cpus: u32,
    modes: BTreeMap<&'static str, ModeReport>,
    violations: u64,
    details: Vec<Detail>,
}

/// Of one mode.
#[derive(Default, Serialize)]
struct ModeReport {
    /// By round.
    rounds: Vec<Counts>,
    operations: u64,
    #[serde(flatten)]
    extra: BTreeMap<&'static str, u64>,
    latency_ns: Option<Distribution>,
    verdict: Verdict,
    #[serde(skip)]
    samples: Samples,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if let Work::Victim(part) = &arguments.workload {
        return victim::play(&arguments.device, part);
    }
    match &mut arguments.workload {
        Work::Mrelease(options) => options.device.clone_from(&arguments.device),
        Work::Crowd(options) => options.device.clone_from(&arguments.device),
        _ => {}
    }
    let report = run(&arguments)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn run(arguments: &Arguments) -> Result<Report> {
    let gpu = Gpu::open(&arguments.device)?;
    let info = gpu.info()?;
    let mut modes = arguments.modes.clone();
    if modes.is_empty() {
        modes.extend(
            Mode::COMPARED
                .into_iter()
                .filter(|&mode| info.modes & (1 << mode as u32) != 0),
        );
    }
    let stage = Stage {
        gpu: &gpu,
        meter: Meter::new(&gpu, arguments.library.clone()),
        cpus: arguments.cpus.clone(),
        flags: if arguments.write { abi::WRITE } else { 0 },
        // Whose page it is, if it is another process's.
        owner: u64::from(std::process::id()) << 32 | u64::from(info.context),
    };
    let mut workload: Box<dyn Workload> = match &arguments.workload {
        Work::Munmap(options) => Box::new(munmap::Munmap::new(&stage, options)?),
        Work::Churn(options) => Box::new(churn::Churn::new(&stage, options)?),
        Work::Crowd(options) => Box::new(crowd::Crowd::new(options)?),
        Work::Swap(options) => Box::new(swap::Swap::new(&stage, options)?),
        Work::Reclaim(options) => Box::new(reclaim::Reclaim::new(&stage, options)?),
        Work::Fork(options) => Box::new(fork::Forks::new(&stage, options)?),
        Work::Mrelease(options) => Box::new(victim::Victims::new(options)),
        Work::Gather(options) => {
            ensure!(
                info.features & feature::BIND != 0,
                "this device binds no buffers"
            );
            Box::new(gather::Gather::new(&stage, options)?)
        }
        Work::Victim(_) => unreachable!("a victim runs nothing"),
    };
    let mut reports = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for &mode in &modes {
            // A device with one mode need not be able to change it.
            if gpu.info()?.mode != mode as u32 {
                gpu.set_mode(mode)?;
            }
            let faults = arguments.faults.raw();
            if faults != abi::Faults::ZERO {
                gpu.misbehave(faults)?;
            }
            let round = workload.round(&stage);
            if faults != abi::Faults::ZERO {
                gpu.misbehave(abi::Faults::ZERO)?;
            }
            let round = round?;
            let report: &mut ModeReport = reports.entry(mode.name()).or_default();
            report.rounds.push(round.counts);
            report.operations += round.operations;
            report.samples.join(round.latency);
            report.verdict.join(&round.verdict);
            for (name, value) in round.extra {
                *report.extra.entry(name).or_default() += value;
            }
        }
    }
    for report in reports.values_mut() {
        report.latency_ns = Some(std::mem::take(&mut report.samples).distribution());
    }
    Ok(Report {
        workload: arguments.workload.name(),
        device: arguments.device.clone(),
        cpus: info.cpus,
        violations: reports
            .values()
            .map(|report| report.verdict.violations)
            .sum(),
        modes: reports,
        details: if info.features & feature::MORE != 0 {
            oracle::details(&gpu)?
        } else {
            Vec::new()
        },
    })
}

impl Work {
    fn name(&self) -> &'static str {
        match self {
            Self::Munmap(_) => "munmap",
            Self::Churn(_) => "churn",
            Self::Crowd(_) => "crowd",
            Self::Swap(_) => "swap",
            Self::Reclaim(_) => "reclaim",
            Self::Fork(_) => "fork",
            Self::Mrelease(_) => "mrelease",
            Self::Gather(_) => "gather",
            Self::Victim(_) => "victim",
        }
    }
}
