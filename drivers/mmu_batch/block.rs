// SPDX-License-Identifier: GPL-2.0

//! One notifier of the kernel for many intervals of a space.
//!
//! An event costs a callback, a lock and a ticket for each notifier that it hits. Intervals whose
//! driver only zaps need none of their own: those that lie within a *block* of
//! `tunables/notifier_mib` share one, as the ranges of Xe's SVM do, and the library finds the ones
//! that an event hits itself, under the lock that it needs anyway. Unlike there, each has a
//! sequence of its own ([`Sequence`]): a fault in one interval does not begin again because of
//! another one.

use crate::combine::Ticket;
use crate::ffi::{Driver, Sequence};
use crate::interval::Last;
use crate::space::{Hit, Left, Space, State};
use crate::spans::Span;
use core::ops::Range;
use kernel::{
    mm::{
        interval::{
            BlockableEvent, FinishPass, NonBlockableEvent, NotifierRef, Operations, Owner,
            Registration, WouldBlock,
        },
        MmWithUser,
    },
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::Arc,
};

/// Events that can be between their passes in one block before another one waits in its first.
/// Those within a block have no second pass.
const NODES: usize = 4;

/// An interval that shares a notifier.
pub(crate) struct Member {
    start: u64,
    driver: Driver,
    sequence: Arc<Sequence>,
}

/// The intervals of a space that share notifiers: none of them overlaps another one.
///
/// # Invariants
///
/// The key of each is its end, the byte behind its last one, which is after its start.
pub(crate) struct Members(RBTree<u64, Member>);

/// Room for one more.
struct Room(RBTreeNode<u64, Member>);

impl Room {
    /// For an interval at `range`, which is not empty. Process context, may sleep.
    fn new(range: &Range<u64>, driver: Driver, sequence: Arc<Sequence>) -> Result<Self> {
        let start = range.start;
        let member = Member {
            start,
            driver,
            sequence,
        };
        Ok(Self(RBTreeNode::new(range.end, member, GFP_KERNEL)?))
    }

    fn into_driver(self) -> Driver {
        self.0.to_key_value().1.driver
    }
}

impl Members {
    pub(crate) fn new() -> Self {
        // INVARIANT: There is none.
        Self(RBTree::new())
    }

    /// Inserts an interval, unless it overlaps one that is there: then gives its driver back.
    fn insert(&mut self, range: &Range<u64>, room: Room) -> Result<(), Driver> {
        let mut free = true;
        self.within(range, |_, _| free = false);
        if !free {
            return Err(room.into_driver());
        }
        // INVARIANT: As asked of the caller of `Room::new()`; and none has the same key, since it
        // would overlap.
        self.0.insert(room.0);
        // An event that is under way may have been here already.
        self.within(range, |member, _| member.sequence.follow());
        Ok(())
    }

    /// Removes the interval that ends at `end`.
    fn remove(&mut self, end: u64) -> Option<RBTreeNode<u64, Member>> {
        self.0.remove_node(&end)
    }

    /// Calls `f` for each interval that `range` overlaps, with what they have in common.
    fn within(&mut self, range: &Range<u64>, mut f: impl FnMut(&Member, Range<u64>)) {
        let first = range.start.saturating_add(1);
        let mut next = self.0.cursor_lower_bound_mut(&first);
        while let Some(cursor) = next {
            let (&end, member) = cursor.current();
            if member.start >= range.end {
                break;
            }
            f(member, member.start.max(range.start)..end.min(range.end));
            next = match end < range.end {
                true => cursor.move_next(),
                false => None,
            };
        }
    }
}

/// A part of a space that has one notifier.
pub(crate) struct Block {
    space: Arc<Space>,
    start: u64,
    last: Last,
}

/// A block that is told.
pub(crate) type Registered = Registration<Block, NODES>;

/// A block of a space, and how many intervals it has.
struct Slot {
    block: Arc<Registered>,
    users: usize,
}

/// The blocks of a space, by their first byte and the one behind the last.
pub(crate) struct Blocks(RBTree<(usize, usize), Slot>);

impl Blocks {
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }
}

fn key(range: &Range<usize>) -> (usize, usize) {
    (range.start, range.end)
}

/// An interval in a block.
pub(crate) struct Shared {
    range: Range<u64>,
    sequence: Arc<Sequence>,
    user: User,
}

/// A use of a block.
struct User {
    space: Arc<Space>,
    block: Arc<Registered>,
}

impl User {
    /// Finds the block at `range`, or makes it. Process context, may sleep.
    fn new(space: &Arc<Space>, memory: &MmWithUser, range: &Range<usize>) -> Result<Self> {
        let mut blocks = space.blocks();
        let block = match blocks.0.get_mut(&key(range)) {
            Some(slot) => {
                slot.users = slot.users.saturating_add(1);
                slot.block.clone()
            }
            None => {
                let block = Block {
                    space: space.clone(),
                    start: range.start as u64,
                    last: Last::new(),
                };
                let registration = Registration::new(memory, range.clone(), block);
                let block = Arc::pin_init(registration, GFP_KERNEL)?;
                let slot = Slot {
                    block: block.clone(),
                    users: 1,
                };
                blocks
                    .0
                    .insert(RBTreeNode::new(key(range), slot, GFP_KERNEL)?);
                block
            }
        };
        Ok(Self {
            space: space.clone(),
            block,
        })
    }
}

impl Drop for User {
    /// With the last user goes the block, after the events that are under way in it.
    fn drop(&mut self) {
        let mut blocks = self.space.blocks();
        let key = key(&self.block.range());
        let Some(slot) = blocks.0.get_mut(&key) else {
            return;
        };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            // Its notifier is removed with the last reference, which is ours.
            drop(blocks.0.remove(&key));
        }
    }
}

impl Shared {
    /// Makes `driver`, which only zaps, hear of `range`, which lies within `block`. Process
    /// context, may sleep. Gives the driver back if the range overlaps that of another interval.
    pub(crate) fn insert(
        space: &Arc<Space>,
        memory: &MmWithUser,
        block: &Range<usize>,
        range: Range<u64>,
        driver: Driver,
    ) -> Result<Result<Self, Driver>> {
        let user = User::new(space, memory, block)?;
        let sequence = Arc::new(Sequence::new(user.block.clone(), &range), GFP_KERNEL)?;
        let room = Room::new(&range, driver, sequence.clone())?;
        let inserted = space.lock().members.insert(&range, room);
        Ok(inserted.map(|()| Self {
            range,
            sequence,
            user,
        }))
    }

    /// What the kernel calls it.
    pub(crate) fn notifier(&self) -> &NotifierRef {
        self.sequence.notifier()
    }

    /// Has the driver zap what is left of the interval, waits until it is out of the TLB, and tells
    /// the driver no more.
    pub(crate) fn remove(self) {
        // The sequences go before the block.
        let Self {
            user,
            range,
            sequence: _sequence,
        } = self;
        let space = &*user.space;
        let hit = Hit::removal(space, &user.block.data().last, &range);
        let (mut state, zap) = hit.lock();
        let mut live = false;
        state.members.within(&range, |member, _| {
            live = member.driver.zap(&hit.span, hit.kind);
        });
        // Waits, as there is nothing else in the event.
        let _ = hit.zapped_and_waits(state, zap, live);
        // Until then, events had to find it, and to wait as well.
        let gone = space.lock().members.remove(range.end);
        drop(gone);
    }
}

impl Block {
    /// Calls `f` for each interval that the event hits, with its driver and what of it is hit, and
    /// has its readers begin again; how many there were.
    fn each(hit: &Hit<'_>, state: &mut State, mut f: impl FnMut(&Driver, &Span)) -> u64 {
        let mut intervals = 0u64;
        let mut span = hit.span;
        state
            .members
            .within(&(hit.span.start..hit.span.end), |member, range| {
                (span.start, span.end) = (range.start, range.end);
                intervals = intervals.saturating_add(1);
                member.sequence.follow();
                f(&member.driver, &span);
            });
        intervals
    }
}

impl Operations for Block {
    type Pending = Ticket;

    fn start(&self, event: &BlockableEvent<'_>) -> Option<Ticket> {
        let mut hit = Hit::new(&self.space, &self.last, self.start, event);
        let (mut state, zap) = hit.lock();
        // From the first to the last of those that had something.
        let mut zapped: Option<Range<u64>> = None;
        let intervals = Self::each(&hit, &mut state, |driver, span| {
            if driver.zap(span, hit.kind) {
                let start = zapped.as_ref().map_or(span.start, |zapped| zapped.start);
                zapped = Some(start..span.end);
            }
        });
        if intervals == 0 {
            return None;
        }
        hit.intervals = intervals;
        hit.count(&mut state);
        let live = zapped.is_some();
        if let Some(zapped) = zapped {
            hit.narrow(zapped);
        }
        match hit.zapped_and_waits(state, zap, live) {
            Left::Wait(ticket) => Some(ticket),
            // An earlier notifier of the same event waits for it.
            Left::Nothing | Left::Flushed | Left::Same(_) => None,
        }
    }

    fn finish(&self, ticket: Ticket, pass: &FinishPass<'_>) {
        let device = self.space.device();
        if pass.is_early() {
            device.counters.sync_flushes.add(1);
        }
        device.wait(ticket);
    }

    fn try_invalidate(&self, event: &NonBlockableEvent<'_>) -> Result<(), WouldBlock> {
        let mut hit = Hit::new(&self.space, &self.last, self.start, event);
        let Some((mut state, _)) = hit.try_lock() else {
            hit.would_block();
            return Err(WouldBlock);
        };
        let mut live = false;
        let intervals = Self::each(&hit, &mut state, |driver, span| {
            live = live || driver.live(span, hit.kind);
        });
        if intervals == 0 {
            return Ok(());
        }
        hit.intervals = intervals;
        hit.count(&mut state);
        if live || hit.in_flight(&state) {
            drop(state);
            hit.would_block();
            return Err(WouldBlock);
        }
        drop(state);
        hit.nothing();
        Ok(())
    }

    fn owner(&self) -> Option<Owner> {
        self.space.device().pgmap_owner
    }
}
