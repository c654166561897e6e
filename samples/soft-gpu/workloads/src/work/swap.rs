// SPDX-License-Identifier: GPL-2.0

//! W3: one model goes, another one comes to the same addresses, and the device reads at once.

use super::{Round, Stage, Workload};
use crate::abi;
use crate::latency::Samples;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Runs, Table};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How large, how often.
#[derive(clap::Args)]
pub struct Options {
    /// Pages of a model
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// Intervals that mirror it
    #[arg(long, default_value_t = 16)]
    intervals: usize,
    /// How often it is swapped
    #[arg(long, default_value_t = 20)]
    operations: usize,
}

/// A model that is loaded.
pub struct Swap<'o> {
    options: &'o Options,
    area: Option<Area>,
    layout: Layout,
    table: Table,
    generation: u64,
}

impl<'o> Swap<'o> {
    /// Maps and registers its memory.
    pub fn new(stage: &Stage<'_>, options: &'o Options) -> Result<Self> {
        let interval = options.pages.div_ceil(options.intervals) * PAGE;
        let layout = Layout {
            stride: PAGE,
            count: options.pages,
        };
        let area = Area::anonymous(layout.stride * layout.count, 2 << 20)?;
        let table = Table::new(layout.count)?;
        stage
            .gpu
            .register(area.address(0), area.length(), interval)
            .context("register")?;
        stage
            .gpu
            .judge(layout.of(area.address(0)), table.address(), stage.owner)
            .context("oracle")?;
        let this = Self {
            options,
            area: None,
            layout,
            table,
            generation: 1,
        };
        this.load(&area, stage);
        Ok(Self {
            area: Some(area),
            ..this
        })
    }

    /// Fills the memory with the model of this generation.
    fn load(&self, area: &Area, stage: &Stage<'_>) {
        for index in 0..self.layout.count {
            let offset = self.layout.offset(index);
            oracle::stamp(
                area,
                offset,
                area.address(offset),
                stage.owner,
                self.generation,
            );
        }
    }
}

impl Workload for Swap<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let mut area = self
            .area
            .take()
            .context("the model could not be mapped again")?;
        let pages = self.layout.of(area.address(0));
        let mut latency = Samples::default();
        let runs = Runs::start(stage.gpu, &stage.cpus, pages, 0, stage.flags | abi::RANDOM)?;
        let mut wrong_marks = 0;
        let mut at_once = oracle::Verdict::default();
        let before = stage.meter.read()?;
        for operation in 0..self.options.operations {
            stage.gpu.prefetch(pages, stage.flags)?;
            for index in 0..self.layout.count {
                let offset = self.layout.offset(index);
                let right = oracle::mark_is_right(&area, offset, area.address(offset), stage.owner);
                wrong_marks += u64::from(!right);
            }
            // The two ways in which programs do it.
            if operation % 2 == 0 {
                area = latency.time(|| area.unmap())?.map()?;
            } else {
                latency.time(|| area.replace())?;
            }
            self.generation += 1;
            self.table.raise_all(0..self.layout.count, self.generation);
            // Whatever was not loaded yet may be blank, but nothing else.
            for &cpu in &stage.cpus {
                at_once.add_access(&stage.gpu.access(pages.start, cpu, stage.flags)?);
            }
            self.load(&area, stage);
            for (index, &cpu) in stage.cpus.iter().enumerate() {
                let address = area.address(self.layout.offset(index % self.layout.count));
                at_once.add_access(&stage.gpu.access(address, cpu, stage.flags)?);
            }
        }
        let counts = stage.meter.since(&before)?;
        let mut verdict = runs.stop(false)?;
        verdict.join(&at_once);
        verdict.join(&oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?);
        verdict.wrong_marks += wrong_marks;
        self.area = Some(area);
        Ok(Round {
            counts,
            operations: self.options.operations as u64,
            latency,
            verdict,
            extra: BTreeMap::new(),
        })
    }
}
