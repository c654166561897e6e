// SPDX-License-Identifier: GPL-2.0

//! The oracle: stamps in pages, minimal generations beside them, and the device as the judge.
//!
//! When the call that took a page away has returned, the page's entry is raised: whatever the
//! device sees there from now on must be blank or have the new generation. See `soft_gpu.h`.

use crate::abi;
use crate::gpu::{Gpu, Pages};
use crate::memory::{Area, PAGE};
use anyhow::Result;
use serde::Serialize;
use std::mem::offset_of;

/// Pages at a fixed distance in an [`Area`].
#[derive(Clone, Copy)]
pub struct Layout {
    /// From one page to the next, bytes.
    pub stride: usize,
    /// How many.
    pub count: usize,
}

impl Layout {
    /// Where a page begins in its area.
    pub fn offset(&self, index: usize) -> usize {
        index * self.stride
    }

    /// As the device takes them.
    pub fn of(&self, start: u64) -> Pages {
        Pages {
            start,
            stride: self.stride as u64,
            count: self.count as u64,
        }
    }
}

/// Minimal generations, one for each page.
pub struct Table(Area);

impl Table {
    /// For so many pages; all 0.
    pub fn new(count: usize) -> Result<Self> {
        Ok(Self::on(Area::anonymous(
            (count * 8).next_multiple_of(PAGE),
            PAGE,
        )?))
    }

    /// In memory that is shared with somebody.
    pub fn on(memory: Area) -> Self {
        Self(memory)
    }

    /// For [`Gpu::judge`].
    pub fn address(&self) -> u64 {
        self.0.address(0)
    }

    /// From now on, accesses to the page that see an older one are violations.
    pub fn raise(&self, index: usize, generation: u64) {
        self.0.store(index * 8, generation);
    }

    /// Raises all of `pages`.
    pub fn raise_all(&self, pages: impl Iterator<Item = usize>, generation: u64) {
        pages.for_each(|index| self.raise(index, generation));
    }
}

/// Stamps a page that is blank. `address` is where the device sees it.
pub fn stamp(area: &Area, offset: usize, address: u64, owner: u64, generation: u64) {
    area.store(offset + offset_of!(abi::Stamp, owner), owner);
    area.store(offset + offset_of!(abi::Stamp, address), address);
    area.store(offset + offset_of!(abi::Stamp, generation), generation);
    area.store(offset + offset_of!(abi::Stamp, magic), abi::MAGIC);
}

/// Gives a page that has a stamp another generation.
pub fn renew(area: &Area, offset: usize, generation: u64) {
    area.store(offset + offset_of!(abi::Stamp, generation), generation);
}

/// Gives a page that has a stamp another owner.
pub fn disown(area: &Area, offset: usize, owner: u64) {
    area.store(offset + offset_of!(abi::Stamp, owner), owner);
}

/// Whether what the device wrote into a page, if it did, was meant for it.
pub fn mark_is_right(area: &Area, offset: usize, address: u64, owner: u64) -> bool {
    let mark = |field: usize| area.load(offset + abi::MARK + field);
    mark(offset_of!(abi::Mark, writes)) == 0
        || (mark(offset_of!(abi::Mark, address)) == address
            && mark(offset_of!(abi::Mark, owner)) == owner)
}

/// What the device saw.
#[derive(Default, Serialize)]
pub struct Verdict {
    /// Accesses, all of them.
    pub accesses: u64,
    /// Translated by a TLB.
    pub hits: u64,
    /// Walks of the page table.
    pub walks: u64,
    /// Pages faulted in for accesses.
    pub faults: u64,
    /// Marks written.
    pub writes: u64,
    /// Right stamps.
    pub stamped: u64,
    /// New pages, not yet stamped.
    pub blank: u64,
    /// Pages that the oracle knows nothing about.
    pub unjudged: u64,
    /// Pages that were not there.
    pub refused: u64,
    /// All of them.
    pub violations: u64,
    /// By kind: old, owner, address, poison, foreign.
    pub kinds: [u64; abi::KINDS],
    /// Marks that were not meant for their page.
    pub wrong_marks: u64,
}

impl Verdict {
    /// Adds what a thread of the device tells.
    pub fn add(&mut self, stop: &abi::Stop) {
        self.accesses += stop.accesses;
        self.hits += stop.hits;
        self.walks += stop.walks;
        self.faults += stop.faults;
        self.writes += stop.writes;
        self.stamped += stop.stamped;
        self.blank += stop.blank;
        self.unjudged += stop.unjudged;
        self.refused += stop.refused;
        for (sum, kind) in self.kinds.iter_mut().zip(stop.violations) {
            *sum += kind;
            self.violations += kind;
        }
    }

    /// Adds a single access.
    pub fn add_access(&mut self, access: &abi::Access) {
        self.accesses += 1;
        self.hits += u64::from(access.hit);
        self.walks += u64::from(access.hit == 0);
        self.faults += u64::from(access.faults);
        match access.outcome {
            abi::STAMPED => self.stamped += 1,
            abi::BLANK => self.blank += 1,
            abi::UNJUDGED => self.unjudged += 1,
            abi::REFUSED => self.refused += 1,
            _ => {
                self.violations += 1;
                if let Some(kind) = self.kinds.get_mut(access.kind as usize) {
                    *kind += 1;
                }
            }
        }
    }

    /// Adds another verdict.
    pub fn join(&mut self, other: &Verdict) {
        self.accesses += other.accesses;
        self.hits += other.hits;
        self.walks += other.walks;
        self.faults += other.faults;
        self.writes += other.writes;
        self.stamped += other.stamped;
        self.blank += other.blank;
        self.unjudged += other.unjudged;
        self.refused += other.refused;
        self.violations += other.violations;
        self.wrong_marks += other.wrong_marks;
        self.kinds
            .iter_mut()
            .zip(other.kinds)
            .for_each(|(sum, kind)| *sum += kind);
    }
}

/// Threads of the device; those that nobody ended end with the value.
pub struct Runs<'a> {
    gpu: &'a Gpu,
    runs: Vec<u32>,
}

impl<'a> Runs<'a> {
    /// Starts one on each of `cpus`; `accesses` 0: until they are stopped.
    pub fn start(
        gpu: &'a Gpu,
        cpus: &[u32],
        pages: Pages,
        accesses: u64,
        flags: u32,
    ) -> Result<Self> {
        let mut started = Self {
            gpu,
            runs: Vec::new(),
        };
        for &cpu in cpus {
            started.runs.push(gpu.run(cpu, pages, accesses, flags)?);
        }
        Ok(started)
    }

    /// Their numbers.
    pub fn numbers(&self) -> &[u32] {
        &self.runs
    }

    /// Ends them; with `wait` each does its accesses first.
    pub fn stop(mut self, wait: bool) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        while let Some(run) = self.runs.pop() {
            verdict.add(&self.gpu.stop(run, wait)?);
        }
        Ok(verdict)
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        for &run in &self.runs {
            // The file's closing would end it as well.
            let _ = self.gpu.stop(run, false);
        }
    }
}

/// Every page once, by the TLB of each CPU in its turn.
pub fn sweep(gpu: &Gpu, cpus: &[u32], pages: Pages, flags: u32) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for cpu in cpus {
        verdict.join(&Runs::start(gpu, &[*cpu], pages, pages.count, flags)?.stop(true)?);
    }
    Ok(verdict)
}

/// Details of violations, those that the device kept.
#[derive(Serialize)]
pub struct Detail {
    kind: u32,
    cpu: u32,
    hit: bool,
    address: u64,
    minimum: u64,
    seen_owner: u64,
    seen_address: u64,
    seen_generation: u64,
}

/// The first few violations.
pub fn details(gpu: &Gpu) -> Result<Vec<Detail>> {
    let mut details = Vec::new();
    while let Some(violation) = gpu.violation(details.len() as u32)? {
        details.push(Detail {
            kind: violation.kind,
            cpu: violation.cpu,
            hit: violation.hit != 0,
            address: violation.address,
            minimum: violation.minimum,
            seen_owner: violation.seen.owner,
            seen_address: violation.seen.address,
            seen_generation: violation.seen.generation,
        });
        if details.len() == 8 {
            break;
        }
    }
    Ok(details)
}
