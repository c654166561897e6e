// SPDX-License-Identifier: GPL-2.0
//! What can go wrong, and what to do about it.

use std::path::PathBuf;

use rustix::io::Errno;

/// Why a call failed. The text says what to do where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no stall watchdog on this machine.
    #[error("{0}: no such device; is the module nullhz_stall loaded?")]
    NoDevice(PathBuf),
    /// The device does not belong to the caller's groups.
    #[error("{0}: permission denied; is the user in the device's group (nullhz)?")]
    Permission(PathBuf),
    /// The file cannot be opened.
    #[error("{path}: {errno}")]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The file is something else.
    #[error("{0}: not a stall watchdog")]
    NotTheWatchdog(PathBuf),
    /// The module and this crate do not speak the same ABI.
    #[error("the module speaks ABI version {module}, this program {program}")]
    Version {
        /// Of the module.
        module: u32,
        /// Of this crate.
        program: u32,
    },
    /// The job's name cannot be registered.
    #[error("{0:?}: a name has 1 to 31 characters of printable ASCII")]
    Name(String),
    /// A time does not fit into the ABI's 32 bits of milliseconds.
    #[error("{0}: 49 days are the most")]
    TooLong(&'static str),
    /// Another process of this node has this rank of the job.
    #[error(
        "rank {0} of the job is registered by another process: does it have a name of its own?"
    )]
    RankTaken(u32),
    /// The node has as many ranks as the module can watch.
    #[error("no more ranks can be registered on this node")]
    TooManyRanks,
    /// More than the module allows (`abi::Info::max_grace_ms`).
    #[error("a grace of {0} ms is longer than the module allows")]
    Grace(u32),
    /// Asking for checkpoints needs CAP_SYS_ADMIN.
    #[error("permission denied: asking ranks for a checkpoint needs CAP_SYS_ADMIN")]
    CheckpointPermission,
    /// A newer request has taken the place of this one.
    #[error("checkpoint request {0} is not the newest one")]
    Superseded(u32),
    /// Another call failed.
    #[error("{call}: {errno}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

impl Error {
    /// Why opening `path` failed.
    pub(crate) fn open(path: PathBuf, errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Error::NoDevice(path),
            Errno::ACCESS | Errno::PERM => Error::Permission(path),
            errno => Error::Open { path, errno },
        }
    }

    /// Makes the error of a call that has no better one.
    pub(crate) fn call(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Error::Call { call, errno }
    }
}
