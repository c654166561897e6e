// SPDX-License-Identifier: GPL-2.0

//! The software GPU: its ioctls, and threads of it that access memory.

#![allow(unsafe_code)]

use crate::abi::{self, ioc};
use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::io::{self, Errno};
use rustix::ioctl::{ioctl, Getter, NoArg, Setter, Updater};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub use abi::Pages;

/// How invalidations reach the device's TLBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A notifier and a flush per interval.
    B0 = abi::B0 as isize,
    /// A notifier and a flush per 512 MB, as Xe does.
    B1 = abi::B1 as isize,
    /// A notifier per process, a full flush per event.
    B2 = abi::B2 as isize,
    /// Through nullhz_mmu_batch.
    Batched = abi::BATCHED as isize,
    /// The same with callbacks of its own for both passes.
    Typed = abi::TYPED as isize,
}

impl Mode {
    /// Those that are compared.
    pub const COMPARED: [Self; 4] = [Self::B0, Self::B1, Self::B2, Self::Batched];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::B0 => "b0",
            Self::B1 => "b1",
            Self::B2 => "b2",
            Self::Batched => "batched",
            Self::Typed => "typed",
        }
    }

    /// The mode that a number of the ABI stands for.
    pub fn from_raw(raw: u32) -> Option<Self> {
        let mut modes = Self::value_variants().iter().copied();
        modes.find(|&mode| mode as u32 == raw)
    }
}

/// An open file of the device: it mirrors this process.
pub struct Gpu(OwnedFd);

impl Gpu {
    /// Opens the device.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        let gpu = Self(file.with_context(|| path.display().to_string())?.into());
        let info = gpu.info()?;
        anyhow::ensure!(
            info.abi_version == abi::ABI_VERSION,
            "ABI version {}",
            info.abi_version
        );
        Ok(gpu)
    }

    /// A file that another process opened: only what it may be asked.
    pub fn of(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Its descriptor.
    pub fn file(&self) -> &OwnedFd {
        &self.0
    }

    /// What the device is.
    pub fn info(&self) -> io::Result<abi::Info> {
        // SAFETY: It writes one `struct nullhz_soft_gpu_info`.
        unsafe { ioctl(self.0.as_fd(), Getter::<{ ioc::INFO }, abi::Info>::new()) }
    }

    /// Chooses the mode; nothing runs.
    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        let mode = abi::Mode {
            mode: mode as u32,
            ..abi::Mode::ZERO
        };
        // SAFETY: It reads one `struct nullhz_soft_gpu_mode`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::MODE }, _>::new(mode)) }
    }

    /// Mirrors a range in intervals of so many bytes; 0: in one.
    pub fn register(&self, start: u64, length: usize, interval: usize) -> io::Result<()> {
        let range = abi::Range {
            start,
            length: length as u64,
            interval: interval as u64,
        };
        // SAFETY: It reads one `struct nullhz_soft_gpu_range`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::REGISTER }, _>::new(range)) }
    }

    /// Fills the page table; returns how many pages could not be accessed.
    pub fn prefetch(&self, pages: Pages, flags: u32) -> io::Result<u64> {
        let mut prefetch = abi::Prefetch {
            pages,
            flags,
            ..abi::Prefetch::ZERO
        };
        // SAFETY: It reads and writes one `struct nullhz_soft_gpu_prefetch`.
        unsafe {
            ioctl(
                self.0.as_fd(),
                Updater::<{ ioc::PREFETCH }, _>::new(&mut prefetch),
            )?
        };
        Ok(prefetch.refused)
    }

    /// Has accesses to `pages` judged by the minimal generations at address `table`.
    pub fn judge(&self, pages: Pages, table: u64, owner: u64) -> io::Result<()> {
        let oracle = abi::Oracle {
            pages,
            table,
            owner,
        };
        // SAFETY: It reads one `struct nullhz_soft_gpu_oracle`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::ORACLE }, _>::new(oracle)) }
    }

    /// Starts a thread of the device.
    pub fn run(&self, cpu: u32, pages: Pages, accesses: u64, flags: u32) -> io::Result<u32> {
        // Any will do, but not the same for two threads.
        let seed = u64::from(cpu).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut run = abi::Run {
            pages,
            accesses,
            seed,
            flags,
            cpu,
            ..abi::Run::ZERO
        };
        // SAFETY: It reads and writes one `struct nullhz_soft_gpu_run`.
        unsafe { ioctl(self.0.as_fd(), Updater::<{ ioc::RUN }, _>::new(&mut run))? };
        Ok(run.run)
    }

    /// Ends a thread; with `wait` it does its accesses first.
    pub fn stop(&self, run: u32, wait: bool) -> io::Result<abi::Stop> {
        let flags = if wait { abi::WAIT } else { 0 };
        let mut stop = abi::Stop {
            run,
            flags,
            ..abi::Stop::ZERO
        };
        // SAFETY: It reads and writes one `struct nullhz_soft_gpu_stop`.
        unsafe { ioctl(self.0.as_fd(), Updater::<{ ioc::STOP }, _>::new(&mut stop))? };
        Ok(stop)
    }

    /// One access by a CPU's TLB, now.
    pub fn access(&self, address: u64, cpu: u32, flags: u32) -> io::Result<abi::Access> {
        let mut access = abi::Access {
            address,
            flags,
            cpu,
            ..abi::Access::ZERO
        };
        // SAFETY: It reads and writes one `struct nullhz_soft_gpu_access`.
        unsafe {
            ioctl(
                self.0.as_fd(),
                Updater::<{ ioc::ACCESS }, _>::new(&mut access),
            )?
        };
        Ok(access)
    }

    /// Details of a violation; [`None`] beyond those that were kept.
    pub fn violation(&self, index: u32) -> io::Result<Option<abi::Violation>> {
        let mut violation = abi::Violation {
            index,
            ..abi::Violation::ZERO
        };
        // SAFETY: It reads and writes one `struct nullhz_soft_gpu_violation`.
        match unsafe {
            ioctl(
                self.0.as_fd(),
                Updater::<{ ioc::VIOLATION }, _>::new(&mut violation),
            )
        } {
            Ok(()) => Ok(Some(violation)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pins `count` buffers of `pages` pages from `user` on, and maps them from `device` on.
    pub fn bind(&self, user: u64, device: u64, pages: u32, count: u32) -> io::Result<()> {
        let bind = abi::Bind {
            user,
            device,
            pages,
            count,
        };
        // SAFETY: It reads one `struct nullhz_soft_gpu_bind`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::BIND }, _>::new(bind)) }
    }

    /// Unmaps them again.
    pub fn unbind(&self, device: u64, pages: u32, count: u32) -> io::Result<()> {
        let bind = abi::Bind {
            user: 0,
            device,
            pages,
            count,
        };
        // SAFETY: It reads one `struct nullhz_soft_gpu_bind`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::UNBIND }, _>::new(bind)) }
    }

    /// Gives the device work: what was unmapped is unmapped.
    pub fn submit(&self) -> io::Result<()> {
        // SAFETY: It has no argument.
        unsafe { ioctl(self.0.as_fd(), NoArg::<{ ioc::SUBMIT }>::new()) }
    }

    /// Has the device misbehave, until it is told otherwise.
    pub fn misbehave(&self, faults: abi::Faults) -> io::Result<()> {
        // SAFETY: It reads one `struct nullhz_soft_gpu_faults`.
        unsafe { ioctl(self.0.as_fd(), Setter::<{ ioc::FAULTS }, _>::new(faults)) }
    }

    /// Counters of this file, and of the device.
    pub fn counters(&self) -> io::Result<abi::Counters> {
        // SAFETY: It writes one `struct nullhz_soft_gpu_counters`.
        unsafe {
            ioctl(
                self.0.as_fd(),
                Getter::<{ ioc::COUNTERS }, abi::Counters>::new(),
            )
        }
    }
}
