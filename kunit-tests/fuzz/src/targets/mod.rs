// SPDX-License-Identifier: GPL-2.0

mod agent;
mod buckets;
mod bus;
mod learning;
mod machine_check;
mod mmu;
mod rank;
mod record;
mod threads;

/// A target: panics if the bytes show that a property does not hold.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("severity", machine_check::severity),
    ("decode", machine_check::decode),
    ("buckets", buckets::buckets),
    ("predict", machine_check::predict),
    ("record", record::record),
    ("bus", bus::bus),
    ("heartbeat", rank::heartbeat),
    ("ladder", rank::ladder),
    ("learning", learning::learning),
    ("threads", threads::threads),
    ("spans", mmu::spans),
    ("combine", mmu::combine),
    ("gather", mmu::gather),
    ("view", agent::view),
    ("arguments", agent::arguments),
    ("state", agent::state),
];
