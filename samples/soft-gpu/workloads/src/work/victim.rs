// SPDX-License-Identifier: GPL-2.0

//! W6: a process is killed while the device uses its memory, and that memory is taken from
//! outside before the process gets to it: process_mrelease(), or the OOM killer's reaper.
//!
//! The process is another run of this program. Its file of the device is kept open here, so that
//! the device's threads outlive it; its table of generations lies in memory that is shared.

use super::{Round, Stage, Workload};
use crate::abi;
use crate::gpu::{Gpu, Mode};
use crate::latency::Samples;
use crate::measure::Meter;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Runs, Table, Verdict};
use crate::process::mrelease;
use anyhow::{ensure, Context, Result};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::io::Errno;
use rustix::process::{pidfd_getfd, pidfd_open, pidfd_send_signal, Pid};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How it dies.
#[derive(clap::Args)]
pub struct Options {
    /// Pages that it has
    #[arg(long, default_value_t = 4096)]
    pages: usize,
    /// Victims, one after the other
    #[arg(long, default_value_t = 3)]
    operations: usize,
    /// Let it run out of memory in this control group, rather than be killed from here
    #[arg(long)]
    oom: Option<PathBuf>,
    /// Where the device is
    #[arg(skip)]
    pub device: PathBuf,
}

/// What a victim does: not called by people.
#[derive(clap::Args)]
pub struct Part {
    #[arg(long)]
    mode: Mode,
    #[arg(long)]
    table: PathBuf,
    #[arg(long)]
    pages: usize,
    #[arg(long)]
    owner: u64,
    #[arg(long, value_delimiter = ',')]
    run_on: Vec<u32>,
    #[arg(long)]
    oom: Option<PathBuf>,
}

/// What a victim says when it is ready.
#[derive(Serialize, Deserialize)]
struct Ready {
    file: i32,
    runs: Vec<u32>,
}

/// Victims.
pub struct Victims<'o> {
    options: &'o Options,
    layout: Layout,
}

impl<'o> Victims<'o> {
    /// Nothing to set up.
    pub fn new(options: &'o Options) -> Self {
        Self {
            options,
            layout: Layout {
                stride: PAGE,
                count: options.pages,
            },
        }
    }

    fn one(&self, stage: &Stage<'_>, mode: Mode, round: &mut Round) -> Result<()> {
        let memory = File::from(memfd_create("generations", MemfdFlags::CLOEXEC)?);
        let length = (self.layout.count * 8).next_multiple_of(PAGE);
        memory.set_len(length as u64)?;
        let table = Table::on(Area::file(&memory, length)?);
        let cpus: Vec<_> = stage.cpus.iter().map(u32::to_string).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--device")
            .arg(&self.options.device)
            .arg("victim");
        command.arg("--mode").arg(mode.name());
        command.arg("--table").arg(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            memory.as_raw_fd()
        ));
        command.arg("--pages").arg(self.layout.count.to_string());
        command.arg("--owner").arg(stage.owner.to_string());
        command.arg("--run-on").arg(cpus.join(","));
        if let Some(cgroup) = &self.options.oom {
            command.arg("--oom").arg(cgroup);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let ready: Ready = serde_json::from_str(&line).context("the victim is not ready")?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let gpu = Gpu::of(pidfd_getfd(&pidfd, ready.file, PidfdGetfdFlags::empty())?);
        let meter = Meter::new(&gpu, PathBuf::new());

        let before = meter.read()?;
        let begun = Instant::now();
        let mut released = false;
        if self.options.oom.is_some() {
            child.stdin.take().context("no input")?.write_all(b"\n")?;
        } else {
            pidfd_send_signal(&pidfd, Signal::KILL)?;
            released = loop {
                match round.latency.time(|| mrelease(&pidfd)) {
                    Ok(()) => break true,
                    // The device still had something there, or nobody has seen the signal yet.
                    Err(Errno::AGAIN | Errno::INVAL) => {
                        *round.extra.entry("again").or_default() += 1
                    }
                    Err(Errno::SRCH) => break false,
                    Err(error) => return Err(error).context("process_mrelease"),
                }
                ensure!(
                    begun.elapsed() < Duration::from_secs(20),
                    "the victim does not die"
                );
            };
        }
        if released {
            *round.extra.entry("released").or_default() += 1;
            table.raise_all(0..self.layout.count, u64::MAX);
        }
        let status = child.wait()?;
        ensure!(!status.success(), "the victim lives: {status}");
        // The device goes on, on memory that nobody has.
        std::thread::sleep(Duration::from_millis(20));
        let counts = meter.since(&before)?;
        *round.extra.entry("would_block").or_default() += counts.would_block;
        *round.extra.entry("zapped").or_default() += counts.zapped;
        for run in ready.runs {
            let mut verdict = Verdict::default();
            verdict.add(&gpu.stop(run, false)?);
            round.verdict.join(&verdict);
        }
        round.operations += 1;
        Ok(())
    }
}

impl Workload for Victims<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let mode = Mode::from_raw(stage.gpu.info()?.mode).context("unknown mode")?;
        let before = stage.meter.read()?;
        let mut round = Round {
            counts: stage.meter.since(&before)?,
            operations: 0,
            latency: Samples::default(),
            verdict: Verdict::default(),
            extra: BTreeMap::new(),
        };
        for _ in 0..self.options.operations {
            self.one(stage, mode, &mut round)?;
        }
        round.counts = stage.meter.since(&before)?;
        Ok(round)
    }
}

/// The victim itself: it has memory that the device uses, and waits for its end.
pub fn play(device: &Path, part: &Part) -> Result<()> {
    if let Some(cgroup) = &part.oom {
        std::fs::write(cgroup.join("cgroup.procs"), "0").context(cgroup.display().to_string())?;
    }
    let gpu = Gpu::open(device)?;
    if gpu.info()?.mode != part.mode as u32 {
        gpu.set_mode(part.mode)?;
    }
    let layout = Layout {
        stride: PAGE,
        count: part.pages,
    };
    let area = Area::anonymous(layout.stride * layout.count, PAGE)?;
    let shared = File::options().read(true).write(true).open(&part.table)?;
    let table = Table::on(Area::file(&shared, shared.metadata()?.len() as usize)?);
    gpu.register(area.address(0), area.length(), 2 << 20)
        .context("register")?;
    let pages = layout.of(area.address(0));
    gpu.judge(pages, table.address(), part.owner)
        .context("oracle")?;
    for index in 0..layout.count {
        let offset = layout.offset(index);
        oracle::stamp(&area, offset, area.address(offset), part.owner, 1);
    }
    gpu.prefetch(pages, 0)?;
    let runs = Runs::start(&gpu, &part.run_on, pages, 0, abi::RANDOM)?;
    let ready = Ready {
        file: gpu.file().as_raw_fd(),
        runs: runs.numbers().to_vec(),
    };
    println!("{}", serde_json::to_string(&ready)?);
    // Killed while it waits, or told to run out of memory.
    std::io::stdin().read_line(&mut String::new())?;
    let rest = Area::anonymous(64 << 30, PAGE)?;
    for offset in rest.all().step_by(PAGE) {
        rest.store(offset, 1);
    }
    Ok(())
}
