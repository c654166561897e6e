// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/nullhz_stall/`, for developers: a table of the ranks. Nothing depends on its
//! format.

use crate::ffi;
use crate::monitor::Monitor;
use kernel::{debugfs::Scope, fmt, prelude::*, sync::Arc};

/// Creates the directory.
pub(crate) fn new(monitor: Arc<Monitor>) -> impl PinInit<Scope<Arc<Monitor>>> {
    Scope::dir(monitor, c"nullhz_stall", |monitor, dir| {
        dir.read_callback_file(c"ranks", monitor, &show_ranks);
    })
}

fn show_ranks(monitor: &Arc<Monitor>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "rank pid tid state phase step progress age_ms deadline_ms grace_ms steps stalls name"
    )?;
    for index in 0.. {
        // One at a time: formatting is no work to do while the sampler waits.
        let table = monitor.table.lock();
        let Some(entry) = table.entries.get(index) else {
            break;
        };
        let now = table.clock.at(ffi::monotonic_ns());
        let (member, rank) = (entry.member.clone(), &entry.rank);
        let (state, phase) = (rank.state().name(), rank.phase().name());
        let (step, progress) = (rank.step(), rank.progress());
        let times = [rank.age_ns(now), rank.deadline_ns(), rank.grace_ns(now)];
        let [age, deadline, grace] = times.map(|ns| ns / 1_000_000);
        let (steps, stalls) = (rank.steps_seen(), rank.stalls());
        drop(table);
        writeln!(
            f,
            "{} {} {} {state} {phase} {step} {progress} \
             {age} {deadline} {grace} {steps} {stalls} {}",
            member.rank,
            member.task.tgid(),
            member.task.pid(),
            member.job()
        )?;
    }
    Ok(())
}
