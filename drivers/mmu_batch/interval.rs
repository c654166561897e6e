// SPDX-License-Identifier: GPL-2.0

//! A range of a space of which the driver hears when the CPU's page tables change.

use crate::block::Shared;
use crate::combine::Ticket;
use crate::ffi::Driver;
use crate::space::{Hit, Space, State};
use crate::spans::Span;
use core::ops::Range;
use kernel::{
    mm::interval::{
        BlockableEvent, Event, FinishPass, Kind, NonBlockableEvent, NotifierRef, Operations, Owner,
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

/// The ticket of what was zapped last in what a notifier watches; accessed under the lock of its
/// space.
pub(crate) struct Last(Atomic<u64>);

impl Last {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(Ticket::FINISHED.into_raw()))
    }

    pub(crate) fn get(&self, _locked: &State) -> Ticket {
        Ticket::from_raw(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, _locked: &mut State, ticket: Ticket) {
        self.0.store(ticket.into_raw(), Relaxed);
    }
}

/// An interval with a notifier of its own.
pub(crate) struct Own {
    space: Arc<Space>,
    driver: Driver,
    start: u64,
    last: Last,
}

/// An interval that is told.
pub(crate) enum Interval {
    Own(Pin<KBox<Registration<Own, NODES>>>),
    Shared(Shared),
}

impl Interval {
    /// Makes `driver` hear of `range`. Process context, may sleep; see `nullhz/mmu_batch.h`.
    pub(crate) fn insert(
        space: Arc<Space>,
        range: Range<usize>,
        mut driver: Driver,
    ) -> Result<Pin<KBox<Self>>> {
        if range.is_empty() {
            return Err(EINVAL);
        }
        // Dropped last, with no lock held.
        let memory = space.memory().ok_or(ESRCH)?;
        // Before the rest: nothing can fail once the driver is told.
        let place = KBox::<Self>::new_uninit(GFP_KERNEL)?;
        let block = space.device().tunables.block_of(&range);
        if let Some(block) = block.filter(|_| driver.only_zaps()) {
            let range = range.start as u64..range.end as u64;
            match Shared::insert(&space, &memory, &block, range, driver)? {
                Ok(shared) => return Ok(Pin::new(KBox::write(place, Self::Shared(shared)))),
                Err(back) => driver = back,
            }
        }
        let own = Own {
            space,
            driver,
            start: range.start as u64,
            last: Last::new(),
        };
        let own = KBox::pin_init(Registration::new(&memory, range, own), GFP_KERNEL)?;
        Ok(Pin::new(KBox::write(place, Self::Own(own))))
    }

    /// What the kernel calls it.
    pub(crate) fn notifier(&self) -> &NotifierRef {
        match self {
            Self::Own(own) => own,
            Self::Shared(shared) => shared.notifier(),
        }
    }

    /// Has the driver zap what is left, waits until it is out of the TLB, and tells it no more.
    pub(crate) fn remove(self) {
        match self {
            Self::Own(own) => {
                let range = own.range();
                own.data().settle(range.start as u64..range.end as u64);
            }
            Self::Shared(shared) => shared.remove(),
        }
    }
}

impl Own {
    fn settle(&self, range: Range<u64>) {
        let hit = Hit::removal(&self.space, &self.last, &range);
        if let Some(ticket) = self.driver.start(&hit) {
            self.driver
                .finish(self.space.device(), ticket, &hit.span, hit.kind);
        }
    }

    fn hit<'a>(&'a self, event: &Event<'_>) -> Hit<'a> {
        Hit::new(&self.space, &self.last, self.start, event)
    }
}

/// As `enum mmu_notifier_event`; `exports.c` asserts the same.
pub(crate) fn kind_of(kind: Kind) -> u32 {
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

impl Operations for Own {
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
