// SPDX-License-Identifier: GPL-2.0

//! The atomics that [`slots`](super::slots) works with, from the kernel's memory model.

use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};

/// A 64-bit integer.
pub(crate) struct AtomicU64(Atomic<u64>);

impl AtomicU64 {
    /// Starts as `value`.
    pub(crate) const fn new(value: u64) -> Self {
        AtomicU64(Atomic::new(value))
    }

    /// Reads without ordering.
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Reads before whatever follows.
    pub(crate) fn load_acquire(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Writes without ordering.
    pub(crate) fn store(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Writes after whatever came before.
    pub(crate) fn store_release(&self, value: u64) {
        self.0.store(value, Release);
    }

    /// Writes `new` where `old` is, fully ordered; else tells what is there.
    pub(crate) fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.cmpxchg(old, new, Full).map(drop)
    }
}
