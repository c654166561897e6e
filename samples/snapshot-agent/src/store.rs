// SPDX-License-Identifier: GPL-2.0
//! The checkpoint volume: a BTRFS filesystem with the subvolume that training
//! writes its checkpoints to, and a directory that holds the snapshots of it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{open, openat, AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::{fstatat, Mode};
use nix::time::{clock_gettime, ClockId};

use crate::btrfs::{self, SubvolumeInfo};
use crate::crash;
use crate::error::{Error, Result};
use crate::snapshot::{self, Name, Snapshot, State};

/// The file that marks a directory of snapshots as the agent's. Without it the
/// agent deletes nothing there.
pub const MARK: &str = ".nullhz-agent";

/// A hook of an agent that was killed has its files, and so its lock, until it is
/// executed.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(10);

const MARK_TEXT: &str = "The snapshots in this directory belong to nullhz-agent(8), \
which deletes the oldest of them.\n";

/// Where things are.
#[derive(Clone, Debug, clap::Args)]
pub struct Layout {
    /// Mount point of the checkpoint volume (BTRFS)
    #[arg(
        long,
        env = "NULLHZ_VOLUME",
        default_value = "/checkpoint",
        value_name = "DIR"
    )]
    pub volume: PathBuf,

    /// Subvolume of the volume that training writes its checkpoints to
    #[arg(
        long,
        env = "NULLHZ_SUBVOLUME",
        default_value = "current",
        value_name = "NAME"
    )]
    #[arg(value_parser = plain_name)]
    pub subvolume: String,

    /// Directory of the volume that the snapshots go to
    #[arg(
        long,
        env = "NULLHZ_SNAPSHOTS",
        default_value = ".snapshots",
        value_name = "NAME"
    )]
    #[arg(value_parser = plain_name)]
    pub snapshots: String,
}

/// A file name without a path.
pub fn plain_name(text: &str) -> std::result::Result<String, String> {
    match text {
        "" | "." | ".." => Err("not a name".into()),
        _ if text.contains(['/', '\0']) => Err("a name, not a path, is needed".into()),
        _ if text.len() > 255 => Err("longer than 255 bytes".into()),
        _ => Ok(text.into()),
    }
}

impl Layout {
    /// Path of the subvolume.
    pub fn subvolume_path(&self) -> PathBuf {
        self.volume.join(&self.subvolume)
    }

    /// Path of the snapshots' directory.
    pub fn snapshots_path(&self) -> PathBuf {
        self.volume.join(&self.snapshots)
    }
}

/// A snapshot that was just made.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its name.
    pub name: Name,
    /// As BTRFS describes it.
    pub info: SubvolumeInfo,
}

/// What a rotation did.
#[derive(Debug, Default)]
pub struct Rotation {
    /// What was deleted.
    pub gone: Vec<Name>,
    /// The first that could not be, such as one that is being sent or the
    /// volume's default subvolume. It keeps none of the others.
    pub stuck: Option<Error>,
}

/// An open checkpoint volume.
pub struct Store {
    layout: Layout,
    volume: OwnedFd,
    snapshots: OwnedFd,
    source: OwnedFd,
    source_device: u64,
}

impl Store {
    /// Opens the volume; makes the snapshot directory when it is missing.
    ///
    /// # Errors
    ///
    /// `NoVolume`, `NotBtrfs`, `NoSubvolume`, and `Volume` when the directory
    /// cannot be made.
    pub fn open(layout: &Layout) -> Result<Self> {
        let volume = open_volume(layout)?;
        let (source, source_device) = open_source(layout, volume.as_fd())?;
        let path = layout.snapshots_path();
        let fail = |what| {
            let path = path.clone();
            move |errno| Error::Volume { path, what, errno }
        };
        let name = c_string(&layout.snapshots);
        match nix::sys::stat::mkdirat(&volume, name.as_c_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(fail("make directory")(errno)),
        }
        let snapshots = btrfs::open_dir(volume.as_fd(), &name).map_err(fail("open"))?;
        Ok(Self {
            layout: layout.clone(),
            volume,
            snapshots,
            source,
            source_device,
        })
    }

    /// Where things are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Marks the snapshot directory as the agent's, unless it holds somebody
    /// else's files, and locks it for as long as the result lives. Where there
    /// is a mark, nothing is written: a volume that is full or read-only must
    /// not keep the agent from answering for it.
    ///
    /// # Errors
    ///
    /// `Foreign`, `Locked`, `Volume`.
    pub fn claim(&self) -> Result<Flock<File>> {
        let path = self.layout.snapshots_path();
        let dir = self.snapshots.as_fd();
        let fail = |what| {
            let path = path.join(MARK);
            move |errno| Error::Volume { path, what, errno }
        };
        let file = match open_mark(dir) {
            Err(Errno::ENOENT) => {
                if !names(dir).map_err(fail("read directory"))?.is_empty() {
                    return Err(Error::Foreign(path));
                }
                make_mark(dir).map_err(fail("make"))?;
                open_mark(dir)
            }
            opened => opened,
        };
        let mut file = file.map_err(fail("open"))?;
        let end = Instant::now() + LOCK_WAIT;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((same, Errno::EWOULDBLOCK)) if Instant::now() < end => file = same,
                Err((_, Errno::EWOULDBLOCK)) => return Err(Error::Locked(path)),
                Err((_, errno)) => return Err(fail("lock")(errno)),
            }
            sleep(LOCK_POLL);
        }
    }

    /// The subvolume that is snapshotted: the one that has its name now, which
    /// a restore may have exchanged.
    ///
    /// # Errors
    ///
    /// Those of openat(2), `EINVAL` when it is no subvolume any more.
    pub fn source(&mut self) -> nix::Result<BorrowedFd<'_>> {
        let name = c_string(&self.layout.subvolume);
        let now = fstatat(&self.volume, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if now.st_dev != self.source_device {
            let fd = btrfs::open_dir(self.volume.as_fd(), &name)?;
            btrfs::info(fd.as_fd())?;
            self.source_device = btrfs::device(fd.as_fd())?;
            self.source = fd;
        }
        Ok(self.source.as_fd())
    }

    /// UUID of the subvolume that is snapshotted.
    ///
    /// # Errors
    ///
    /// As [`Self::source`].
    pub fn source_uuid(&mut self) -> nix::Result<[u8; 16]> {
        Ok(btrfs::info(self.source()?)?.uuid)
    }

    /// Takes a read-only snapshot. When this returns it is on disk, which has
    /// been verified.
    ///
    /// # Errors
    ///
    /// Those of [`btrfs::snapshot`] and [`btrfs::wait_commit`]; `EBADMSG` when
    /// the result is not what was asked for.
    pub fn take(&mut self, name: Name) -> nix::Result<Taken> {
        let text = c_string(&name.to_string());
        let parent_uuid = self.source_uuid()?;
        crash::point("before-snapshot");
        btrfs::snapshot(self.source.as_fd(), self.snapshots.as_fd(), &text, true)?;
        crash::point("after-snapshot");
        let fd = btrfs::open_dir(self.snapshots.as_fd(), &text)?;
        let info = btrfs::info(fd.as_fd())?;
        if !info.read_only || info.parent_uuid != parent_uuid {
            return Err(Errno::EBADMSG);
        }
        btrfs::wait_commit(fd.as_fd(), info.created)?;
        Ok(Taken { name, info })
    }

    /// A valid snapshot of this boot that answers an incident opened at
    /// `opened_ns`, the newest one, once it is certain that it is on disk.
    ///
    /// # Errors
    ///
    /// `Volume`.
    pub fn answer(&mut self, boot_id: &[u8; 16], opened_ns: u64) -> Result<Option<Taken>> {
        let path = self.layout.snapshots_path();
        let fail = |what| move |errno| Error::Volume { path, what, errno };
        let source = self.source_uuid().map_err(fail.clone()("describe"))?;
        let found = self.list()?.into_iter().rev().find_map(|snapshot| {
            let info = snapshot.info?;
            let name = snapshot.name;
            snapshot
                .answers(&source, boot_id, opened_ns)
                .then_some(Taken { name, info })
        });
        if let Some(taken) = found {
            btrfs::wait_commit(self.snapshots.as_fd(), taken.info.created)
                .map_err(fail("wait for the commit"))?;
        }
        Ok(found)
    }

    /// Everything in the snapshot directory that has a snapshot's name, oldest
    /// first.
    ///
    /// # Errors
    ///
    /// `Volume`.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        list(&self.layout, self.snapshots.as_fd())
    }

    /// Deletes the oldest snapshots beyond the `keep` newest; says which.
    ///
    /// # Errors
    ///
    /// `Volume` when they cannot be listed.
    pub fn rotate(&self, keep: usize) -> Result<Rotation> {
        let mut rotation = Rotation::default();
        for name in snapshot::expendable(&self.list()?, keep) {
            crash::point("before-delete");
            let text = name.to_string();
            match btrfs::destroy(self.snapshots.as_fd(), &c_string(&text)) {
                Ok(()) => rotation.gone.push(name),
                Err(errno) => {
                    let path = self.layout.snapshots_path().join(text);
                    let what = "delete";
                    rotation
                        .stuck
                        .get_or_insert(Error::Volume { path, what, errno });
                }
            }
            crash::point("after-delete");
        }
        Ok(rotation)
    }

    /// Number of valid snapshots.
    ///
    /// # Errors
    ///
    /// `Volume`.
    pub fn kept(&self) -> Result<usize> {
        let valid = |snapshot: &&Snapshot| snapshot.state() == State::Valid;
        Ok(self.list()?.iter().filter(valid).count())
    }

    /// The volume's root directory.
    pub fn volume_fd(&self) -> BorrowedFd<'_> {
        self.volume.as_fd()
    }
}

/// Opens the mark. For reading: what is open for writing keeps a volume from
/// being remounted read-only. `EINVAL` when it is no regular file, `ELOOP` when
/// it is a symbolic link.
fn open_mark(dir: BorrowedFd<'_>) -> nix::Result<File> {
    // A FIFO must not keep the agent waiting.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, MARK, flags, Mode::empty())?);
    let meta = file.metadata().map_err(|err| errno_of(&err))?;
    meta.is_file().then_some(file).ok_or(Errno::EINVAL)
}

fn make_mark(dir: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let mut file = File::from(openat(dir, MARK, flags, mode)?);
    file.write_all(MARK_TEXT.as_bytes())
        .map_err(|err| errno_of(&err))
}

/// Device and inode of the mark that an agent holds locked; the process that has
/// it open is the agent. `None` when none runs on the volume.
pub fn locked_mark(layout: &Layout) -> Option<(u64, u64)> {
    let volume = open_volume(layout).ok()?;
    let dir = btrfs::open_dir(volume.as_fd(), &c_string(&layout.snapshots)).ok()?;
    let file = open_mark(dir.as_fd()).ok()?;
    let meta = file.metadata().ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => Some((meta.dev(), meta.ino())),
        _ => None,
    }
}

/// Lists the snapshots of a volume, oldest first, without changing anything on
/// it: a missing directory is an empty one.
///
/// # Errors
///
/// `NoVolume`, `NotBtrfs`, `Volume`.
pub fn list_only(layout: &Layout) -> Result<Vec<Snapshot>> {
    let volume = open_volume(layout)?;
    match btrfs::open_dir(volume.as_fd(), &c_string(&layout.snapshots)) {
        Ok(fd) => list(layout, fd.as_fd()),
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(Error::Volume {
            path: layout.snapshots_path(),
            what: "open",
            errno,
        }),
    }
}

fn list(layout: &Layout, dir: BorrowedFd<'_>) -> Result<Vec<Snapshot>> {
    let names = names(dir).map_err(|errno| Error::Volume {
        path: layout.snapshots_path(),
        what: "read directory",
        errno,
    })?;
    let mut found = Vec::new();
    for file_name in names {
        let Some(name) = file_name.to_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        let fd = btrfs::open_dir(dir, &c_string(&file_name));
        // One that is deleted meanwhile is as good as gone.
        if matches!(fd, Err(Errno::ENOENT)) {
            continue;
        }
        let info = fd.and_then(|fd| btrfs::info(fd.as_fd())).ok();
        found.push(Snapshot { name, info });
    }
    snapshot::sort(&mut found);
    Ok(found)
}

/// What an open directory holds. By its descriptor: whatever has its path
/// meanwhile is another one.
fn names(dir: BorrowedFd<'_>) -> nix::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", flags, Mode::empty())? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Opens the volume.
///
/// # Errors
///
/// `NoVolume`, `NotBtrfs`.
pub fn open_volume(layout: &Layout) -> Result<OwnedFd> {
    let path = &layout.volume;
    let fail = |errno| Error::NoVolume {
        path: path.clone(),
        errno,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let volume = open(path, flags, Mode::empty()).map_err(fail)?;
    if !btrfs::is_btrfs(volume.as_fd()).map_err(fail)? {
        return Err(Error::NotBtrfs(path.clone()));
    }
    Ok(volume)
}

fn open_source(layout: &Layout, volume: BorrowedFd<'_>) -> Result<(OwnedFd, u64)> {
    let open = || {
        let fd = btrfs::open_dir(volume, &c_string(&layout.subvolume))?;
        btrfs::info(fd.as_fd())?;
        let device = btrfs::device(fd.as_fd())?;
        Ok((fd, device))
    };
    open().map_err(|errno| Error::NoSubvolume {
        path: layout.subvolume_path(),
        errno,
    })
}

/// A name of a snapshot begun now.
pub fn name_now(incident: u64, boot_id: &[u8; 16]) -> Name {
    Name::new(
        Utc::now().timestamp_millis(),
        incident,
        boot_id,
        monotonic_ns(),
    )
}

/// CLOCK_MONOTONIC, ns.
pub fn monotonic_ns() -> u64 {
    // Fails for clocks that a kernel may lack; every one has this.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let (sec, nsec) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
        sec * 1_000_000_000 + nsec
    })
}

/// The errno of an error that came from the system.
pub fn errno_of(err: &std::io::Error) -> Errno {
    err.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A file name as the system calls take it. File names hold no null byte:
/// those from the command line are checked, others come from the kernel.
pub fn c_string(name: &(impl AsRef<OsStr> + ?Sized)) -> CString {
    CString::new(name.as_ref().as_bytes()).unwrap_or_default()
}
