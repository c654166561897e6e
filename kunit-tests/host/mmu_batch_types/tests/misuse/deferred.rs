// SPDX-License-Identifier: GPL-2.0

//! The flush of a notifier's event is deferred.

use nullhz_mmu_batch_types_host::mmu_batch::{
    DriverUnmap, Event, Interval, IntervalOps, Pass1, Space,
};
use nullhz_mmu_batch_types_host::{PinnedPages, Table};
use std::sync::{Arc, LazyLock};

static SPACE: LazyLock<Arc<Space<Table>>> = LazyLock::new(|| Space::new(Table::default()));

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => {
                let unmap = DriverUnmap::new(PinnedPages(1), event).unwrap();
                unmap.defer(&*SPACE, |table, _, _| table.clear(0..10));
                unreachable!()
            }
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

fn main() {
    let space = Space::new(Table([3].into()));
    space.event(&Interval::new(Mapping), 0..10, true);
    space.event(&Interval::new(Mapping), 0..10, false);
}
