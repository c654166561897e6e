// SPDX-License-Identifier: GPL-2.0

//! W4: the kernel takes pages by itself: reclaim by the process or its control group,
//! migration to another NUMA node or to another frame.
//!
//! The content comes back, from the file or by the copy: so a page gets its new generation
//! before its entry is raised.

use super::{Round, Stage, Workload};
use crate::abi;
use crate::latency::Samples;
use crate::memory::{Area, PAGE};
use crate::oracle::{self, Layout, Runs, Table};
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

/// How pages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// MADV_PAGEOUT of a file's pages
    Pageout,
    /// memory.reclaim of the control group, of a file's pages
    Memcg,
    /// move_pages() to and fro between the NUMA nodes 0 and 1
    Migrate,
    /// MADV_SOFT_OFFLINE, page by page: each moves to another frame
    Offline,
}

/// How much, how often.
#[derive(clap::Args)]
pub struct Options {
    /// How pages are taken
    #[arg(long, value_enum, default_value = "pageout")]
    by: Way,
    /// The file whose pages are reclaimed; there is no swap for others
    #[arg(long, default_value = "/checkpoint/nullhz-soft-gpu")]
    file: PathBuf,
    /// The control group that reclaims; this process goes there
    #[arg(long, default_value = "/sys/fs/cgroup")]
    cgroup: PathBuf,
    /// Pages
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// How often they are taken
    #[arg(long, default_value_t = 20)]
    operations: usize,
}

/// The pages.
pub struct Reclaim<'o> {
    options: &'o Options,
    /// None: anonymous memory.
    file: Option<File>,
    area: Area,
    layout: Layout,
    table: Table,
    generation: u64,
    node: i32,
}

impl<'o> Reclaim<'o> {
    /// Maps, stamps and registers them.
    pub fn new(stage: &Stage<'_>, options: &'o Options) -> Result<Self> {
        if options.by == Way::Memcg {
            let join = std::fs::write(options.cgroup.join("cgroup.procs"), "0");
            join.context(options.cgroup.display().to_string())?;
        }
        let layout = Layout {
            stride: PAGE,
            count: options.pages,
        };
        let length = layout.stride * layout.count;
        let file = match options.by {
            Way::Pageout | Way::Memcg => {
                let mut open = File::options();
                open.read(true).write(true).create(true).truncate(true);
                let file = open
                    .open(&options.file)
                    .context(options.file.display().to_string())?;
                file.set_len(length as u64)?;
                Some(file)
            }
            Way::Migrate | Way::Offline => None,
        };
        let area = match &file {
            Some(file) => Area::file(file, length)?,
            None => Area::anonymous(length, PAGE)?,
        };
        let table = Table::new(layout.count)?;
        stage
            .gpu
            .register(area.address(0), length, 16 * PAGE)
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
            file,
            area,
            layout,
            table,
            generation: 0,
            node: 0,
        })
    }

    /// Has them taken.
    fn take(&mut self) -> Result<()> {
        match self.options.by {
            Way::Pageout => self.area.page_out(self.area.all())?,
            Way::Memcg => {
                // As far as it goes: it fails when less could be reclaimed.
                let _ = std::fs::write(
                    self.options.cgroup.join("memory.reclaim"),
                    self.area.length().to_string(),
                );
            }
            Way::Migrate => {
                self.node ^= 1;
                let offsets: Vec<_> = (0..self.layout.count)
                    .map(|at| self.layout.offset(at))
                    .collect();
                self.area.migrate(&offsets, self.node)?;
            }
            Way::Offline => {
                for index in 0..self.layout.count {
                    let offset = self.layout.offset(index);
                    match self.area.take_offline(offset..offset + PAGE) {
                        // Somebody has it in his hands just now: it stays where it is.
                        Ok(()) | Err(Errno::BUSY) => {}
                        Err(error) => return Err(error).context("MADV_SOFT_OFFLINE"),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Workload for Reclaim<'_> {
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round> {
        let pages = self.layout.of(self.area.address(0));
        let mut latency = Samples::default();
        let runs = Runs::start(stage.gpu, &stage.cpus, pages, 0, stage.flags | abi::RANDOM)?;
        let mut wrong_marks = 0;
        let before = stage.meter.read()?;
        for _ in 0..self.options.operations {
            if let Some(file) = &self.file {
                // Only clean pages are reclaimed at once.
                file.sync_data()?;
            }
            stage.gpu.prefetch(pages, 0)?;
            latency.time(|| self.take())?;
            self.generation += 1;
            for index in 0..self.layout.count {
                let offset = self.layout.offset(index);
                oracle::renew(&self.area, offset, self.generation);
                self.table.raise(index, self.generation);
                let right = oracle::mark_is_right(
                    &self.area,
                    offset,
                    self.area.address(offset),
                    stage.owner,
                );
                wrong_marks += u64::from(!right);
            }
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
