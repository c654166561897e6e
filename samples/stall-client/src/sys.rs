// SPDX-License-Identifier: GPL-2.0
//! The only `unsafe` code of this crate: the device's ioctls and the shared page.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::ioctl::{ioctl, Getter, NoArg, Setter, Updater};
use rustix::mm::{madvise, mmap, mmap_anonymous, munmap, Advice, MapFlags, ProtFlags};

use crate::abi::{self, ioc};

type Result<T> = rustix::io::Result<T>;

/// `NULLHZ_STALL_IOC_INFO`.
pub(crate) fn info(fd: BorrowedFd<'_>) -> Result<abi::Info> {
    // SAFETY: The command writes one `struct nullhz_stall_info`, of which any bytes are valid.
    unsafe { ioctl(fd, Getter::<{ ioc::INFO }, abi::Info>::new()) }
}

/// `NULLHZ_STALL_IOC_REGISTER`.
pub(crate) fn register(fd: BorrowedFd<'_>, register: abi::Register) -> Result<()> {
    // SAFETY: The command reads one `struct nullhz_stall_register`.
    unsafe { ioctl(fd, Setter::<{ ioc::REGISTER }, _>::new(register)) }
}

/// `NULLHZ_STALL_IOC_GRACE`.
pub(crate) fn grace(fd: BorrowedFd<'_>, ms: u32) -> Result<()> {
    let grace = abi::Grace { ms, pad: 0 };
    // SAFETY: The command reads one `struct nullhz_stall_grace`.
    unsafe { ioctl(fd, Setter::<{ ioc::GRACE }, _>::new(grace)) }
}

/// `NULLHZ_STALL_IOC_LEAVE`.
pub(crate) fn leave(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: The command has no argument.
    unsafe { ioctl(fd, NoArg::<{ ioc::LEAVE }>::new()) }
}

/// `NULLHZ_STALL_IOC_CHECKPOINT`.
pub(crate) fn checkpoint(fd: BorrowedFd<'_>) -> Result<abi::Checkpoint> {
    // SAFETY: The command writes one `struct nullhz_stall_checkpoint`, of which any bytes are valid.
    unsafe { ioctl(fd, Getter::<{ ioc::CHECKPOINT }, abi::Checkpoint>::new()) }
}

/// `NULLHZ_STALL_IOC_ANSWERS`.
pub(crate) fn answers(fd: BorrowedFd<'_>, request: u32) -> Result<abi::Checkpoint> {
    let mut checkpoint = abi::Checkpoint {
        request,
        ..abi::Checkpoint::ZERO
    };
    // SAFETY: The command reads and writes one `struct nullhz_stall_checkpoint`, of which any bytes
    // are valid.
    unsafe { ioctl(fd, Updater::<{ ioc::ANSWERS }, _>::new(&mut checkpoint))? };
    Ok(checkpoint)
}

/// `NULLHZ_STALL_IOC_RANK`.
pub(crate) fn rank(fd: BorrowedFd<'_>, index: u32) -> Result<abi::Rank> {
    let mut rank = abi::Rank {
        index,
        ..abi::Rank::ZERO
    };
    // SAFETY: The command reads and writes one `struct nullhz_stall_rank`, of which any bytes are
    // valid.
    unsafe { ioctl(fd, Updater::<{ ioc::RANK }, _>::new(&mut rank))? };
    Ok(rank)
}

/// `struct nullhz_stall_page`, as two sides use it at the same time.
#[repr(C)]
pub(crate) struct Words {
    pub(crate) step: AtomicU64,
    pub(crate) progress: AtomicU64,
    pub(crate) phase: AtomicU32,
    pub(crate) checkpoint_ack: AtomicU32,
    trainer_reserved: [AtomicU64; 5],
    pub(crate) checkpoint_request: AtomicU32,
    pub(crate) state: AtomicU32,
    pub(crate) incident: AtomicU64,
    pub(crate) deadline_ns: AtomicU64,
    pub(crate) sampled_ns: AtomicU64,
    kernel_reserved: [AtomicU64; 4],
}

macro_rules! same_layout {
    ($($field:ident),*) => {
        const _: () = {
            use std::mem::offset_of;
            $(assert!(offset_of!(Words, $field) == offset_of!(abi::Page, $field));)*
            assert!(size_of::<Words>() == abi::Page::SIZE);
        };
    };
}

same_layout!(
    step,
    progress,
    phase,
    checkpoint_ack,
    trainer_reserved,
    checkpoint_request,
    state,
    incident,
    deadline_ns,
    sampled_ns,
    kernel_reserved
);

/// A mapped heartbeat page.
///
/// # Invariants
///
/// `words` points to the start of a readable and writable mapping of [`abi::PAGE_SIZE`] bytes that
/// nobody else unmaps, as long as this value lives.
pub(crate) struct Page {
    words: NonNull<Words>,
}

// SAFETY: A mapping belongs to the process, not to a thread.
unsafe impl Send for Page {}
// SAFETY: All access is by atomics.
unsafe impl Sync for Page {}

impl Page {
    /// The page of the rank that `fd` is.
    pub(crate) fn map(fd: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: A new mapping, at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                null_mut(),
                abi::PAGE_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let page = Self::new(start.cast());
        // SAFETY: `start` is the mapping from above. Children of fork() lose it, which ends them
        // if they beat; for this process nothing changes.
        unsafe { madvise(start, abi::PAGE_SIZE, Advice::LinuxDontFork)? };
        Ok(page)
    }

    /// A page that nobody reads.
    pub(crate) fn nowhere() -> Result<Self> {
        // SAFETY: As in `map()`.
        let start = unsafe {
            mmap_anonymous(
                null_mut(),
                abi::PAGE_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        Ok(Self::new(start.cast()))
    }

    /// Of a fresh mapping.
    fn new(words: *mut Words) -> Self {
        // INVARIANT: By the callers.
        Self {
            words: NonNull::new(words).expect("mmap() never maps at 0 unasked"),
        }
    }

    #[inline]
    pub(crate) fn words(&self) -> &Words {
        // SAFETY: By the type's invariants the mapping is there as long as `self`, and large
        // enough: `Words` has 128 bytes. Any bytes are valid for atomics, and a page boundary is
        // aligned for them. The other side, too, uses single loads and stores only.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: By the type's invariants the mapping is ours; references into it have ended,
        // since they borrow `self`.
        let unmapped = unsafe { munmap(self.words.as_ptr().cast(), abi::PAGE_SIZE) };
        debug_assert!(unmapped.is_ok());
    }
}
