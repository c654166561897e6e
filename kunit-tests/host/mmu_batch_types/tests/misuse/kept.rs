// SPDX-License-Identifier: GPL-2.0

//! A ticket that outlives its event.

use nullhz_mmu_batch_types_host::mmu_batch::{Event, Interval, IntervalOps, Pass1, Space, Ticket};
use nullhz_mmu_batch_types_host::Table;
use std::cell::Cell;

thread_local! {
    static KEPT: Cell<Option<Ticket<'static>>> = const { Cell::new(None) };
}

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => match event.lock().zap(Table::clear).ticket() {
                Ok(ticket) => {
                    let before = KEPT.replace(Some(ticket));
                    before.map_or_else(|| unreachable!(), Pass1::Later)
                }
                Err(flushed) => Pass1::Done(flushed),
            },
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

fn main() {
    let space = Space::new(Table([3].into()));
    space.event(&Interval::new(Mapping), 0..10, true);
    space.event(&Interval::new(Mapping), 0..10, false);
}
