// SPDX-License-Identifier: GPL-2.0

//! The types of `drivers/include/nullhz/mmu_batch.rs` over a library that is a few lines: what
//! drivers may do with them, and what they cannot.

#![forbid(unsafe_code)]

use mmu_batch::{Lease, Live, Pages};
use std::collections::BTreeSet;
use std::ops::Range;

#[path = "library.rs"]
pub mod mmu_batch;

/// A driver's page table: the addresses that are mapped.
#[derive(Default)]
pub struct Table(pub BTreeSet<u64>);

impl Table {
    /// Removes what is mapped in `range`.
    pub fn clear(&mut self, range: Range<u64>) -> Live {
        let live = self.any(range.clone());
        self.0.retain(|address| !range.contains(address));
        live
    }

    /// Whether anything is mapped in `range`.
    pub fn any(&self, range: Range<u64>) -> Live {
        Live::when(self.0.range(range).next().is_some())
    }
}

/// Pages that are pinned.
pub struct PinnedPages(pub u64);

impl Pages for PinnedPages {
    fn count(&self) -> u64 {
        self.0
    }
}

/// Addresses that are taken.
pub struct VaLease(pub Range<u64>);

impl Lease for VaLease {
    fn range(&self) -> Range<u64> {
        self.0.clone()
    }
}
