// SPDX-License-Identifier: GPL-2.0
//! The device, for those who look after ranks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{open, Mode, OFlags};
use rustix::io::Errno;

use crate::abi::{self, ABI_VERSION, PAGE_SIZE};
use crate::{sys, Error, DEVICE};

/// An open `/dev/nullhz-stall` that is no rank.
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens [`DEVICE`].
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Permission`], [`Error::NotTheWatchdog`], [`Error::Version`].
    pub fn open() -> Result<Self, Error> {
        Self::open_at(Path::new(DEVICE))
    }

    /// Opens another device file.
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_at(path: &Path) -> Result<Self, Error> {
        let fd = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::open(path.to_owned(), errno))?;
        let device = Self { fd };
        let info = sys::info(device.as_fd()).map_err(|errno| match errno {
            Errno::NOTTY | Errno::INVAL => Error::NotTheWatchdog(path.to_owned()),
            errno => Error::call("info")(errno),
        })?;
        if info.abi_version != ABI_VERSION || info.page_size as usize != PAGE_SIZE {
            return Err(Error::Version {
                module: info.abi_version,
                program: ABI_VERSION,
            });
        }
        Ok(device)
    }

    /// Counters and bounds of the watchdog.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn info(&self) -> Result<abi::Info, Error> {
        sys::info(self.as_fd()).map_err(Error::call("info"))
    }

    /// Asks every rank of the node for a checkpoint, now. [`Device::answers`] tells how far they
    /// are.
    ///
    /// # Errors
    ///
    /// [`Error::CheckpointPermission`].
    pub fn request_checkpoint(&self) -> Result<abi::Checkpoint, Error> {
        sys::checkpoint(self.as_fd()).map_err(|errno| match errno {
            Errno::PERM => Error::CheckpointPermission,
            errno => Error::call("checkpoint")(errno),
        })
    }

    /// How many ranks have answered the request of that number.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`]: there is a newer one.
    pub fn answers(&self, request: u32) -> Result<abi::Checkpoint, Error> {
        sys::answers(self.as_fd(), request).map_err(|errno| match errno {
            Errno::NOENT => Error::Superseded(request),
            errno => Error::call("answers")(errno),
        })
    }

    /// All ranks of the node. They may come and go meanwhile: it is no snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::Call`].
    pub fn ranks(&self) -> Result<Vec<abi::Rank>, Error> {
        let mut ranks = Vec::new();
        for index in 0.. {
            match sys::rank(self.as_fd(), index) {
                Ok(rank) => ranks.push(rank),
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(Error::call("rank")(errno)),
            }
        }
        Ok(ranks)
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
