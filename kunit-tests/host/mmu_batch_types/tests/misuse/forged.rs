// SPDX-License-Identifier: GPL-2.0

//! A proof of a flush that there was not.

use nullhz_mmu_batch_types_host::mmu_batch::{Event, Flushed, Interval, IntervalOps, Pass1, Space};
use nullhz_mmu_batch_types_host::Table;
use std::marker::PhantomData;

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(_) => Pass1::Done(Flushed { mark: PhantomData }),
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

fn main() {
    let space = Space::new(Table([3].into()));
    space.event(&Interval::new(Mapping), 0..10, true);
    space.event(&Interval::new(Mapping), 0..10, false);
}
