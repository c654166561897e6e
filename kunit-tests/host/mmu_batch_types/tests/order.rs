// SPDX-License-Identifier: GPL-2.0

//! What the types have the library do, and when.

use nullhz_mmu_batch_types_host::mmu_batch::{
    Answer, Done, DriverUnmap, Event, Flushed, Interval, IntervalOps, Lease, Live, Pages, Pass1,
    Space, Ticket, ZapOps,
};
use nullhz_mmu_batch_types_host::Table;
use std::ops::Range;
use std::sync::{mpsc, Arc};

struct Mapping;

impl IntervalOps for Mapping {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => event.zap(Table::clear),
            Event::NonBlockable(peek) => peek.check(Table::any).into(),
        }
    }
}

fn space(mapped: impl IntoIterator<Item = u64>) -> (Arc<Space<Table>>, Interval<Mapping>) {
    (
        Space::new(Table(mapped.into_iter().collect())),
        Interval::new(Mapping),
    )
}

#[test]
fn a_zap_a_ticket_a_flush() {
    let (space, interval) = space([3, 17]);
    assert_eq!(space.event(&interval, 0..10, true), Answer::Finished);
    let done = [Done::Lock, Done::Ticket, Done::Unlock, Done::Flush];
    assert_eq!(space.log(), done);
    assert!(space.lock().0.iter().eq([&17]));
}

#[test]
fn nothing_there() {
    let (space, interval) = space([17]);
    assert_eq!(space.event(&interval, 0..10, true), Answer::Done);
    assert_eq!(space.log(), [Done::Lock, Done::Unlock]);
}

#[test]
fn nothing_there_any_more_but_not_flushed() {
    let (space, interval) = space([]);
    space.zap_elsewhere();
    assert_eq!(space.event(&interval, 0..10, true), Answer::Finished);
    assert_eq!(space.log(), [Done::Lock, Done::Unlock, Done::Flush]);
    assert_eq!(space.event(&interval, 0..10, true), Answer::Done);
}

#[test]
fn without_sleeping() {
    let (space, interval) = space([17]);
    assert_eq!(space.event(&interval, 0..10, false), Answer::Done);
    assert_eq!(space.event(&interval, 10..20, false), Answer::WouldBlock);
    assert_eq!(space.log(), [Done::Lock, Done::Unlock].repeat(2));
    space.zap_elsewhere();
    assert_eq!(space.event(&interval, 0..10, false), Answer::WouldBlock);
    space.drain();
    assert_eq!(space.event(&interval, 0..10, false), Answer::Done);
    let locked = space.lock();
    assert_eq!(space.event(&interval, 0..10, false), Answer::WouldBlock);
    assert_eq!(locked.0.len(), 1);
}

/// Locks, thinks again, and answers by a flush in the first pass.
struct Hesitant;

impl IntervalOps for Hesitant {
    type Shadow = Table;

    fn start<'e>(&self, event: Event<'e, Table>) -> Pass1<'e> {
        match event {
            Event::Blockable(event) => match event.lock().zap(|_, _| Live::Something).ticket() {
                Ok(ticket) => Pass1::Done(ticket.wait()),
                Err(flushed) => Pass1::Done(flushed),
            },
            Event::NonBlockable(peek) => Pass1::WouldBlock(peek.give_up()),
        }
    }

    fn finish<'e>(&self, _ticket: Ticket<'e>) -> Flushed<'e> {
        unreachable!("no second pass")
    }
}

#[test]
fn a_flush_in_the_first_pass() {
    let space = Space::new(Table::default());
    let interval = Interval::new(Hesitant);
    assert_eq!(space.event(&interval, 0..1, true), Answer::Done);
    assert_eq!(space.log().last(), Some(&Done::Flush));
    assert_eq!(space.event(&interval, 0..1, false), Answer::WouldBlock);
    assert_eq!(space.log(), []);
}

/// Says when it is dropped.
struct Told(&'static str, mpsc::Sender<&'static str>);

impl Drop for Told {
    fn drop(&mut self) {
        self.1.send(self.0).unwrap();
    }
}

impl Pages for Told {
    fn count(&self) -> u64 {
        1
    }
}

impl Lease for Told {
    fn range(&self) -> Range<u64> {
        5..6
    }
}

#[test]
fn pages_and_addresses_come_back_after_the_flush() {
    let space = Space::new(Table([5].into()));
    let (said, heard) = mpsc::channel();
    let pages = Told("pages", said.clone());
    let Ok(unmap) = DriverUnmap::new(pages, Told("lease", said));
    assert_eq!(unmap.lease().range().start, 5);
    unmap.defer(&*space, |table, pages, lease| {
        assert_eq!(pages.count(), 1);
        table.clear(lease.range())
    });
    assert!(space.lock().0.is_empty());
    assert_eq!(heard.try_iter().count(), 0);
    space.drain();
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["pages", "lease"]);
}

#[test]
fn who_does_not_look_has_something() {
    struct Blind;

    impl ZapOps for Blind {
        type Shadow = Table;

        fn zap(&self, table: &mut Table, range: Range<u64>) -> Live {
            table.clear(range)
        }
    }

    assert_eq!(Blind.live(&Table::default(), 0..10), Live::Something);
}
