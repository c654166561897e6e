// SPDX-License-Identifier: GPL-2.0
//! What can go wrong, what to do about it, and the exit codes.

use std::path::PathBuf;

use nix::errno::Errno;

/// Anything that ends a command. The text says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no fault bus.
    #[error("{0}: no such device; load the fault bus: modprobe nullhz_fault")]
    NoDevice(PathBuf),
    /// The device does not belong to a group of the caller's.
    #[error("{path}: permission denied; run as root or as a member of group {group}")]
    DevicePermission {
        /// The device.
        path: PathBuf,
        /// Name or number of its group.
        group: String,
    },
    /// The device file is something else.
    #[error("{0}: not a fault bus device, or one of another ABI version")]
    NotTheBus(PathBuf),
    /// Acknowledging needs CAP_SYS_ADMIN.
    #[error("permission denied: acknowledging incidents needs CAP_SYS_ADMIN")]
    AckPermission,
    /// A call on the bus failed.
    #[error("fault bus: {what}: {errno}")]
    Bus {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// The checkpoint volume cannot be opened.
    #[error("{path}: {errno}; mount the checkpoint volume there or name it with --volume")]
    NoVolume {
        /// Where it was expected.
        path: PathBuf,
        /// Why it cannot be opened.
        errno: Errno,
    },
    /// The checkpoint volume is another filesystem.
    #[error("{0}: not on BTRFS, which the snapshots need")]
    NotBtrfs(PathBuf),
    /// What is to be snapshotted is missing or a plain directory.
    #[error("{path}: {errno}; make the subvolume: btrfs subvolume create {path}")]
    NoSubvolume {
        /// Where it was expected.
        path: PathBuf,
        /// `EINVAL`: a plain directory.
        errno: Errno,
    },
    /// The snapshot directory holds things and no mark of this program.
    #[error(
        "{0}: holds files but no {mark}: not the agent's; \
         name another with --snapshots, or create that file to hand it over",
        mark = crate::store::MARK
    )]
    Foreign(PathBuf),
    /// Another agent runs on this volume.
    #[error("{0}: another agent holds it")]
    Locked(PathBuf),
    /// A call on the volume failed.
    #[error("{path}: {what}: {errno}")]
    Volume {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// No snapshot answers to that description.
    #[error("{0}: no such snapshot; see nullhz-agent snapshots")]
    NoSnapshot(String),
    /// Several do.
    #[error("{0}: stands for several snapshots; give more of the name")]
    AmbiguousSnapshot(String),
    /// The subvolume is in use.
    #[error("{path} is in use: {users}; stop them or pass --force")]
    Busy {
        /// The subvolume.
        path: PathBuf,
        /// Who uses it.
        users: String,
    },
    /// The argument is not what it should be.
    #[error("{0}")]
    Input(String),
    /// Something else in the system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code of a command that ends with this error, as nullhz-agent(8)
    /// lists them. 2 is clap's, for the command line.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { .. } | Error::Bus { .. } | Error::Volume { .. } => 1,
            Error::Input(_) => 2,
            Error::NoDevice(_) | Error::NotTheBus(_) => 3,
            Error::DevicePermission { .. } | Error::AckPermission => 4,
            Error::NoVolume { .. }
            | Error::NotBtrfs(_)
            | Error::NoSubvolume { .. }
            | Error::Foreign(_) => 5,
            Error::NoSnapshot(_) | Error::AmbiguousSnapshot(_) => 6,
            Error::Busy { .. } | Error::Locked(_) => 7,
        }
    }

    /// For `map_err`: an error of the system, with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// For `map_err`: an errno of the system, with what was tried.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
        let what = what.into();
        move |errno| Error::Io {
            what,
            source: errno.into(),
        }
    }
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
