// SPDX-License-Identifier: GPL-2.0
//! The only `unsafe` code of this program: ioctls whose argument is a plain
//! structure, `sched_setscheduler(2)`, `sync_file_range(2)`, `mallopt(3)` and what
//! a child does between fork and exec, for which none of the libraries used here
//! has a safe function.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{size_of, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use linux_raw_sys::{btrfs, ioctl as code};
use nix::errno::Errno;
use nix::fcntl::{open, OFlag};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use crate::abi;

/// A structure that any sequence of bytes is a valid value of.
///
/// # Safety
///
/// The type is `repr(C)` (or `repr(packed)`), `Copy`, and made of integers,
/// arrays of them, unions of such, and raw pointers that safe code never
/// follows.
pub unsafe trait Plain: Copy {}

// SAFETY: `repr(C)`, fixed-size integers and byte arrays only; see abi.rs.
unsafe impl Plain for abi::Info {}
// SAFETY: As above.
unsafe impl Plain for abi::Filter {}
// SAFETY: As above.
unsafe impl Plain for abi::Seek {}
// SAFETY: As above.
unsafe impl Plain for abi::Ack {}
// SAFETY: As above.
unsafe impl Plain for abi::Incident {}
// SAFETY: bindgen's output for <linux/btrfs.h>: `repr(C)`, integers and arrays.
unsafe impl Plain for btrfs::btrfs_ioctl_vol_args {}
// SAFETY: As above, and a union whose pointer member is never followed here.
unsafe impl Plain for btrfs::btrfs_ioctl_vol_args_v2 {}
// SAFETY: As above, no unions.
unsafe impl Plain for btrfs::btrfs_ioctl_get_subvol_info_args {}
// SAFETY: An integer.
unsafe impl Plain for u64 {}
// SAFETY: An integer.
unsafe impl Plain for i32 {}

/// A value of `T` with every byte zero.
pub fn zeroed<T: Plain>() -> T {
    // SAFETY: `T: Plain`, so all-zero bytes are a valid value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// An ioctl command whose argument points to a `T`.
pub struct Request<T> {
    code: u32,
    arg: PhantomData<fn(&mut T)>,
}

impl<T: Plain> Request<T> {
    /// # Safety
    ///
    /// The kernel reads and writes no more than `size_of::<T>()` bytes at the
    /// argument of the command `code`, and follows no pointer in it that is
    /// null.
    const unsafe fn new(code: u32) -> Self {
        // The size field of an ioctl number, <asm-generic/ioctl.h>.
        assert!((code >> 16) & 0x3fff == size_of::<T>() as u32);
        Self {
            code,
            arg: PhantomData,
        }
    }

    /// Issues the command on `fd`.
    pub fn call(&self, fd: BorrowedFd<'_>, arg: &mut T) -> nix::Result<i32> {
        // SAFETY: `arg` is valid for reads and writes of `size_of::<T>()`
        // bytes, which is all that the kernel touches by `new()`'s contract;
        // whatever it writes is a valid `T` (`Plain`).
        Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), self.code.into(), &raw mut *arg) })
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident: $arg:ty = $code:expr;)*) => {$(
        $(#[$doc])*
        ///
        // SAFETY: The number encodes `size_of` of the argument (asserted by
        // `new()`), its header defines it to take exactly that structure, and
        // the pointers in it (BTRFS qgroup inheritance) are read only with a
        // flag that this program never sets.
        pub const $name: Request<$arg> = unsafe { Request::new($code) };
    )*};
}

requests! {
    /// <nullhz/fault.h>: versions, sizes and counters of the bus.
    FAULT_INFO: abi::Info = abi::ioc::INFO;
    /// <nullhz/fault.h>: what this file reads and polls for.
    FAULT_FILTER: abi::Filter = abi::ioc::FILTER;
    /// <nullhz/fault.h>: where the next read starts.
    FAULT_SEEK: abi::Seek = abi::ioc::SEEK;
    /// <nullhz/fault.h>: acknowledges an incident.
    FAULT_ACK: abi::Ack = abi::ioc::ACK;
    /// <nullhz/fault.h>: the state of one incident.
    FAULT_INCIDENT: abi::Incident = abi::ioc::INCIDENT;
    /// <linux/btrfs.h>: a snapshot, committed when the call returns.
    SNAP_CREATE: btrfs::btrfs_ioctl_vol_args_v2 = code::BTRFS_IOC_SNAP_CREATE_V2;
    /// <linux/btrfs.h>: deletes the named subvolume of a directory.
    SNAP_DESTROY: btrfs::btrfs_ioctl_vol_args = code::BTRFS_IOC_SNAP_DESTROY;
    /// <linux/btrfs.h>: an empty subvolume.
    SUBVOL_CREATE: btrfs::btrfs_ioctl_vol_args = code::BTRFS_IOC_SUBVOL_CREATE;
    /// <linux/btrfs.h>: identity, flags and transactions of a subvolume.
    SUBVOL_INFO: btrfs::btrfs_ioctl_get_subvol_info_args = code::BTRFS_IOC_GET_SUBVOL_INFO;
    /// <linux/btrfs.h>: starts a commit; the transaction's number out.
    START_SYNC: u64 = code::BTRFS_IOC_START_SYNC;
    /// <linux/btrfs.h>: waits for the commit of a transaction.
    WAIT_SYNC: u64 = code::BTRFS_IOC_WAIT_SYNC;
    /// <linux/watchdog.h>: feeds the watchdog.
    WATCHDOG_KEEPALIVE: i32 = code::WDIOC_KEEPALIVE;
    /// <linux/watchdog.h>: its timeout in seconds.
    WATCHDOG_GETTIMEOUT: i32 = code::WDIOC_GETTIMEOUT;
}

/// Has all threads allocate from one heap. glibc gives each thread one of its
/// own and reserves 64 MiB of address space for it, all of which counts as
/// locked memory. To be called before there are threads.
pub fn use_one_heap() {
    // SAFETY: No memory is passed. It cannot fail with this value, and then
    // would only cost address space.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Makes the calling thread SCHED_FIFO with this priority (1..=99). Threads
/// and processes that it starts begin as SCHED_OTHER again.
///
/// # Errors
///
/// `EPERM` without CAP_SYS_NICE or an RLIMIT_RTPRIO, `EINVAL` out of range.
pub fn set_fifo(priority: i32) -> nix::Result<()> {
    let param = libc::sched_param {
        sched_priority: priority,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is a valid structure that outlives the call; pid 0 is
    // the calling thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }).map(drop)
}

/// Has the command start with no signal blocked and no protection from the OOM
/// killer, both of which a child inherits: the agent's are its own.
pub fn as_an_ordinary_program(command: &mut Command) -> &mut Command {
    // SAFETY: The closure runs in the child between fork and exec, where only
    // async-signal-safe functions may be called: it calls sigemptyset,
    // pthread_sigmask, open, read, write and close, with constants and memory on
    // its stack, and neither allocates, locks nor panics.
    unsafe {
        command.pre_exec(|| {
            SigSet::empty().thread_set_mask()?;
            // Without /proc the program runs all the same.
            let _ = drop_oom_protection();
            Ok(())
        })
    }
}

fn drop_oom_protection() -> nix::Result<()> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    let mut text = [0];
    // A value that makes the program likelier to go is somebody's wish.
    if read(&file, &mut text)? == 1 && text == *b"-" {
        write(&file, b"0")?;
    }
    Ok(())
}

/// Starts writing a file's dirty data back, and does not wait for it; see
/// sync_file_range(2).
///
/// # Errors
///
/// `EIO`, `ENOSPC`, `ESPIPE` when it is no regular file.
pub fn start_write_back(fd: BorrowedFd<'_>) -> nix::Result<()> {
    sync_file_range(fd, libc::SYNC_FILE_RANGE_WRITE)
}

/// Writes a file's dirty data back and waits for that; see sync_file_range(2).
///
/// # Errors
///
/// As [`start_write_back`].
pub fn wait_write_back(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    sync_file_range(fd, all)
}

fn sync_file_range(fd: BorrowedFd<'_>, flags: libc::c_uint) -> nix::Result<()> {
    // SAFETY: No memory is passed; the descriptor is open for the call. A
    // length of 0 means to the end of the file.
    Errno::result(unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, flags) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_descriptor_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let err = FAULT_INFO.call(std::os::fd::AsFd::as_fd(&file), &mut zeroed());
        assert_eq!(err, Err(Errno::ENOTTY));
    }
}
