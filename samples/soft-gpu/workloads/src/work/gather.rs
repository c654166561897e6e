// SPDX-License-Identifier: GPL-2.0

//! Buffers that the driver itself unmaps: what the timed gather is for.

use super::{Round, Stage, Workload};
use crate::latency::Samples;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Table};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How many, how often.
#[derive(clap::Args)]
pub struct Options {
    /// Buffers, each of which is unmapped by itself
    #[arg(long, default_value_t = 1024)]
    buffers: usize,
    /// Of those, how many by one call
    #[arg(long, default_value_t = 128)]
    together: usize,
    /// Pages of a buffer
    #[arg(long, default_value_t = 1)]
    pages: usize,
}

/// The buffers.
pub struct Gather<'o> {
    options: &'o Options,
    area: Area,
    layout: Layout,
    table: Table,
    generation: u64,
    device: u64,
}

impl<'o> Gather<'o> {
    /// Allocates their memory.
    pub fn new(stage: &Stage<'_>, options: &'o Options) -> Result<Self> {
        let layout = Layout {
            stride: PAGE,
            count: options.buffers * options.pages,
        };
        let area = Area::anonymous(layout.stride * layout.count, PAGE)?;
        let table = Table::new(layout.count)?;
        let device = stage.gpu.info()?.aperture;
        stage
            .gpu
            .judge(layout.of(device), table.address(), stage.owner)
            .context("oracle")?;
        Ok(Self {
            options,
            area,
            layout,
            table,
            generation: 1,
            device,
        })
    }
}

impl Workload for Gather<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let pages = self.layout.of(self.device);
        let Options {
            buffers,
            together,
            pages: each,
        } = *self.options;
        for index in 0..self.layout.count {
            let offset = self.layout.offset(index);
            let address = self.device + offset as u64;
            oracle::stamp(&self.area, offset, address, stage.owner, self.generation);
        }
        let user = self.area.address(0);
        stage
            .gpu
            .bind(user, self.device, each as u32, buffers as u32)
            .context("bind")?;
        let mut verdict = oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?;

        let mut latency = Samples::default();
        let before = stage.meter.read()?;
        for first in (0..buffers).step_by(together) {
            let count = together.min(buffers - first) as u32;
            let device = self.device + self.layout.offset(first * each) as u64;
            latency
                .time(|| stage.gpu.unbind(device, each as u32, count))
                .context("unbind")?;
        }
        stage.gpu.submit().context("submit")?;
        let counts = stage.meter.since(&before)?;

        for index in 0..self.layout.count {
            let offset = self.layout.offset(index);
            let address = self.device + offset as u64;
            let right = oracle::mark_is_right(&self.area, offset, address, stage.owner);
            verdict.wrong_marks += u64::from(!right);
        }
        self.generation += 1;
        self.table.raise_all(0..self.layout.count, self.generation);
        // The pages may go now; so nothing of the device may lead to them.
        self.area.discard(self.area.all())?;
        verdict.join(&oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?);
        Ok(Round {
            counts,
            operations: buffers as u64,
            latency,
            verdict,
            extra: BTreeMap::new(),
        })
    }
}
