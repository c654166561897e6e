// SPDX-License-Identifier: GPL-2.0

//! W2 with processes: each gives its memory back page by page, and does nothing else.
//!
//! Threads of one process share its page table and the locks around it, and what the kernel does to
//! its CPUs' TLBs. Processes share nothing but the device, so that what is measured is the flushes.

use super::{Round, Stage, Workload};
use crate::gpu::{Gpu, Mode};
use crate::latency::{time, Samples};
use crate::memory::{Area, PAGE};
use crate::oracle::{Layout, Verdict};
use crate::process::{Child, Fork, Parent};
use anyhow::{ensure, Context, Result};
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::thread::{sched_setaffinity, CpuSet};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::thread::yield_now;
use std::time::{Duration, Instant};

/// Bytes of a sample.
const SAMPLE: usize = 8;

/// How long it may take until all have begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many, and how much.
#[derive(clap::Args)]
pub struct Options {
    /// Processes
    #[arg(long, default_value_t = 16)]
    processes: usize,
    /// Pages of each process, each given back by a call of its own
    #[arg(long, default_value_t = 64)]
    pages: usize,
    /// Where the device is
    #[arg(skip)]
    pub device: PathBuf,
}

/// The processes.
pub struct Crowd<'o> {
    options: &'o Options,
    /// How long their calls took, in their order; then, of each, whether it has begun.
    samples: Area,
}

impl<'o> Crowd<'o> {
    /// Room for what they have to tell.
    pub fn new(options: &'o Options) -> Result<Self> {
        let memory = File::from(memfd_create("latencies", MemfdFlags::CLOEXEC)?);
        let length = options.processes * (options.pages + 1) * SAMPLE;
        memory.set_len(length as u64)?;
        Ok(Self {
            options,
            samples: Area::file(&memory, length)?,
        })
    }

    /// Where process number `number` says that it has begun.
    fn begun(&self, number: usize) -> usize {
        (self.options.processes * self.options.pages + number) * SAMPLE
    }

    /// Waits for the others: they are told one after the other, and the first would be done before
    /// the last has begun.
    fn begin(&self, number: usize) -> Result<()> {
        let since = Instant::now();
        self.samples.store(self.begun(number), 1);
        for other in 0..self.options.processes {
            while self.samples.load(self.begun(other)) == 0 {
                ensure!(since.elapsed() < PATIENCE, "process {other} does not begin");
                yield_now();
            }
        }
        Ok(())
    }

    /// What process number `number` does, when it is told.
    fn play(&self, number: usize, mode: Mode, parent: &Parent) -> Result<()> {
        let layout = Layout {
            stride: PAGE,
            count: self.options.pages,
        };
        let gpu = Gpu::open(&self.options.device)?;
        gpu.set_mode(mode)?;
        let mut cpu = CpuSet::new();
        cpu.set(number % gpu.info()?.cpus as usize);
        sched_setaffinity(None, &cpu)?;
        let area = Area::anonymous(layout.stride * layout.count, PAGE)?;
        for index in 0..layout.count {
            area.store(layout.offset(index), 1);
        }
        gpu.register(area.address(0), area.length(), 0)?;
        let refused = gpu.prefetch(layout.of(area.address(0)), 0)?;
        ensure!(refused == 0, "{refused} pages are not there");
        parent.tell();
        parent.wait();
        self.begin(number)?;
        for index in 0..layout.count {
            let offset = layout.offset(index);
            let (done, ns) = time(|| area.discard(offset..offset + PAGE));
            done?;
            self.samples
                .store((number * layout.count + index) * SAMPLE, ns);
        }
        parent.tell();
        // Its memory goes with it: not while the counts are taken.
        parent.wait();
        Ok(())
    }
}

impl Workload for Crowd<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let mode = Mode::from_raw(stage.gpu.info()?.mode).context("a mode that is not known")?;
        let mut children: Vec<Child> = Vec::new();
        for number in 0..self.options.processes {
            match Fork::now()? {
                Fork::Parent(child) => children.push(child),
                Fork::Child(parent) => {
                    // Else they would not see the parent's end.
                    children.clear();
                    if let Err(error) = self.play(number, mode, &parent) {
                        eprintln!("process {number}: {error:#}");
                    }
                    parent.exit();
                }
            }
        }
        children.iter().try_for_each(Child::wait)?;
        (0..children.len()).for_each(|number| self.samples.store(self.begun(number), 0));
        let before = stage.meter.read()?;
        children.iter().try_for_each(Child::tell)?;
        children.iter().try_for_each(Child::wait)?;
        let counts = stage.meter.since(&before)?;
        children.iter().try_for_each(Child::tell)?;
        children.into_iter().try_for_each(Child::join)?;
        let operations = self.options.processes * self.options.pages;
        let mut latency = Samples::default();
        (0..operations).for_each(|place| latency.add(self.samples.load(place * SAMPLE)));
        Ok(Round {
            counts,
            operations: operations as u64,
            latency,
            verdict: Verdict::default(),
            extra: BTreeMap::new(),
        })
    }
}
