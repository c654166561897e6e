// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent bench`: how long a snapshot of this volume takes, by the same
//! code that answers an incident, on a subvolume of its own.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::syncfs;
use serde::Serialize;

use super::{print, print_json};
use crate::agent::stats::{Summary, Window};
use crate::btrfs;
use crate::error::{Error, Result};
use crate::preflush;
use crate::store::{self, c_string, monotonic_ns, Layout, Store, MARK};

/// The subvolume that is written to and snapshotted.
const SCRATCH: &str = ".nullhz-bench";
/// The directory of its snapshots.
const SNAPSHOTS: &str = ".nullhz-bench.snapshots";

/// A checkpoint's files.
const FILES: u32 = 4;
const MIB: usize = 1 << 20;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Mount point of the checkpoint volume (BTRFS)
    #[arg(
        long,
        env = "NULLHZ_VOLUME",
        default_value = "/checkpoint",
        value_name = "DIR"
    )]
    volume: std::path::PathBuf,

    /// Amounts of dirty data, MiB
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,16,32",
        value_name = "MIB,..."
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=65_536))]
    dirty: Vec<u32>,

    /// Snapshots for each figure
    #[arg(long, default_value_t = 20, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    runs: u32,

    /// Time for the pre-flush
    #[arg(long, default_value_t = 50, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    preflush_budget_ms: u32,

    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// A line of the result.
#[derive(Debug, Serialize)]
struct Figure {
    dirty_mib: u32,
    preflush: bool,
    runs: u32,
    /// The pre-flush.
    preflush_ms: Summary,
    /// The snapshot after it, until it is on disk.
    snapshot_ms: Summary,
    /// Both.
    durable_ms: Summary,
}

/// Measures.
///
/// # Errors
///
/// Those of the volume; `Locked` when another bench runs on it.
pub fn run(options: &Options) -> Result<()> {
    let layout = Layout {
        volume: options.volume.clone(),
        subvolume: SCRATCH.into(),
        snapshots: SNAPSHOTS.into(),
    };
    let mut scratch = Scratch::new(layout)?;
    if !options.json {
        print(&format!(
            "{:>9} {:<9}  {:>24}  {:>24}",
            "DIRTY MiB", "PRE-FLUSH", "SNAPSHOT p50/p99/max ms", "ON DISK p50/p99/max ms"
        ))?;
    }
    for dirty_mib in &options.dirty {
        for budget_ms in [0, options.preflush_budget_ms] {
            let budget = Duration::from_millis(budget_ms.into());
            let figure = scratch.measure(*dirty_mib, budget, options.runs)?;
            if options.json {
                print_json(&figure)?;
            } else {
                let text = |s: Summary| format!("{}/{}/{}", s.p50_ms, s.p99_ms, s.max_ms);
                print(&format!(
                    "{dirty_mib:>9} {:<9}  {:>24}  {:>24}",
                    if figure.preflush { "yes" } else { "no" },
                    text(figure.snapshot_ms),
                    text(figure.durable_ms),
                ))?;
            }
        }
    }
    Ok(())
}

/// The subvolume, for as long as the measurement takes.
struct Scratch {
    store: Store,
    block: Vec<u8>,
    number: u64,
    _claim: nix::fcntl::Flock<File>,
}

impl Scratch {
    fn new(layout: Layout) -> Result<Self> {
        let volume = store::open_volume(&layout)?;
        let path = layout.subvolume_path();
        match btrfs::create(volume.as_fd(), &c_string(SCRATCH)) {
            // Left by one that was killed.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                return Err(Error::Volume {
                    path,
                    what: "make subvolume",
                    errno,
                })
            }
        }
        let store = Store::open(&layout)?;
        let claim = store.claim()?;
        // Data that no compression makes smaller.
        let mut block = vec![0; MIB];
        let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut block));
        random.map_err(Error::io("/dev/urandom"))?;
        Ok(Self {
            store,
            block,
            number: 0,
            _claim: claim,
        })
    }

    fn measure(&mut self, dirty_mib: u32, budget: Duration, runs: u32) -> Result<Figure> {
        let path = self.store.layout().subvolume_path();
        let (mut flush, mut snapshot, mut durable) =
            (Window::default(), Window::default(), Window::default());
        for _ in 0..runs {
            self.store.rotate(0)?;
            syncfs(self.store.volume_fd()).map_err(self.failed("sync"))?;
            self.write(&path, dirty_mib)
                .map_err(Error::io(format!("{}: write", path.display())))?;
            let begun_ns = monotonic_ns();
            preflush::start_write_back(&path, budget);
            let flushed_ns = monotonic_ns();
            self.number += 1;
            let name = store::name_now(self.number, &[0; 16]);
            self.store.take(name).map_err(self.failed("snapshot"))?;
            let durable_ns = monotonic_ns();
            flush.add(flushed_ns - begun_ns);
            snapshot.add(durable_ns - flushed_ns);
            durable.add(durable_ns - begun_ns);
        }
        Ok(Figure {
            dirty_mib,
            preflush: !budget.is_zero(),
            runs,
            preflush_ms: flush.summary(),
            snapshot_ms: snapshot.summary(),
            durable_ms: durable.summary(),
        })
    }

    /// Overwrites the files, and leaves the data in memory.
    fn write(&self, path: &Path, dirty_mib: u32) -> io::Result<()> {
        for file in 0..FILES {
            let share = dirty_mib / FILES + u32::from(file < dirty_mib % FILES);
            let mut options = File::options();
            options.create(true).truncate(false).write(true);
            let mut file = options.open(path.join(format!("shard-{file}")))?;
            for _ in 0..share {
                file.write_all(&self.block)?;
            }
        }
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(Errno) -> Error {
        let path = self.store.layout().subvolume_path();
        move |errno| Error::Volume { path, what, errno }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left after a failure is used, or deleted, by the next run.
        let layout = self.store.layout();
        let _ = self.store.rotate(0);
        let _ = fs::remove_file(layout.snapshots_path().join(MARK));
        let _ = fs::remove_dir(layout.snapshots_path());
        let _ = btrfs::destroy(self.store.volume_fd(), &c_string(SCRATCH));
    }
}
