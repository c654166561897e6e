// SPDX-License-Identifier: GPL-2.0

//! W5: fork() and copy on write: the device must follow the parent to its copies.

use super::{Round, Stage, Workload};
use crate::abi;
use crate::latency::Samples;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Runs, Table};
use crate::process::{Child, Fork};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// How much, how often.
#[derive(clap::Args)]
pub struct Options {
    /// Pages that are copied
    #[arg(long, default_value_t = 128)]
    pages: usize,
    /// Children, one after the other
    #[arg(long, default_value_t = 10)]
    operations: usize,
}

/// The pages.
pub struct Forks<'o> {
    options: &'o Options,
    area: Area,
    layout: Layout,
    table: Table,
    generation: u64,
}

impl<'o> Forks<'o> {
    /// Maps, stamps and registers them.
    pub fn new(stage: &Stage<'_>, options: &'o Options) -> Result<Self> {
        let layout = Layout {
            stride: PAGE,
            count: options.pages,
        };
        let area = Area::anonymous(layout.stride * layout.count, PAGE)?;
        let table = Table::new(layout.count)?;
        stage
            .gpu
            .register(area.address(0), area.length(), 16 * PAGE)
            .context("register")?;
        stage
            .gpu
            .judge(layout.of(area.address(0)), table.address(), stage.owner)
            .context("oracle")?;
        for index in 0..layout.count {
            let offset = layout.offset(index);
            oracle::stamp(&area, offset, area.address(offset), stage.owner, 0);
        }
        Ok(Self {
            options,
            area,
            layout,
            table,
            generation: 0,
        })
    }

    fn offsets(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.layout.count).map(|index| self.layout.offset(index))
    }

    /// In the child: makes the pages that it has, which were the parent's, somebody else's.
    fn take_over(&self, owner: u64) {
        self.offsets()
            .for_each(|offset| oracle::disown(&self.area, offset, owner));
    }
}

impl Workload for Forks<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let pages = self.layout.of(self.area.address(0));
        let mut latency = Samples::default();
        let runs = Runs::start(stage.gpu, &stage.cpus, pages, 0, stage.flags | abi::RANDOM)?;
        let mut wrong_marks = 0;
        let before = stage.meter.read()?;
        for _ in 0..self.options.operations {
            stage.gpu.prefetch(pages, stage.flags)?;
            let child: Child = match latency.time(Fork::now)? {
                Fork::Parent(child) => child,
                Fork::Child(parent) => {
                    // When the parent has its copies, these pages are the child's alone.
                    parent.wait();
                    self.take_over(!stage.owner);
                    parent.tell();
                    parent.wait();
                    parent.exit();
                }
            };
            self.generation += 1;
            for index in 0..self.layout.count {
                oracle::renew(&self.area, self.layout.offset(index), self.generation);
                self.table.raise(index, self.generation);
            }
            child.tell()?;
            child.wait()?;
            // The former pages say that they are somebody else's now.
            for &cpu in &stage.cpus {
                stage.gpu.access(pages.start, cpu, stage.flags)?;
            }
            for offset in self.offsets() {
                let right = oracle::mark_is_right(
                    &self.area,
                    offset,
                    self.area.address(offset),
                    stage.owner,
                );
                wrong_marks += u64::from(!right);
            }
            child.tell()?;
            child.join()?;
        }
        let counts = stage.meter.since(&before)?;
        let mut verdict = runs.stop(false)?;
        verdict.join(&oracle::sweep(stage.gpu, &stage.cpus, pages, stage.flags)?);
        verdict.wrong_marks += wrong_marks;
        Ok(Round {
            counts,
            operations: self.options.operations as u64,
            latency,
            verdict,
            extra: BTreeMap::new(),
        })
    }
}
