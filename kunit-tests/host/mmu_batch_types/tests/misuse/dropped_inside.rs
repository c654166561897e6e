// SPDX-License-Identifier: GPL-2.0

//! An interval that is dropped in a callback, and waits for it.

use nullhz_mmu_batch_types_host::mmu_batch::{Event, Interval, IntervalOps, Pass1, Space};
use nullhz_mmu_batch_types_host::Table;

struct Mapping {
    neighbour: Interval<Neighbour>,
}

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        drop(self.neighbour);
        match event {
            Event::Blockable(event) => event.zap(Table::clear),
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

struct Neighbour;

impl IntervalOps for Neighbour {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => event.zap(Table::clear),
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

fn main() {
    let neighbour = Interval::new(Neighbour);
    let space = Space::new(Table::default());
    space.event(&Interval::new(Mapping { neighbour }), 0..10, true);
}
