// SPDX-License-Identifier: GPL-2.0

//! W2: threads that give their buffers back and fill them anew, as data loaders do.

use super::{Round, Stage, Workload};
use crate::abi::{self, Pages};
use crate::latency::Samples;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Runs, Table, Verdict};
use anyhow::{Context, Result};
use rustix::thread::{sched_setaffinity, CpuSet};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// For a page to be faulted in.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many, and how much.
#[derive(clap::Args)]
pub struct Options {
    /// Threads
    #[arg(long, default_value_t = 16)]
    threads: usize,
    /// Pages of each thread's buffer
    #[arg(long, default_value_t = 16)]
    pages: usize,
    /// How often each thread gives its buffer back
    #[arg(long, default_value_t = 100)]
    operations: usize,
    /// Pages that come back by the device's faults alone: no prefetch
    #[arg(long)]
    lazy: bool,
    /// Give each buffer back by two threads at the same time
    #[arg(long)]
    twins: bool,
    /// Give each page back by a call of its own, one right after the other
    #[arg(long, conflicts_with = "twins")]
    each: bool,
}

/// The buffers, side by side, an interval each.
pub struct Churn<'o> {
    options: &'o Options,
    area: Area,
    layout: Layout,
    table: Table,
    generation: u64,
}

impl<'o> Churn<'o> {
    /// Maps and registers them.
    pub fn new(stage: &Stage<'_>, options: &'o Options) -> Result<Self> {
        let layout = Layout {
            stride: PAGE,
            count: options.threads * options.pages,
        };
        let area = Area::anonymous(layout.stride * layout.count, PAGE)?;
        let table = Table::new(layout.count)?;
        stage
            .gpu
            .register(area.address(0), area.length(), options.pages * PAGE)
            .context("register")?;
        stage
            .gpu
            .judge(layout.of(area.address(0)), table.address(), stage.owner)
            .context("oracle")?;
        Ok(Self {
            options,
            area,
            layout,
            table,
            generation: 0,
        })
    }

    /// What one thread does.
    fn thread(
        &self,
        stage: &Stage<'_>,
        slice: Range<usize>,
        cpus: usize,
    ) -> Result<(Samples, Verdict)> {
        let mut latency = Samples::default();
        let mut verdict = Verdict::default();
        let mine = Layout {
            stride: PAGE,
            count: slice.len(),
        };
        let pages = mine.of(self.area.address(self.layout.offset(slice.start)));
        let bytes = self.layout.offset(slice.start)..self.layout.offset(slice.end);
        for round in 1..=self.options.operations as u64 {
            for index in slice.clone() {
                let offset = self.layout.offset(index);
                let address = self.area.address(offset);
                oracle::stamp(
                    &self.area,
                    offset,
                    address,
                    stage.owner,
                    self.generation + round,
                );
            }
            if !self.options.lazy {
                fill(stage, pages)?;
            }
            for index in slice.clone() {
                let offset = self.layout.offset(index);
                let right = oracle::mark_is_right(
                    &self.area,
                    offset,
                    self.area.address(offset),
                    stage.owner,
                );
                verdict.wrong_marks += u64::from(!right);
            }
            let give_back = || {
                let done = self.area.discard(bytes.clone());
                // To each caller the memory is gone when its own call returns.
                self.table
                    .raise_all(slice.clone(), self.generation + round + 1);
                done
            };
            if self.options.twins {
                std::thread::scope(|scope| {
                    let twin = scope.spawn(|| {
                        pin(slice.start / self.options.pages + 1, cpus)?;
                        give_back()
                    });
                    latency.time(give_back)?;
                    twin.join().expect("a thread panicked")
                })?;
            } else if self.options.each {
                for index in slice.clone() {
                    let offset = self.layout.offset(index);
                    latency.time(|| self.area.discard(offset..offset + PAGE))?;
                    self.table.raise(index, self.generation + round + 1);
                }
            } else {
                latency.time(give_back)?;
            }
        }
        Ok((latency, verdict))
    }
}

/// Has the device map them. It gives a fault up when others' events keep coming, which all threads
/// share where there are few notifiers.
fn fill(stage: &Stage<'_>, pages: Pages) -> Result<()> {
    let begun = Instant::now();
    loop {
        let refused = stage.gpu.prefetch(pages, stage.flags)?;
        if refused == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "{refused} pages are not there after {PATIENCE:?}"
        );
    }
}

/// Puts a thread on a CPU of its own, as long as there are enough.
fn pin(thread: usize, cpus: usize) -> rustix::io::Result<()> {
    let mut cpu = CpuSet::new();
    cpu.set(thread % cpus);
    sched_setaffinity(None, &cpu)
}

impl Workload for Churn<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let all = self.layout.of(self.area.address(0));
        let Options {
            threads,
            pages,
            operations,
            ..
        } = *self.options;
        let cpus = stage.gpu.info()?.cpus as usize;
        // So that all begin, and all have ended, when the counters are read.
        let (start, end) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
        let runs = Runs::start(stage.gpu, &stage.cpus, all, 0, stage.flags | abi::RANDOM)?;
        let mut latency = Samples::default();
        let (counts, verdicts) = std::thread::scope(|scope| -> Result<_> {
            let mut running = Vec::new();
            for thread in 0..threads {
                let (this, start, end) = (&*self, &start, &end);
                running.push(scope.spawn(move || {
                    let pinned = pin(thread, cpus);
                    start.wait();
                    let done = this.thread(stage, thread * pages..(thread + 1) * pages, cpus);
                    end.wait();
                    // The memory of a thread goes with it: not while it is counted.
                    end.wait();
                    pinned?;
                    done
                }));
            }
            let before = stage.meter.read();
            start.wait();
            end.wait();
            let counts = before.and_then(|before| stage.meter.since(&before));
            end.wait();
            let mut verdicts = Verdict::default();
            for thread in running {
                let (samples, verdict) = thread.join().expect("a thread panicked")?;
                latency.join(samples);
                verdicts.join(&verdict);
            }
            Ok((counts?, verdicts))
        })?;
        let calls = if self.options.each { pages } else { 1 };
        self.generation += operations as u64 + 1;
        let mut verdict = runs.stop(false)?;
        verdict.join(&verdicts);
        verdict.join(&oracle::sweep(stage.gpu, &stage.cpus, all, stage.flags)?);
        Ok(Round {
            counts,
            operations: (threads * operations * calls) as u64,
            latency,
            verdict,
            extra: BTreeMap::new(),
        })
    }
}
