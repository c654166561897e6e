// SPDX-License-Identifier: GPL-2.0

//! The device's accesses to memory (helpers.c), and the only `unsafe` code of this folder.

use crate::abi::{Mark, Stamp};
use crate::table::Pte;
use crate::tlb::Access;

extern "C" {
    fn nullhz_soft_gpu_read(pfn: usize, stamp: &mut [u64; 4]) -> bool;
    fn nullhz_soft_gpu_write(pfn: usize, mark: &[u64; 4]);
    fn nullhz_soft_gpu_mark_dirty(pfn: usize);
    fn nullhz_soft_gpu_monotonic_ns() -> u64;
}

/// What is at the start of a page; [`None`] if that is no memory.
///
/// Any context. The page may belong to anybody: that is what an access of a device without a
/// correct driver does, and what the oracle is there to see.
pub(crate) fn read(_access: &Access<'_>, pte: Pte) -> Option<Stamp> {
    let mut words = [0; 4];
    // SAFETY: The function reads any memory, or nothing, and writes to `words`.
    let read = unsafe { nullhz_soft_gpu_read(pte.pfn(), &mut words) };
    let [magic, owner, address, generation] = words;
    read.then_some(Stamp {
        magic,
        owner,
        address,
        generation,
    })
}

/// Writes a mark into a page.
///
/// # Safety
///
/// `pte` is what `access` has found for its page, as writable; nothing makes flushes go without
/// waiting for accesses.
pub(crate) unsafe fn write(_access: &Access<'_>, pte: Pte, mark: &Mark) {
    let words = [mark.owner, mark.address, mark.generation, mark.writes];
    // SAFETY: The page table had the page as a writable one of user space at some time since the
    // access began, or the TLB had it and no flush was acknowledged since. The memory management
    // takes a page back only after a notifier, or the driver after an unmap, has removed it there
    // and a flush was acknowledged, and no flush is acknowledged while the access is in flight.
    unsafe { nullhz_soft_gpu_write(pte.pfn(), &words) };
}

/// Tells the memory management that the device may write to a page.
///
/// # Safety
///
/// The page is mapped by user space, and stays so during the call.
pub(crate) unsafe fn mark_dirty(pte: Pte) {
    // SAFETY: Somebody holds the page, as demanded.
    unsafe { nullhz_soft_gpu_mark_dirty(pte.pfn()) };
}

/// `CLOCK_MONOTONIC`, ns. Any context but NMI.
pub(crate) fn monotonic_ns() -> u64 {
    // SAFETY: Only called in process context; has no other conditions.
    unsafe { nullhz_soft_gpu_monotonic_ns() }
}
