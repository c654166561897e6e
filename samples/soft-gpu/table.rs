// SPDX-License-Identifier: GPL-2.0

//! The device's page table of a context: four levels, 48 bits, entries of 4096 bytes.
//!
//! The device walks it without a lock. Who installs or removes entries holds the context's lock.
//! Tables are allocated when an entry is about to be installed and stay until the context ends, so
//! that notifiers allocate and free nothing.

use crate::abi::MAX_TABLES;
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        SetOnce, //
    },
};

const PAGE_SHIFT: u32 = 12;
const LEVEL_BITS: u32 = 9;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Device addresses end here.
pub(crate) const END: u64 = 1 << 48;

/// An entry: what a page of the device is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pte(u64);

impl Pte {
    const PRESENT: u64 = 1;
    const WRITABLE: u64 = 2;

    pub(crate) fn new(pfn: usize, writable: bool) -> Self {
        let flags = Self::PRESENT | if writable { Self::WRITABLE } else { 0 };
        Self((pfn as u64) << PAGE_SHIFT | flags)
    }

    pub(crate) fn from_raw(raw: u64) -> Option<Self> {
        (raw & Self::PRESENT != 0).then_some(Self(raw))
    }

    pub(crate) fn as_raw(self) -> u64 {
        self.0
    }

    pub(crate) fn pfn(self) -> usize {
        (self.0 >> PAGE_SHIFT) as usize
    }

    pub(crate) fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }
}

/// The lowest level: 2 MB.
struct Leaf {
    entries: [Atomic<u64>; SLOTS],
}

/// Where a table of the level below is.
struct Slot<T> {
    child: SetOnce<KBox<T>>,
    /// Of a leaf: bit n: some of its entries from 8 * n on may be present.
    present: Atomic<u64>,
}

/// A table of one of the upper levels.
struct Node<T> {
    slots: [Slot<T>; SLOTS],
}

type Level2 = Node<Leaf>;
type Level3 = Node<Level2>;
type Level4 = Node<Level3>;

/// A level that can be created.
trait Level: Sized {
    fn create() -> Result<KBox<Self>>;
}

impl Level for Leaf {
    fn create() -> Result<KBox<Self>> {
        KBox::init(
            init!(Self { entries <- pin_init::init_array_from_fn(|_| Atomic::new(0)) }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl<T> Level for Node<T> {
    fn create() -> Result<KBox<Self>> {
        let empty = |_| Slot {
            child: SetOnce::new(),
            present: Atomic::new(0),
        };
        KBox::init(
            init!(Self { slots <- pin_init::init_array_from_fn(empty) }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

/// The part of `address` that selects a slot of the level whose slots span `1 << shift` bytes.
fn index(address: u64, shift: u32) -> usize {
    (address >> shift) as usize & (SLOTS - 1)
}

impl<T> Node<T> {
    fn slot(&self, address: u64, shift: u32) -> Option<&Slot<T>> {
        self.slots.get(index(address, shift))
    }
}

const SHIFT1: u32 = PAGE_SHIFT;
const SHIFT2: u32 = SHIFT1 + LEVEL_BITS;
const SHIFT3: u32 = SHIFT2 + LEVEL_BITS;
const SHIFT4: u32 = SHIFT3 + LEVEL_BITS;

/// Entries that share a bit of [`Slot::present`].
const GROUP: usize = SLOTS / 64;

/// A page table.
pub(crate) struct Table {
    root: KBox<Level4>,
    /// How many tables there are, of all levels.
    tables: Atomic<u64>,
}

impl Table {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            root: Node::create()?,
            tables: Atomic::new(1),
        })
    }

    pub(crate) fn tables(&self) -> u64 {
        self.tables.load(Relaxed)
    }

    /// The leaf's slot for `address`, or how far beyond it there is none: a power of two.
    fn find(&self, address: u64) -> Result<(&Slot<Leaf>, &Leaf), u64> {
        let child = self.root.slot(address, SHIFT4);
        let level3 = child
            .and_then(|slot| slot.child.as_ref())
            .ok_or(1u64 << SHIFT4)?;
        let child = level3.slot(address, SHIFT3);
        let level2 = child
            .and_then(|slot| slot.child.as_ref())
            .ok_or(1u64 << SHIFT3)?;
        let slot = level2.slot(address, SHIFT2).ok_or(1u64 << SHIFT2)?;
        let leaf = slot.child.as_ref().ok_or(1u64 << SHIFT2)?;
        Ok((slot, leaf))
    }

    /// What the device finds at `address`. Any context.
    pub(crate) fn walk(&self, address: u64) -> Option<Pte> {
        let (_, leaf) = self.find(address).ok()?;
        let entry = leaf.entries.get(index(address, SHIFT1))?;
        // ORDERING: `Acquire` pairs with `install()`.
        Pte::from_raw(entry.load(Acquire))
    }

    fn child<'a, T: Level>(&self, slot: Option<&'a Slot<T>>) -> Result<&'a T> {
        let slot = slot.ok_or(EINVAL)?;
        if slot.child.as_ref().is_none() {
            if self.tables.load(Relaxed) >= MAX_TABLES {
                return Err(ENOSPC);
            }
            // Somebody else may have been faster.
            if slot.child.populate(T::create()?) {
                self.tables.add(1, Relaxed);
            }
        }
        // A slot that is just being populated by somebody else is seen empty.
        slot.child.as_ref().map(|child| &**child).ok_or(EAGAIN)
    }

    /// Allocates the tables that an entry for `address` needs. May sleep.
    ///
    /// [`ENOSPC`]: there are too many; [`EAGAIN`]: somebody else is allocating the same one.
    pub(crate) fn prepare(&self, address: u64) -> Result {
        let level3 = self.child(self.root.slot(address, SHIFT4))?;
        let level2 = self.child(level3.slot(address, SHIFT3))?;
        self.child(level2.slot(address, SHIFT2)).map(|_| ())
    }

    /// Installs an entry, whose tables were prepared, with the context's lock held.
    pub(crate) fn install(&self, address: u64, pte: Pte) {
        let Ok((slot, leaf)) = self.find(address) else {
            return;
        };
        let page = index(address, SHIFT1);
        if let Some(entry) = leaf.entries.get(page) {
            let present = slot.present.load(Relaxed) | 1 << (page / GROUP);
            slot.present.store(present, Relaxed);
            entry.store(pte.as_raw(), Release);
        }
    }

    /// Calls `f` for each leaf of `range`, with the pages of it that are in `range`, until it
    /// returns `false`.
    fn leaves(
        &self,
        range: Range<u64>,
        mut f: impl FnMut(&Slot<Leaf>, &Leaf, Range<usize>) -> bool,
    ) {
        let end = range.end.min(END);
        let mut address = range.start;
        while address < end {
            let found = self.find(address);
            let size = found.as_ref().err().copied().unwrap_or(1 << SHIFT2);
            let next = (address | (size - 1)).saturating_add(1);
            if let Ok((slot, leaf)) = found {
                let first = index(address, SHIFT1);
                let last = index(next.min(end).saturating_sub(1), SHIFT1);
                if !f(slot, leaf, first..last.saturating_add(1)) {
                    break;
                }
            }
            address = next;
        }
    }

    /// Removes the entries of `range`, with the context's lock held, and tells how many there
    /// were. Neither sleeps nor allocates.
    pub(crate) fn zap(&self, range: Range<u64>) -> u64 {
        let mut zapped = 0;
        self.leaves(range, |slot, leaf, pages| {
            let mut present = slot.present.load(Relaxed);
            for group in groups(present, &pages) {
                let all = group * GROUP..(group + 1) * GROUP;
                let part = all.start.max(pages.start)..all.end.min(pages.end);
                let whole = part == all;
                for entry in leaf.entries.get(part).unwrap_or_default() {
                    if entry.load(Relaxed) != 0 {
                        entry.store(0, Relaxed);
                        zapped += 1;
                    }
                }
                if whole {
                    present &= !(1 << group);
                }
            }
            slot.present.store(present, Relaxed);
            true
        });
        zapped
    }

    /// Whether there is any entry in `range`, with the context's lock held. Does not sleep.
    pub(crate) fn has_any(&self, range: Range<u64>) -> bool {
        let mut found = false;
        self.leaves(range, |slot, leaf, pages| {
            found = groups(slot.present.load(Relaxed), &pages).any(|group| {
                let part = (group * GROUP).max(pages.start)..((group + 1) * GROUP).min(pages.end);
                let entries = leaf.entries.get(part).unwrap_or_default();
                entries.iter().any(|entry| entry.load(Relaxed) != 0)
            });
            !found
        });
        found
    }
}

/// The groups of `pages`, which are not empty and end with a leaf at the latest, whose bit is set.
fn groups(present: u64, pages: &Range<usize>) -> impl Iterator<Item = usize> {
    let (first, behind) = (pages.start / GROUP, pages.end.div_ceil(GROUP));
    let mut left = present & u64::MAX << first & u64::MAX >> (64 - behind);
    core::iter::from_fn(move || {
        let group = left.checked_ilog2()?;
        left &= !(1 << group);
        Some(group as usize)
    })
}
