// SPDX-License-Identifier: GPL-2.0

//! The drivers' atomics on the host.

use std::sync::atomic::{AtomicU64 as Std, Ordering};

pub(crate) struct AtomicU64(Std);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        AtomicU64(Std::new(value))
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn load_acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn store_release(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    pub(crate) fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
            .map(drop)
    }
}
