// SPDX-License-Identifier: GPL-2.0
//! A BTRFS volume in a file, mounted for one test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use nullhz_agent::store::Layout;
use tempfile::TempDir;

/// The volume; gone when dropped.
pub struct Volume {
    dir: TempDir,
    pub layout: Layout,
}

impl Volume {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        run("mkfs.btrfs", &["-q".as_ref(), image.as_ref()]);
        let mount = dir.path().join("volume");
        fs::create_dir(&mount).unwrap();
        run(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_ref(),
                mount.as_ref(),
            ],
        );
        let volume = Self {
            dir,
            layout: Layout {
                volume: mount,
                subvolume: "current".into(),
                snapshots: ".snapshots".into(),
            },
        };
        volume.subvolume("current");
        volume
    }

    /// A directory that is not on the volume.
    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    pub fn current(&self) -> PathBuf {
        self.layout.subvolume_path()
    }

    pub fn subvolume(&self, name: &str) {
        let path = self.layout.volume.join(name);
        run(
            "btrfs",
            &[
                "-q".as_ref(),
                "subvolume".as_ref(),
                "create".as_ref(),
                path.as_ref(),
            ],
        );
    }

    /// BTRFS deletes no default subvolume.
    pub fn set_default(&self, id: u64) {
        let id = id.to_string();
        run(
            "btrfs",
            &[
                "subvolume".as_ref(),
                "set-default".as_ref(),
                id.as_ref(),
                self.layout.volume.as_ref(),
            ],
        );
    }

    pub fn rename_current(&self, name: &str) {
        fs::rename(self.current(), self.layout.volume.join(name)).unwrap();
    }

    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        run(
            "mount",
            &["-o".as_ref(), options.as_ref(), self.layout.volume.as_ref()],
        );
    }

    pub fn freeze(&self, freeze: bool) {
        let option = if freeze { "--freeze" } else { "--unfreeze" };
        run("fsfreeze", &[option.as_ref(), self.layout.volume.as_ref()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A failed test may have left it frozen, and its agent running.
        let _ = Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(&self.layout.volume)
            .output();
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.layout.volume)
            .status();
    }
}

fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}
