// SPDX-License-Identifier: GPL-2.0

//! A callback that must not sleep, and does.

use nullhz_mmu_batch_types_host::mmu_batch::{Event, Interval, IntervalOps, Pass1, Space};
use nullhz_mmu_batch_types_host::Table;

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => event.zap(Table::clear),
            Event::NonBlockable(peek) => peek.lock().zap(Table::clear).settle(),
        }
    }
}

fn main() {
    let space = Space::new(Table([3].into()));
    space.event(&Interval::new(Mapping), 0..10, true);
    space.event(&Interval::new(Mapping), 0..10, false);
}
