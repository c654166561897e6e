// SPDX-License-Identifier: GPL-2.0
//! Real-time settings: locked memory, housekeeping CPUs, SCHED_FIFO. Where a
//! permission is missing the agent says so and goes on without.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sched::{sched_setaffinity, CpuSet};
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::unistd::Pid;
use tracing::warn;

use crate::sys;

/// How the threads that matter run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// SCHED_FIFO priority; 0 leaves the threads as they are.
    pub priority: i32,
}

impl Settings {
    /// Makes the calling thread a real-time one; says whether it is.
    pub fn apply(self) -> bool {
        if self.priority == 0 {
            return false;
        }
        match sys::set_fifo(self.priority) {
            Ok(()) => true,
            Err(errno) => {
                warn!("no SCHED_FIFO priority {}: {errno}", self.priority);
                false
            }
        }
    }
}

/// Locks all memory, of now and later, so that no page fault waits for a disk.
pub fn lock_memory() {
    if let Err(errno) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        warn!("memory not locked: {errno}");
    }
}

/// Keeps the calling thread, and those that it starts, on these CPUs.
pub fn pin(cpus: &BTreeSet<usize>) {
    let set = cpus.iter().try_fold(CpuSet::new(), |mut set, cpu| {
        set.set(*cpu)?;
        Ok::<_, nix::Error>(set)
    });
    if let Err(errno) = set.and_then(|set| sched_setaffinity(Pid::from_raw(0), &set)) {
        warn!("not pinned to CPUs {}: {errno}", format_cpus(cpus));
    }
}

/// The CPUs that run no training: online, and neither isolated nor without
/// their tick. All online ones when that leaves none.
pub fn housekeeping_cpus() -> BTreeSet<usize> {
    housekeeping_in(Path::new("/sys/devices/system/cpu"))
}

fn housekeeping_in(dir: &Path) -> BTreeSet<usize> {
    let read = |name| {
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        parse_cpus(text.trim()).unwrap_or_default()
    };
    let online = read("online");
    let training: BTreeSet<_> = &read("isolated") | &read("nohz_full");
    let left = &online - &training;
    if left.is_empty() {
        online
    } else {
        left
    }
}

/// A list of CPUs in the kernel's notation, such as `0-1,64`.
///
/// # Errors
///
/// A text that says what is wrong.
pub fn parse_cpus(text: &str) -> Result<BTreeSet<usize>, String> {
    let mut cpus = BTreeSet::new();
    // The kernel prints a newline for none, or "(null)" for a list never set.
    if matches!(text, "" | "(null)") {
        return Ok(cpus);
    }
    let number = |text: &str| match text.parse::<usize>() {
        Ok(cpu) if cpu < CpuSet::count() => Ok(cpu),
        _ => Err(format!("{text:?} is no CPU number")),
    };
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{range:?} is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

/// The inverse of [`parse_cpus`].
pub fn format_cpus(cpus: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sysfs(online: &str, isolated: &str, nohz_full: &str) -> BTreeSet<usize> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("online", online),
            ("isolated", isolated),
            ("nohz_full", nohz_full),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        housekeeping_in(dir.path())
    }

    #[test]
    fn training_cpus_are_left_alone() {
        assert_eq!(sysfs("0-127\n", "2-127\n", "2-127\n"), [0, 1].into());
        assert_eq!(sysfs("0-7\n", "4-7\n", "2-3\n"), [0, 1].into());
        assert_eq!(sysfs("0-3\n", "\n", "(null)\n"), [0, 1, 2, 3].into());
        assert_eq!(sysfs("0-1\n", "0-1\n", "\n"), [0, 1].into());
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for text in ["a", "1-", "3-1", "1,,2", "-1", "99999999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn lists_come_back(cpus in prop::collection::btree_set(0usize..1024, 0..40)) {
            prop_assert_eq!(parse_cpus(&format_cpus(&cpus)), Ok(cpus));
        }
    }
}
