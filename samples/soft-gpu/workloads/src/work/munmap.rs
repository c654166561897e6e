// SPDX-License-Identifier: GPL-2.0

//! W1: one munmap() of a large range in many intervals, of which one page each is used.

use super::{Round, Stage, Workload};
use crate::abi;
use crate::latency::Samples;
use crate::memory::Area;
use crate::oracle::{self, Layout, Runs, Table};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Notifiers of B1 begin at multiples of this.
const ALIGNMENT: usize = 512 << 20;

/// Size of the range.
#[derive(clap::Args)]
pub struct Options {
    /// Intervals
    #[arg(long, default_value_t = 20_480)]
    intervals: usize,
    /// Size of an interval, KiB
    #[arg(long, default_value_t = 2048)]
    interval_kib: usize,
    /// Size of what a notifier watches in B0 and BATCHED, KiB; default: an interval
    #[arg(long)]
    notifier_kib: Option<usize>,
    /// Let the device run while the memory goes, not just before and after
    #[arg(long)]
    meanwhile: bool,
    /// Without the device: what the kernel's own part takes
    #[arg(long)]
    bare: bool,
}

/// The range, mapped.
pub struct Munmap {
    area: Option<Area>,
    layout: Layout,
    table: Table,
    generation: u64,
    meanwhile: bool,
    bare: bool,
}

impl Munmap {
    /// Maps and registers it.
    pub fn new(stage: &Stage<'_>, options: &Options) -> Result<Self> {
        let layout = Layout {
            stride: options.interval_kib << 10,
            count: options.intervals,
        };
        let area = Area::anonymous(layout.stride * layout.count, ALIGNMENT)?;
        let table = Table::new(layout.count)?;
        if !options.bare {
            let start = area.address(0);
            let watched = options.notifier_kib.map_or(layout.stride, |kib| kib << 10);
            let registered = stage.gpu.register(start, area.length(), watched);
            registered.context("register")?;
            let judged = stage
                .gpu
                .judge(layout.of(start), table.address(), stage.owner);
            judged.context("oracle")?;
        }
        Ok(Self {
            area: Some(area),
            layout,
            table,
            generation: 1,
            meanwhile: options.meanwhile,
            bare: options.bare,
        })
    }
}

impl Workload for Munmap {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let area = self
            .area
            .take()
            .context("the range could not be mapped again")?;
        let pages = self.layout.of(area.address(0));
        for index in 0..self.layout.count {
            let offset = self.layout.offset(index);
            oracle::stamp(
                &area,
                offset,
                area.address(offset),
                stage.owner,
                self.generation,
            );
        }
        if !self.bare {
            let refused = stage.gpu.prefetch(pages, stage.flags).context("prefetch")?;
            anyhow::ensure!(refused == 0, "{refused} pages are not there");
        }
        // What the TLBs have of it now must not be there afterwards.
        let mut verdict = oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?;
        let runs = if self.meanwhile { &stage.cpus[..] } else { &[] };
        let runs = Runs::start(stage.gpu, runs, pages, 0, stage.flags | abi::RANDOM)?;

        let mut latency = Samples::default();
        let before = stage.meter.read()?;
        let hole = latency.time(|| area.unmap())?;
        let counts = stage.meter.since(&before)?;

        self.generation += 1;
        self.table.raise_all(0..self.layout.count, self.generation);
        verdict.join(&runs.stop(false)?);
        verdict.join(&oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?);
        self.area = Some(hole.map()?);
        Ok(Round {
            counts,
            operations: 1,
            latency,
            verdict,
            extra: BTreeMap::new(),
        })
    }
}
