// SPDX-License-Identifier: GPL-2.0
//! The fault bus, /dev/nullhz-fault.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{read, Gid};

use crate::abi::{seek, Ack, Event, Filter, Incident, Info, Seek, ABI_VERSION, EVENT_SIZE};
use crate::error::{Error, Result};
use crate::sys;

/// Where udev makes the device.
pub const DEVICE: &str = "/dev/nullhz-fault";

/// Records fetched by one read(2).
pub const BATCH: usize = 64;

/// What the agent needs of a fault bus. [`Device`] is the one; tests have
/// another.
pub trait Bus {
    /// What to poll for records.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Replaces `events` by the next records, at most [`BATCH`]; none when there
    /// are none now.
    ///
    /// # Errors
    ///
    /// Those of read(2) but `EAGAIN` and `EINTR`; `EPROTO` for half a record.
    fn read(&self, events: &mut Vec<Event>) -> nix::Result<()>;

    /// Counters of the bus.
    ///
    /// # Errors
    ///
    /// As <nullhz/fault.h>.
    fn info(&self) -> nix::Result<Info>;

    /// The state of one incident.
    ///
    /// # Errors
    ///
    /// `ENOENT`: never opened, or forgotten.
    fn incident(&self, incident: u64) -> nix::Result<Incident>;

    /// Acknowledges an incident.
    ///
    /// # Errors
    ///
    /// `EALREADY`, `ENOENT`, `EPERM`.
    fn ack(&self, incident: u64, result: Result<u64, Errno>) -> nix::Result<()>;
}

/// The device, open.
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens the device and checks that it speaks this program's ABI.
    ///
    /// # Errors
    ///
    /// `NoDevice`, `DevicePermission`, `NotTheBus`, `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENXIO | Errno::ENODEV => Error::NoDevice(path.into()),
            Errno::EACCES | Errno::EPERM => Error::DevicePermission {
                path: path.into(),
                group: group_of(path),
            },
            errno => Error::errno(format!("{}: open", path.display()))(errno),
        })?;
        let device = Self { fd };
        match device.info() {
            Ok(info)
                if info.abi_version == u32::from(ABI_VERSION)
                    && info.event_size as usize == EVENT_SIZE =>
            {
                Ok(device)
            }
            _ => Err(Error::NotTheBus(path.into())),
        }
    }

    /// Lets only records of at least `min_level` from the sources in
    /// `source_mask` (bit n: source n) through.
    ///
    /// # Errors
    ///
    /// `Bus`.
    pub fn filter(&self, min_level: u32, source_mask: u64) -> Result<()> {
        let mut filter = Filter {
            min_level,
            pad: 0,
            source_mask,
        };
        let done = sys::FAULT_FILTER.call(self.fd.as_fd(), &mut filter);
        done.map(drop).map_err(|errno| Error::Bus {
            what: "set filter",
            errno,
        })
    }

    /// Skips what is in the replay ring.
    ///
    /// # Errors
    ///
    /// `Bus`.
    pub fn seek_newest(&self) -> Result<()> {
        let mut to = Seek {
            whence: seek::NEWEST,
            ..Seek::ZERO
        };
        let done = sys::FAULT_SEEK.call(self.fd.as_fd(), &mut to);
        done.map(drop).map_err(|errno| Error::Bus {
            what: "seek",
            errno,
        })
    }
}

impl Bus for Device {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn read(&self, events: &mut Vec<Event>) -> nix::Result<()> {
        let mut bytes = [0; BATCH * EVENT_SIZE];
        events.clear();
        let len = match read(&self.fd, &mut bytes) {
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        let (records, rest) = bytes.get(..len).unwrap_or_default().as_chunks();
        if !rest.is_empty() {
            return Err(Errno::EPROTO);
        }
        events.extend(records.iter().map(Event::from_bytes));
        Ok(())
    }

    fn info(&self) -> nix::Result<Info> {
        let mut info = Info::ZERO;
        sys::FAULT_INFO.call(self.fd.as_fd(), &mut info)?;
        Ok(info)
    }

    fn incident(&self, incident: u64) -> nix::Result<Incident> {
        let mut state = Incident {
            incident,
            ..Incident::ZERO
        };
        sys::FAULT_INCIDENT.call(self.fd.as_fd(), &mut state)?;
        Ok(state)
    }

    fn ack(&self, incident: u64, result: Result<u64, Errno>) -> nix::Result<()> {
        let (snapshot_id, result) = match result {
            Ok(snapshot_id) => (snapshot_id, 0),
            Err(errno) => (0, -(errno as i32)),
        };
        let mut ack = Ack {
            incident,
            snapshot_id,
            result,
            pad: 0,
        };
        sys::FAULT_ACK.call(self.fd.as_fd(), &mut ack).map(drop)
    }
}

/// The unacknowledged incidents that the bus still knows, newest first.
///
/// # Errors
///
/// Those of [`Bus::info`] and [`Bus::incident`] but `ENOENT`.
pub fn unacknowledged(bus: &impl Bus) -> nix::Result<Vec<Incident>> {
    use crate::abi::state;

    let info = bus.info()?;
    let mut left = info.open_incidents;
    let mut found = Vec::new();
    // Ids are given in turn, and the bus forgets the oldest acknowledged one: an
    // open one may be older than many that it has forgotten.
    for id in (1..=info.last_incident).rev() {
        if left == 0 {
            break;
        }
        match bus.incident(id) {
            Ok(incident) if incident.state != state::ACKED => {
                found.push(incident);
                left -= 1;
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// The group that may read a file, by name when /etc/group has it. A static
/// program cannot ask the name service.
fn group_of(path: &Path) -> String {
    let Ok(meta) = path.metadata() else {
        return "(unknown)".into();
    };
    let gid = Gid::from_raw(meta.gid()).to_string();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    });
    name.unwrap_or(gid)
}

/// Which device file to use.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceArg {
    /// Device of the fault bus
    #[arg(long, env = "NULLHZ_DEVICE", default_value = DEVICE, value_name = "FILE")]
    pub device: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_says_what_to_load() {
        let err = Device::open(Path::new("/nonexistent/nullhz-fault")).map(drop);
        let err = err.unwrap_err();
        assert!(err.to_string().contains("modprobe nullhz_fault"), "{err}");
        assert_eq!(err.exit_code(), 3);
    }

    #[test]
    fn another_device_is_told_apart() {
        let err = Device::open(Path::new("/dev/null")).map(drop).unwrap_err();
        assert!(matches!(err, Error::NotTheBus(_)), "{err}");
    }

    #[test]
    fn groups_have_names() {
        assert_eq!(group_of(Path::new("/etc/passwd")), "root");
    }
}
