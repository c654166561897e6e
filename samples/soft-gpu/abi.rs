// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! The user-space ABI of the software GPU in Rust.
//!
//! Mirrors `uapi/soft_gpu.h`, which documents every field. The kernel module and programs include
//! this file by `#[path]`, so it needs nothing but `core`, holds no `unsafe` and cannot panic.

// Each consumer uses its own part, and may keep it to itself.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A crate that speaks two ABIs has the records' foundation in each.
#![allow(clippy::duplicate_mod)]

#[path = "../../drivers/include/nullhz/record.rs"]
mod record;
pub(crate) use record::{record, Field, Unread, Unwritten};

/// `NULLHZ_SOFT_GPU_ABI_VERSION`.
pub const ABI_VERSION: u32 = 1;
/// `NULLHZ_SOFT_GPU_PAGE`, bytes.
pub const PAGE: u64 = 4096;
/// `NULLHZ_SOFT_GPU_MAX_INTERVALS`, of a file.
pub const MAX_INTERVALS: u64 = 65536;
/// `NULLHZ_SOFT_GPU_MAX_TABLES`, of a file.
pub const MAX_TABLES: u64 = 32768;
/// `NULLHZ_SOFT_GPU_MAX_PINNED`, pages, of a file.
pub const MAX_PINNED: u64 = 16384;
/// `NULLHZ_SOFT_GPU_MAX_RUNS`, of a file.
pub const MAX_RUNS: usize = 64;
/// `NULLHZ_SOFT_GPU_MAX_DETAILS`: violations that are kept with details.
pub const MAX_DETAILS: usize = 64;

/// `NULLHZ_SOFT_GPU_B0`: a notifier and a flush per interval.
pub const B0: u32 = 0;
/// `NULLHZ_SOFT_GPU_B1`: a notifier and a flush per 512 MB.
pub const B1: u32 = 1;
/// `NULLHZ_SOFT_GPU_B2`: a notifier per process, a full flush per event.
pub const B2: u32 = 2;
/// `NULLHZ_SOFT_GPU_BATCHED`: nullhz_mmu_batch.
pub const BATCHED: u32 = 3;
/// `NULLHZ_SOFT_GPU_TYPED`: as [`BATCHED`], with callbacks of its own for both passes.
pub const TYPED: u32 = 4;
/// `NULLHZ_SOFT_GPU_MODES`: how many there are.
pub const MODES: u32 = 5;

/// `NULLHZ_SOFT_GPU_F_*`: [`Info::features`].
pub mod feature {
    /// BIND, UNBIND, SUBMIT.
    pub const BIND: u32 = 0x01;
    /// FAULTS.
    pub const FAULTS: u32 = 0x02;
    /// FAULTS with a mutant: test kernels only.
    pub const MUTANTS: u32 = 0x04;
    /// The flag WRITE.
    pub const WRITE: u32 = 0x08;
    /// MODE, UNREGISTER, VIOLATION, CPU.
    pub const MORE: u32 = 0x10;
}

/// `NULLHZ_SOFT_GPU_MAGIC`: [`Stamp::magic`].
pub const MAGIC: u64 = 0x6e75_6c6c_687a_2167;
/// `NULLHZ_SOFT_GPU_MARK`: offset of a [`Mark`] in its page, bytes.
pub const MARK: usize = 64;

/// `NULLHZ_SOFT_GPU_OLD`: stamp with a generation below the minimum.
pub const OLD: u32 = 0;
/// `NULLHZ_SOFT_GPU_OWNER`: stamp of another owner.
pub const OWNER: u32 = 1;
/// `NULLHZ_SOFT_GPU_ADDRESS`: stamp of another address.
pub const ADDRESS: u32 = 2;
/// `NULLHZ_SOFT_GPU_POISON`: of a free page.
pub const POISON: u32 = 3;
/// `NULLHZ_SOFT_GPU_FOREIGN`: no stamp at all.
pub const FOREIGN: u32 = 4;
/// `NULLHZ_SOFT_GPU_KINDS`: how many kinds of violations there are.
pub const KINDS: usize = 5;

/// `NULLHZ_SOFT_GPU_WRITE`: accesses are reads and writes.
pub const WRITE: u32 = 0x01;
/// `NULLHZ_SOFT_GPU_RANDOM`: pages at random, not in turn.
pub const RANDOM: u32 = 0x02;
/// `NULLHZ_SOFT_GPU_WAIT`: not before the accesses are done.
pub const WAIT: u32 = 0x01;

/// `NULLHZ_SOFT_GPU_STAMPED`: [`Access::outcome`].
pub const STAMPED: u32 = 0;
/// `NULLHZ_SOFT_GPU_BLANK`: [`Access::outcome`].
pub const BLANK: u32 = 1;
/// `NULLHZ_SOFT_GPU_UNJUDGED`: [`Access::outcome`].
pub const UNJUDGED: u32 = 2;
/// `NULLHZ_SOFT_GPU_REFUSED`: [`Access::outcome`].
pub const REFUSED: u32 = 3;
/// `NULLHZ_SOFT_GPU_VIOLATION`: [`Access::outcome`].
pub const VIOLATION: u32 = 4;

/// `NULLHZ_SOFT_GPU_NO_MUTANT`: [`Faults::mutant`].
pub const NO_MUTANT: u32 = 0;
/// `NULLHZ_SOFT_GPU_NO_DRAIN`: flushes neither wait for nor cancel walks.
pub const NO_DRAIN: u32 = 1;

record! {
    /// `struct nullhz_soft_gpu_info`.
    Info: 48 {
        /// [`ABI_VERSION`].
        abi_version: u32,
        /// Bit n: there is mode n.
        modes: u32,
        /// [`mod@feature`].
        features: u32,
        /// Of this file.
        mode: u32,
        /// CPUs, and TLBs.
        cpus: u32,
        /// Of each TLB.
        tlb_entries: u32,
        /// Of this file.
        context: u32,
        /// 0.
        pad: u32,
        /// Its first device address.
        aperture: u64,
        /// Bytes.
        aperture_size: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_mode`.
    Mode: 8 {
        /// [`B0`] to [`TYPED`].
        mode: u32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_soft_gpu_range`.
    Range: 24 {
        /// Bytes.
        start: u64,
        /// Bytes.
        length: u64,
        /// Bytes; 0: one of the whole length.
        interval: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_pages`.
    Pages: 24 {
        /// Of the first page, bytes.
        start: u64,
        /// From one to the next, bytes.
        stride: u64,
        /// Pages.
        count: u64,
    }
}

impl Field for Pages {
    const ZERO: Self = Pages::ZERO;

    fn put(&self, out: &mut Unwritten<'_>) {
        self.to_bytes().put(out);
    }

    fn get(input: &mut Unread<'_>) -> Self {
        Self::from_bytes(&Field::get(input))
    }
}

record! {
    /// `struct nullhz_soft_gpu_prefetch`.
    Prefetch: 48 {
        /// In.
        pages: Pages,
        /// [`WRITE`].
        flags: u32,
        /// 0.
        pad: u32,
        /// Out: pages.
        filled: u64,
        /// Out: pages.
        refused: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_stamp`: what user space writes at the start of a page.
    Stamp: 32 {
        /// [`MAGIC`], written last.
        magic: u64,
        /// Of the page.
        owner: u64,
        /// Of the page.
        address: u64,
        /// May grow while the page is in use.
        generation: u64,
    }
}

impl Field for Stamp {
    const ZERO: Self = Stamp::ZERO;

    fn put(&self, out: &mut Unwritten<'_>) {
        self.to_bytes().put(out);
    }

    fn get(input: &mut Unread<'_>) -> Self {
        Self::from_bytes(&Field::get(input))
    }
}

record! {
    /// `struct nullhz_soft_gpu_mark`: what the device writes into a page, at [`MARK`].
    Mark: 32 {
        /// Of the stamp.
        owner: u64,
        /// At which the device meant to write.
        address: u64,
        /// Of the stamp.
        generation: u64,
        /// Running number of the run's write, from 1; written last.
        writes: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_oracle`.
    Oracle: 40 {
        /// That are judged.
        pages: Pages,
        /// Address of one `u64` per page.
        table: u64,
        /// Of the pages.
        owner: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_run`.
    Run: 56 {
        /// That are accessed.
        pages: Pages,
        /// 0: until it is stopped.
        accesses: u64,
        /// Of [`RANDOM`]; else the index of the first page.
        seed: u64,
        /// [`WRITE`], [`RANDOM`].
        flags: u32,
        /// Online.
        cpu: u32,
        /// Out: never 0.
        run: u32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_soft_gpu_stop`.
    Stop: 128 {
        /// In.
        run: u32,
        /// In: [`WAIT`].
        flags: u32,
        /// Hits and walks.
        accesses: u64,
        /// Translated by the TLB.
        hits: u64,
        /// Of the page table.
        walks: u64,
        /// Pages that were faulted in.
        faults: u64,
        /// Marks written.
        writes: u64,
        /// Right stamps.
        stamped: u64,
        /// Pages not yet stamped.
        blank: u64,
        /// Pages that the oracle knows nothing about.
        unjudged: u64,
        /// Not registered, not mapped, or not writable.
        refused: u64,
        /// By kind.
        violations: [u64; KINDS],
        /// From start to end.
        run_ns: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_access`.
    Access: 64 {
        /// Of a page.
        address: u64,
        /// [`WRITE`].
        flags: u32,
        /// Whose TLB.
        cpu: u32,
        /// Out: [`STAMPED`] to [`VIOLATION`].
        outcome: u32,
        /// Out: of the violation.
        kind: u32,
        /// Out: 1: translated by the TLB.
        hit: u32,
        /// Out: pages faulted in for it.
        faults: u32,
        /// Out: as seen.
        stamp: Stamp,
    }
}

record! {
    /// `struct nullhz_soft_gpu_violation`.
    Violation: 80 {
        /// In.
        index: u32,
        /// [`OLD`] to [`FOREIGN`].
        kind: u32,
        /// Whose TLB.
        cpu: u32,
        /// 1: translated by the TLB.
        hit: u32,
        /// `CLOCK_MONOTONIC`.
        mono_ns: u64,
        /// Of the page.
        address: u64,
        /// Generation, read before the access.
        minimum: u64,
        /// That the access went to.
        pfn: u64,
        /// What was there.
        seen: Stamp,
    }
}

record! {
    /// `struct nullhz_soft_gpu_bind`.
    Bind: 24 {
        /// Of the first page; UNBIND: 0.
        user: u64,
        /// In the aperture.
        device: u64,
        /// Of each buffer.
        pages: u32,
        /// Buffers.
        count: u32,
    }
}

record! {
    /// `struct nullhz_soft_gpu_counters`.
    Counters: 208 {
        /// Calls of notifiers, or zaps asked for by the library.
        events: u64,
        /// Of those, nothing was mapped there.
        elided: u64,
        /// Of those, could not sleep, and there was something.
        would_block: u64,
        /// Pages taken out of the page table.
        zapped: u64,
        /// In those calls, with their flushes; not of BATCHED and TYPED.
        event_ns: u64,
        /// In the longest of those calls.
        event_max_ns: u64,
        /// Pages faulted in.
        faults: u64,
        /// Pages that could not be.
        refused: u64,
        /// Faults begun again.
        retries: u64,
        /// Buffers unmapped.
        unbinds: u64,
        /// Registered now.
        intervals: u64,
        /// Of the kernel, registered now.
        notifiers: u64,
        /// Page tables of all levels.
        tables: u64,
        /// Of ended runs, and of ACCESS.
        accesses: u64,
        /// Those of active runs included.
        violations: u64,
        /// Each is one broadcast.
        device_flushes: u64,
        /// Of those, of everything.
        device_full: u64,
        /// In the others.
        device_spans: u64,
        /// Times that a CPU handled a broadcast.
        device_handled: u64,
        /// TLBs of offline CPUs that were flushed from elsewhere.
        device_remote: u64,
        /// Accesses in flight that a flush waited for.
        device_drained: u64,
        /// Walks in flight whose result was not cached.
        device_cancelled: u64,
        /// Flushes without acknowledgement.
        device_unanswered: u64,
        /// Resets.
        device_resets: u64,
        /// In flushes.
        device_flush_ns: u64,
        /// In the longest flush.
        device_flush_max_ns: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_cpu`.
    Cpu: 40 {
        /// In.
        cpu: u32,
        /// Entries that are.
        valid: u32,
        /// Broadcasts handled.
        handled: u64,
        /// Of those, while an access was in flight.
        interrupted: u64,
        /// Entries written.
        filled: u64,
        /// Entries invalidated by spans.
        dropped: u64,
    }
}

record! {
    /// `struct nullhz_soft_gpu_faults`.
    Faults: 24 {
        /// The next flushes, so many, are not acknowledged.
        unanswered: u32,
        /// The next resets, so many, fail.
        failed_resets: u32,
        /// Each flush takes longer.
        flush_delay_us: u32,
        /// Each walk takes longer.
        walk_delay_us: u32,
        /// [`NO_MUTANT`], [`NO_DRAIN`].
        mutant: u32,
        /// 0.
        pad: u32,
    }
}

/// `NULLHZ_SOFT_GPU_IOC_*` as `_IOC()` of `<asm-generic/ioctl.h>` encodes them.
pub mod ioc {
    use super::{
        Access, Bind, Counters, Cpu, Faults, Info, Mode, Oracle, Prefetch, Range, Run, Stop,
        Violation,
    };

    /// `NULLHZ_SOFT_GPU_IOC_MAGIC`.
    pub const MAGIC: u32 = 0xF4;

    const WRITE: u32 = 1;
    const READ: u32 = 2;

    const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
        (dir << 30) | ((size as u32) << 16) | (MAGIC << 8) | nr
    }

    /// Reads an [`Info`].
    pub const INFO: u32 = ioc(READ, 0, Info::SIZE);
    /// Writes a [`Mode`].
    pub const MODE: u32 = ioc(WRITE, 1, Mode::SIZE);
    /// Writes a [`Range`].
    pub const REGISTER: u32 = ioc(WRITE, 2, Range::SIZE);
    /// Writes a [`Range`].
    pub const UNREGISTER: u32 = ioc(WRITE, 3, Range::SIZE);
    /// Writes and reads a [`Prefetch`].
    pub const PREFETCH: u32 = ioc(READ | WRITE, 4, Prefetch::SIZE);
    /// Writes an [`Oracle`].
    pub const ORACLE: u32 = ioc(WRITE, 5, Oracle::SIZE);
    /// Writes and reads a [`Run`].
    pub const RUN: u32 = ioc(READ | WRITE, 6, Run::SIZE);
    /// Writes and reads a [`Stop`].
    pub const STOP: u32 = ioc(READ | WRITE, 7, Stop::SIZE);
    /// Writes and reads an [`Access`].
    pub const ACCESS: u32 = ioc(READ | WRITE, 8, Access::SIZE);
    /// Writes the index of, and reads, a [`Violation`].
    pub const VIOLATION: u32 = ioc(READ | WRITE, 9, Violation::SIZE);
    /// Writes a [`Bind`].
    pub const BIND: u32 = ioc(WRITE, 10, Bind::SIZE);
    /// Writes a [`Bind`].
    pub const UNBIND: u32 = ioc(WRITE, 11, Bind::SIZE);
    /// Pending unmaps are done when the call returns.
    pub const SUBMIT: u32 = ioc(0, 12, 0);
    /// Reads [`Counters`].
    pub const COUNTERS: u32 = ioc(READ, 13, Counters::SIZE);
    /// Writes the number of, and reads, a [`Cpu`].
    pub const CPU: u32 = ioc(READ | WRITE, 14, Cpu::SIZE);
    /// Writes [`Faults`].
    pub const FAULTS: u32 = ioc(WRITE, 15, Faults::SIZE);
}
