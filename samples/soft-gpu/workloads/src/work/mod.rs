// SPDX-License-Identifier: GPL-2.0

//! The workloads: each takes memory away in its own way, again and again.

pub mod churn;
pub mod crowd;
pub mod fork;
pub mod gather;
pub mod munmap;
pub mod reclaim;
pub mod swap;
pub mod victim;

use crate::gpu::Gpu;
use crate::latency::Samples;
use crate::measure::{Counts, Meter};
use crate::oracle::Verdict;
use anyhow::Result;
use std::collections::BTreeMap;

/// Where a workload runs.
pub struct Stage<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Whose counts are taken.
    pub meter: Meter<'a>,
    /// Where the device has threads.
    pub cpus: Vec<u32>,
    /// Of their accesses.
    pub flags: u32,
    /// Of the stamps.
    pub owner: u64,
}

/// What came of one round in one mode.
pub struct Round {
    /// By the counters, of the part that takes memory away.
    pub counts: Counts,
    /// Calls that take memory away.
    pub operations: u64,
    /// How long each of them took.
    pub latency: Samples,
    /// What the device saw.
    pub verdict: Verdict,
    /// What only this workload has to tell.
    pub extra: BTreeMap<&'static str, u64>,
}

/// A workload that is set up.
pub trait Workload {
    /// Runs it once; the mode is chosen, and no thread of the device runs.
    fn round(&mut self, stage: &Stage<'_>) -> Result<Round>;
}
