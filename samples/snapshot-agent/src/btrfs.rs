// SPDX-License-Identifier: GPL-2.0
//! BTRFS subvolumes through the ioctls of <linux/btrfs.h>.
//!
//! What this program relies on, in fs/btrfs of Linux 7.3: a snapshot is made
//! inside the commit of a transaction, and `BTRFS_IOC_SNAP_CREATE_V2` returns
//! after that commit. So a snapshot exists completely or not at all, and it has
//! been read-only from its first moment when it was asked for so.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use linux_raw_sys::btrfs as raw;
use linux_raw_sys::ctypes::c_char;
use nix::errno::Errno;
use nix::fcntl::{openat, OFlag};
use nix::sys::stat::{fstat, Mode};
use nix::sys::statfs::{fstatfs, BTRFS_SUPER_MAGIC};

use crate::sys;

/// Inode number of the root directory of every subvolume.
const SUBVOLUME_ROOT: u64 = raw::BTRFS_FIRST_FREE_OBJECTID as u64;

/// What `BTRFS_IOC_GET_SUBVOL_INFO` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubvolumeInfo {
    /// Subvolume id, unique in the filesystem and never used again.
    pub id: u64,
    /// UUID of the subvolume.
    pub uuid: [u8; 16],
    /// UUID of the subvolume that it is a snapshot of; zero when it is none.
    pub parent_uuid: [u8; 16],
    /// Number of the transaction that created it.
    pub created: u64,
    /// It cannot be written to.
    pub read_only: bool,
}

/// Opens a directory below `dir` without following a symbolic link.
///
/// # Errors
///
/// Those of openat(2); `ENOTDIR` or `ELOOP` when it is no directory.
pub fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Whether `fd` is on a BTRFS filesystem.
pub fn is_btrfs(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Describes the subvolume whose root directory `fd` is.
///
/// # Errors
///
/// `ENOTTY` when it is not on BTRFS, `EINVAL` when it is no subvolume's root.
pub fn info(fd: BorrowedFd<'_>) -> nix::Result<SubvolumeInfo> {
    let mut args: raw::btrfs_ioctl_get_subvol_info_args = sys::zeroed();
    sys::SUBVOL_INFO.call(fd, &mut args)?;
    // The ioctl answers for any directory of the subvolume.
    if fstat(fd)?.st_ino != SUBVOLUME_ROOT {
        return Err(Errno::EINVAL);
    }
    Ok(SubvolumeInfo {
        id: args.treeid,
        uuid: args.uuid,
        parent_uuid: args.parent_uuid,
        created: args.otransid,
        read_only: args.flags & u64::from(raw::BTRFS_ROOT_SUBVOL_RDONLY) != 0,
    })
}

/// Makes the snapshot `name` in the directory `dir` of the subvolume `source`,
/// and returns when it is on disk.
///
/// # Errors
///
/// `EEXIST`, `ENOSPC`, `EROFS`, `EIO`, `EPERM`; `EXDEV` for another filesystem;
/// `EINVAL` when `source` is no subvolume; `ENAMETOOLONG`.
pub fn snapshot(
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &CStr,
    read_only: bool,
) -> nix::Result<()> {
    let mut args: raw::btrfs_ioctl_vol_args_v2 = sys::zeroed();
    args.fd = source.as_raw_fd().into();
    if read_only {
        args.flags = raw::BTRFS_SUBVOL_RDONLY.into();
    }
    let mut field = [0; 4040];
    copy_name(&mut field, name)?;
    args.__bindgen_anon_2.name = field;
    sys::SNAP_CREATE.call(dir, &mut args).map(drop)
}

/// Makes an empty subvolume `name` in `dir`; it is on disk after [`sync`].
///
/// # Errors
///
/// As [`snapshot`].
pub fn create(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    let mut args: raw::btrfs_ioctl_vol_args = sys::zeroed();
    copy_name(&mut args.name, name)?;
    sys::SUBVOL_CREATE.call(dir, &mut args).map(drop)
}

/// Deletes the subvolume `name` of `dir`; its space comes back later.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR`, `EINVAL` when it is no subvolume, `EBUSY` when it is a
/// mount point, `EPERM`, `EROFS`.
pub fn destroy(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    let mut args: raw::btrfs_ioctl_vol_args = sys::zeroed();
    copy_name(&mut args.name, name)?;
    sys::SNAP_DESTROY.call(dir, &mut args).map(drop)
}

/// Returns when the transaction `transid` is on disk; at once when it is
/// already. 0 stands for the transaction that is being committed now.
///
/// # Errors
///
/// `EINVAL` for a transaction that has not begun, `EIO`, `EROFS` when the
/// filesystem has been aborted.
pub fn wait_commit(fd: BorrowedFd<'_>, transid: u64) -> nix::Result<()> {
    sys::WAIT_SYNC.call(fd, &mut { transid }).map(drop)
}

/// Commits what has been changed so far, and returns when that is on disk. File
/// data that has not been written back is not part of it.
///
/// # Errors
///
/// `EIO`, `EROFS`.
pub fn sync(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mut transid = 0u64;
    sys::START_SYNC.call(fd, &mut transid)?;
    wait_commit(fd, transid)
}

/// The device number that all files of the subvolume at `fd` have; every
/// subvolume has its own.
pub fn device(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    Ok(fstat(fd.as_fd())?.st_dev)
}

fn copy_name(field: &mut [c_char], name: &CStr) -> nix::Result<()> {
    let bytes = name.to_bytes_with_nul();
    if bytes.len() > field.len() || bytes.len() > raw::BTRFS_SUBVOL_NAME_MAX as usize {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(())
}
