// SPDX-License-Identifier: GPL-2.0
//! Writing a subvolume's dirty file data back before the snapshot does, so that
//! the snapshot, which holds writers up, has little left to write.
//!
//! sync_file_range(2) on each file, because (measured, see README.md) BTRFS's
//! START_SYNC commits metadata only and leaves file data where it is, syncfs(2)
//! also waits for all other subvolumes of the volume, and fsync(2) writes a log
//! that the commit makes superfluous.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys;

/// What a pre-flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Files whose write-back was started.
    pub files: u32,
    /// The budget ended before all files were reached.
    pub out_of_time: bool,
}

/// Starts the write-back of the files of the subvolume at `path`, for at most
/// about `budget`: a single file is not interrupted. A zero budget does nothing.
///
/// A file that cannot be opened is skipped: the snapshot will write it.
pub fn start_write_back(path: &Path, budget: Duration) -> Flushed {
    let mut flushed = Flushed::default();
    each_file(path, budget, &mut flushed, |file| {
        sys::start_write_back(file.as_fd()).is_ok()
    });
    flushed
}

/// Like [`start_write_back`], but waits until the data is written.
pub fn write_back(path: &Path, budget: Duration) -> Flushed {
    let begun = Instant::now();
    start_write_back(path, budget);
    let mut flushed = Flushed::default();
    let budget = budget.saturating_sub(begun.elapsed());
    each_file(path, budget, &mut flushed, |file| {
        sys::wait_write_back(file.as_fd()).is_ok()
    });
    flushed
}

fn each_file(path: &Path, budget: Duration, flushed: &mut Flushed, flush: impl Fn(File) -> bool) {
    if budget.is_zero() {
        return;
    }
    let end = Instant::now() + budget;
    let Ok(device) = path.metadata().map(|meta| meta.dev()) else {
        return;
    };
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if Instant::now() >= end {
                flushed.out_of_time = true;
                return;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                // A nested subvolume is not part of the snapshot.
                if entry.metadata().is_ok_and(|meta| meta.dev() == device) {
                    dirs.push(path);
                }
            } else if kind.is_file() {
                let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
                let file = fs::OpenOptions::new()
                    .read(true)
                    .custom_flags(flags)
                    .open(path);
                flushed.files += u32::from(file.is_ok_and(&flush));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_reached_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for file in ["x", "a/y", "a/b/z"] {
            fs::write(dir.path().join(file), "data").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let flushed = start_write_back(dir.path(), Duration::from_secs(10));
        assert_eq!(flushed.files, 3);
        assert!(!flushed.out_of_time);
        assert_eq!(write_back(dir.path(), Duration::from_secs(10)).files, 3);
    }

    #[test]
    fn the_budget_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "data").unwrap();
        assert_eq!(
            start_write_back(dir.path(), Duration::ZERO),
            Flushed::default()
        );
        let flushed = start_write_back(dir.path(), Duration::from_nanos(1));
        assert_eq!(flushed.files, 0);
        assert!(flushed.out_of_time);
    }
}
