// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent restore`: a writable copy of a snapshot takes the place of the
//! subvolume, in one step and without losing the former contents.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use chrono::Utc;
use nix::errno::Errno;
use nix::fcntl::{renameat2, RenameFlags};
use serde::Serialize;

use super::{print, print_json};
use crate::btrfs;
use crate::crash;
use crate::error::{Error, Result};
use crate::snapshot::{Snapshot, State};
use crate::store::{self, c_string, Layout};

/// What to restore, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Name of the snapshot or its beginning, i<INCIDENT>, or latest
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,

    /// Make a writable copy here, on the same volume, and change nothing else
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,

    /// Even when programs use the subvolume: they go on with the former contents
    #[arg(long)]
    force: bool,

    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Restored {
    snapshot: String,
    path: PathBuf,
    /// Where the former contents are now.
    before: Option<PathBuf>,
}

/// Restores a snapshot.
///
/// # Errors
///
/// `NoSnapshot`, `AmbiguousSnapshot`, `Busy`, and those of the volume.
pub fn run(layout: &Layout, options: &Options) -> Result<()> {
    let volume = store::open_volume(layout)?;
    let snapshots = store::list_only(layout)?;
    let snapshot = find(&snapshots, &options.snapshot)?;
    let name = snapshot.name.to_string();
    let path = layout.snapshots_path().join(&name);
    let dir = open(volume.as_fd(), &layout.snapshots, &layout.snapshots_path())?;
    let source = open(dir.as_fd(), &name, &path)?;
    let restored = match &options.to {
        Some(to) => copy(layout, volume.as_fd(), source.as_fd(), to)?,
        None => exchange(layout, volume.as_fd(), source.as_fd(), options.force)?,
    };
    btrfs::sync(volume.as_fd()).map_err(failed(&layout.volume, "commit"))?;
    let (path, before) = restored;
    let restored = Restored {
        snapshot: name,
        path,
        before,
    };
    if options.json {
        return print_json(&restored);
    }
    let mut text = format!(
        "{} is now snapshot {}",
        restored.path.display(),
        restored.snapshot
    );
    if let Some(before) = &restored.before {
        text += &format!("\nits former contents are in {}", before.display());
    }
    print(&text)
}

/// The one valid snapshot that a user means.
fn find<'a>(snapshots: &'a [Snapshot], text: &str) -> Result<&'a Snapshot> {
    let valid = || {
        snapshots
            .iter()
            .filter(|snapshot| snapshot.state() == State::Valid)
    };
    let none = || Error::NoSnapshot(text.into());
    if text == "latest" {
        return valid().next_back().ok_or_else(none);
    }
    let incident = text.strip_prefix('i').and_then(|id| id.parse::<u64>().ok());
    let means = |snapshot: &&Snapshot| match incident {
        Some(id) => snapshot.name.incident == id,
        None => !text.is_empty() && snapshot.name.to_string().starts_with(text),
    };
    let mut found = valid().filter(means);
    let first = found.next().ok_or_else(none)?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(Error::AmbiguousSnapshot(text.into())),
    }
}

fn copy(
    layout: &Layout,
    volume: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    to: &Path,
) -> Result<(PathBuf, Option<PathBuf>)> {
    let below = to.strip_prefix(&layout.volume).unwrap_or(to);
    let outside = || {
        let (to, volume) = (to.display(), layout.volume.display());
        Error::Input(format!("{to}: not a path below {volume}"))
    };
    let mut names = Vec::new();
    for component in below.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    let name = names.pop().ok_or_else(outside)?;
    let mut path = layout.volume.clone();
    let mut dir: OwnedFd = volume.try_clone_to_owned().map_err(Error::io("dup"))?;
    for parent in names {
        path.push(parent);
        dir = open(dir.as_fd(), parent, &path)?;
    }
    path.push(name);
    btrfs::snapshot(source, dir.as_fd(), &c_string(name), false)
        .map_err(failed(&path, "make snapshot"))?;
    Ok((path, None))
}

fn exchange(
    layout: &Layout,
    volume: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    force: bool,
) -> Result<(PathBuf, Option<PathBuf>)> {
    let path = layout.subvolume_path();
    let current = c_string(&layout.subvolume);
    match btrfs::open_dir(volume, &current) {
        Err(Errno::ENOENT) => {
            btrfs::snapshot(source, volume, &current, false)
                .map_err(failed(&path, "make snapshot"))?;
            return Ok((path, None));
        }
        Err(errno) => return Err(failed(&path, "open")(errno)),
        Ok(fd) if force => drop(fd),
        Ok(fd) => {
            let device = btrfs::device(fd.as_fd()).map_err(failed(&path, "stat"))?;
            drop(fd);
            let users = users(device, store::locked_mark(layout));
            if !users.is_empty() {
                let users = users.into_iter().collect::<Vec<_>>().join(", ");
                return Err(Error::Busy { path, users });
            }
        }
    }
    // The copy is made under the name that the former contents will have, so
    // that one exchange of names is all there is: interrupted before it, the
    // subvolume is untouched; after it, everything is in its place.
    let before = format!(
        "{}.before-restore-{}",
        layout.subvolume,
        Utc::now().format("%Y%m%dT%H%M%S%.3fZ")
    );
    let before_path = layout.volume.join(&before);
    let before = c_string(&before);
    btrfs::snapshot(source, volume, &before, false)
        .map_err(failed(&before_path, "make snapshot"))?;
    crash::point("before-exchange");
    renameat2(
        volume,
        before.as_c_str(),
        volume,
        current.as_c_str(),
        RenameFlags::RENAME_EXCHANGE,
    )
    .map_err(failed(&path, "exchange"))?;
    crash::point("after-exchange");
    Ok((path, Some(before_path)))
}

/// Who has a file of the subvolume open, mapped or as a directory, or has it
/// mounted, in whatever mount namespace. The agent, which has the mark open, is
/// no user: it follows the name.
fn users(device: u64, mark: Option<(u64, u64)>) -> BTreeSet<String> {
    let mut users = BTreeSet::new();
    let on_it = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.dev() == device);
    let own_tree = tree(Path::new("/proc/self"));
    let mut seen = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let path = process.path();
        let comm = || {
            let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
            format!("{} (pid {pid})", comm.trim_end())
        };
        let tree = tree(&path);
        if tree.is_some() && seen.insert(tree) {
            for mount in btrfs_mounts(&path) {
                let below = mount.strip_prefix("/").unwrap_or(&mount);
                if on_it(&path.join("root").join(below)) {
                    let mut user = format!("mounted at {}", mount.display());
                    if tree != own_tree {
                        user += &format!(" for {}", comm());
                    }
                    users.insert(user);
                }
            }
        }
        if mark.is_some_and(|mark| has_open(&path, mark)) {
            continue;
        }
        let listed = ["fd", "map_files"]
            .into_iter()
            .flat_map(|dir| entries(&path.join(dir)));
        let fixed = ["cwd", "root", "exe"].map(|link| path.join(link));
        if fixed.into_iter().chain(listed).any(|path| on_it(&path)) {
            users.insert(comm());
        }
    }
    users
}

/// What the mounts that a process in /proc sees depend on: its mount namespace
/// and its root directory. `None` when it is gone.
fn tree(process: &Path) -> Option<[(u64, u64); 2]> {
    let identity = |path: &str| {
        let meta = fs::metadata(process.join(path)).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    Some([identity("ns/mnt")?, identity("root")?])
}

/// Whether the process in /proc at `process` has the file with this device and
/// inode open.
fn has_open(process: &Path, file: (u64, u64)) -> bool {
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == file);
    entries(&process.join("fd")).any(|path| is_it(&path))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Mount points of BTRFS filesystems that a process in /proc sees; see
/// proc_pid_mountinfo(5).
fn btrfs_mounts(process: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let is_btrfs = after.split(' ').next() == Some("btrfs");
        is_btrfs.then(|| unescape(before.split(' ').nth(4).unwrap_or_default()))
    };
    text.lines().filter_map(mount).map(PathBuf::from).collect()
}

/// The kernel writes white space and backslashes in octal.
fn unescape(text: &str) -> String {
    text.replace(r"\040", " ")
        .replace(r"\011", "\t")
        .replace(r"\012", "\n")
        .replace(r"\134", "\\")
}

fn open(
    dir: BorrowedFd<'_>,
    name: &(impl AsRef<std::ffi::OsStr> + ?Sized),
    path: &Path,
) -> Result<OwnedFd> {
    btrfs::open_dir(dir, &c_string(name)).map_err(failed(path, "open"))
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::Volume { path, what, errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btrfs::SubvolumeInfo;
    use crate::snapshot::Name;

    fn snapshot(utc_ms: i64, incident: u64, read_only: bool) -> Snapshot {
        Snapshot {
            name: Name::new(utc_ms, incident, &[1; 16], 5),
            info: Some(SubvolumeInfo {
                id: 256,
                uuid: [0; 16],
                parent_uuid: [0; 16],
                created: 1,
                read_only,
            }),
        }
    }

    #[test]
    fn snapshots_are_found_by_what_people_type() {
        let list = [
            snapshot(0, 1, true),
            snapshot(1000, 2, true),
            snapshot(86_400_000, 3, true),
            snapshot(86_401_000, 4, false),
        ];
        let find = |text: &str| find(&list, text).map(|snapshot| snapshot.name.incident);
        assert_eq!(find("latest").unwrap(), 3);
        assert_eq!(find("i2").unwrap(), 2);
        assert_eq!(find("19700102").unwrap(), 3);
        assert_eq!(find(&list[0].name.to_string()).unwrap(), 1);
        assert!(matches!(find("19700101"), Err(Error::AmbiguousSnapshot(_))));
        for text in ["", "i4", "i9", "2026", "19700102T000001"] {
            assert!(matches!(find(text), Err(Error::NoSnapshot(_))), "{text}");
        }
    }

    #[test]
    fn users_are_found_but_the_agent_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mark = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        let meta = mark.as_file().metadata().unwrap();
        let sleeper = |stdin| {
            let mut command = std::process::Command::new("sleep");
            command.arg("100").current_dir(dir.path()).stdin(stdin);
            command.spawn().unwrap()
        };
        let mut user = sleeper(std::process::Stdio::null());
        let mut agent = sleeper(fs::File::open(mark.path()).unwrap().into());
        let (all, others) = (
            users(meta.dev(), None),
            users(meta.dev(), Some((meta.dev(), meta.ino()))),
        );
        let found = |users: &BTreeSet<String>, pid: u32| {
            let text = format!("(pid {pid})");
            users.iter().any(|user| user.ends_with(&text))
        };
        let [user_pid, agent_pid] = [&mut user, &mut agent].map(|child| {
            child.kill().unwrap();
            child.wait().unwrap();
            child.id()
        });
        assert!(found(&all, user_pid) && found(&all, agent_pid), "{all:?}");
        assert!(found(&others, user_pid), "{others:?}");
        assert!(!found(&others, agent_pid), "{others:?}");
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), "/a b\\c");
    }
}
