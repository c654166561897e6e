// SPDX-License-Identifier: GPL-2.0

//! A ticket that is taken before the zap.

use nullhz_mmu_batch_types_host::mmu_batch::{Event, Interval, IntervalOps, Pass1, Space};
use nullhz_mmu_batch_types_host::Table;

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => {
                let guard = event.lock();
                let ticket = guard.ticket();
                let _ = guard.zap(Table::clear);
                ticket.map_or_else(Pass1::Done, Pass1::Later)
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
