// SPDX-License-Identifier: GPL-2.0

//! A range of a space of which the driver hears when the CPU's page tables change.

use crate::combine::Ticket;
use crate::ffi::Driver;
use crate::space::{Hit, Space, State};
use crate::spans::Span;
use core::ops::Range;
use kernel::{
    mm::interval::{
        BlockableEvent, Event, FinishPass, Kind, NonBlockableEvent, Operations, Owner,
        Registration, WouldBlock,
    },
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    }, //
};

/// Events that can be between their passes in one interval before another one waits in its first.
const NODES: usize = 2;

/// The ticket of what was zapped last in an interval; accessed under the lock of its space.
pub(crate) struct Last(Atomic<u64>);

impl Last {
    pub(crate) fn get(&self, _locked: &State) -> Ticket {
        Ticket::from_raw(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, _locked: &mut State, ticket: Ticket) {
        self.0.store(ticket.into_raw(), Relaxed);
    }
}

/// An interval.
pub(crate) struct Interval {
    space: Arc<Space>,
    driver: Driver,
    start: u64,
    last: Last,
}

/// An interval that is told.
pub(crate) type Registered = Registration<Interval, NODES>;

impl Interval {
    /// Makes `driver` hear of `range`. Process context, may sleep; see `nullhz/mmu_batch.h`.
    pub(crate) fn insert(
        space: Arc<Space>,
        range: Range<usize>,
        driver: Driver,
    ) -> Result<Pin<KBox<Registered>>> {
        // Dropped last, with no lock held.
        let memory = space.memory().ok_or(ESRCH)?;
        let interval = Interval {
            space,
            driver,
            start: range.start as u64,
            last: Last(Atomic::new(0)),
        };
        KBox::pin_init(Registration::new(&memory, range, interval), GFP_KERNEL)
    }

    /// Has the driver zap what is left of the interval, and waits until it is out of the TLB.
    pub(crate) fn settle(&self, range: Range<usize>) {
        let range = range.start as u64..range.end as u64;
        let hit = Hit {
            space: &self.space,
            last: &self.last,
            at: self.start,
            span: self.space.span(&range),
            whole: range,
            kind: kind_of(Kind::Release),
            removal: true,
        };
        if let Some(ticket) = self.driver.start(&hit) {
            self.driver
                .finish(self.space.device(), ticket, &hit.span, hit.kind);
        }
    }

    fn hit<'a>(&'a self, event: &Event<'_>) -> Hit<'a> {
        let (whole, range) = (event.range(), event.overlap());
        Hit {
            space: &self.space,
            last: &self.last,
            at: self.start,
            whole: whole.start as u64..whole.end as u64,
            span: self.space.span(&(range.start as u64..range.end as u64)),
            kind: kind_of(event.kind()),
            removal: false,
        }
    }
}

/// As `enum mmu_notifier_event`; `exports.c` asserts the same.
fn kind_of(kind: Kind) -> u32 {
    match kind {
        Kind::Unmap => 0,
        Kind::Clear => 1,
        Kind::ProtectionVma => 2,
        Kind::ProtectionPage => 3,
        Kind::SoftDirty => 4,
        Kind::Release => 5,
        Kind::Migrate => 6,
        Kind::Exclusive => 7,
        Kind::Other(kind) => kind,
    }
}

/// What the first pass leaves for the second.
pub(crate) struct Pending {
    ticket: Ticket,
    span: Span,
    kind: u32,
}

impl Operations for Interval {
    type Pending = Pending;

    fn start(&self, event: &BlockableEvent<'_>) -> Option<Pending> {
        let hit = self.hit(event);
        let ticket = self.driver.start(&hit)?;
        Some(Pending {
            ticket,
            span: hit.span,
            kind: hit.kind,
        })
    }

    fn finish(&self, pending: Pending, pass: &FinishPass<'_>) {
        let device = self.space.device();
        if pass.is_early() {
            device.counters.sync_flushes.add(1);
        }
        self.driver
            .finish(device, pending.ticket, &pending.span, pending.kind);
    }

    fn try_invalidate(&self, event: &NonBlockableEvent<'_>) -> Result<(), WouldBlock> {
        let hit = self.hit(event);
        if self.driver.try_start(&hit) {
            hit.nothing();
            Ok(())
        } else {
            hit.would_block();
            Err(WouldBlock)
        }
    }

    fn owner(&self) -> Option<Owner> {
        self.space.device().pgmap_owner
    }
}
