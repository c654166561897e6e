// SPDX-License-Identifier: GPL-2.0

//! A translation cache of the device: one per CPU.
//!
//! Its CPU's threads look translations up in it, one access at a time, and fill it from the page
//! table. A flush invalidates entries from the hard interrupt of a broadcast, or from another CPU
//! if its own is offline. As in hardware, an access may be in flight while a flush comes: it holds
//! a translation that the flush cannot take from it, and if it has walked the page table before
//! the entries there were cleared, it is about to cache what it has found. So
//!
//! 1. a flush first raises `flushed`, and then invalidates entries;
//! 2. an access that has written an entry looks at `flushed` after that, and takes the entry back
//!    if a flush came since the access began. With full barriers on both sides, either the flush
//!    sees the entry, or the access sees the flush;
//! 3. a flush is not acknowledged before the accesses that were in flight have ended ([`Drain`]).
//!
//! An access that begins after that sees the cleared page table and no entry of it.

use crate::abi;
use crate::mmu_batch::Span;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        barrier::smp_mb, //
    },
};

/// Entries of a TLB; a power of two. Few enough to look at all of them in an interrupt, for it is
/// the broadcast that a flush should cost.
pub(crate) const ENTRIES: usize = 256;

const PAGE_SHIFT: u32 = 12;
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Device addresses have 48 bits.
const CONTEXT_SHIFT: u32 = 48;
/// An entry of it is valid.
const VALID: u64 = 1;

/// What the entry of a page of a context is known by; never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// `context` has 16 bits, `address` 48.
    pub(crate) fn new(context: u64, address: u64) -> Self {
        Self(context << CONTEXT_SHIFT | address & !(PAGE - 1) | VALID)
    }

    /// Whether any part of the page is in `span`.
    fn is_hit(self, span: &Span) -> bool {
        let page = self.0 & ((1 << CONTEXT_SHIFT) - 1) & !(PAGE - 1);
        self.0 >> CONTEXT_SHIFT == span.tag && span.start < page + PAGE && page < span.end
    }

    fn index(self) -> usize {
        // Also the bits above: pages at strides of 2 MB or 1 GB would else share one entry.
        let page = self.0 >> PAGE_SHIFT;
        (page ^ page >> 9 ^ page >> 18) as usize & (ENTRIES - 1)
    }
}

/// A cached translation.
struct Entry {
    /// A [`Tag`], or 0.
    tag: Atomic<u64>,
    /// An entry of the page table.
    pte: Atomic<u64>,
    /// Of the TLB when it was written; of an older one it is invalid.
    generation: Atomic<u64>,
}

/// A TLB. Its methods can be called in any context.
pub(crate) struct Tlb {
    entries: KVVec<Entry>,
    /// Odd while an access is in flight.
    access: Atomic<u64>,
    /// Flushes so far.
    flushed: Atomic<u64>,
    /// Full flushes so far.
    generation: Atomic<u64>,
    /// The last broadcast that was handled.
    broadcast: Atomic<u64>,
    pub(crate) handled: Atomic<u64>,
    interrupted: Atomic<u64>,
    filled: Atomic<u64>,
    dropped: Atomic<u64>,
    pub(crate) cancelled: Atomic<u64>,
}

impl Tlb {
    pub(crate) fn new() -> Result<Self> {
        let mut entries = KVVec::with_capacity(ENTRIES, GFP_KERNEL)?;
        for _ in 0..ENTRIES {
            let entry = Entry {
                tag: Atomic::new(0),
                pte: Atomic::new(0),
                generation: Atomic::new(0),
            };
            entries.push(entry, GFP_KERNEL)?;
        }
        Ok(Self {
            entries,
            access: Atomic::new(0),
            flushed: Atomic::new(0),
            generation: Atomic::new(0),
            broadcast: Atomic::new(0),
            handled: Atomic::new(0),
            interrupted: Atomic::new(0),
            filled: Atomic::new(0),
            dropped: Atomic::new(0),
            cancelled: Atomic::new(0),
        })
    }

    /// Begins an access; [`None`] while another one is in flight.
    pub(crate) fn begin(&self) -> Option<Access<'_>> {
        let sequence = self.access.load(Relaxed);
        if sequence & 1 != 0 {
            return None;
        }
        // ORDERING: `Full`: what the access reads from here on, entries and page table, it reads
        // after the flush that saw no access in flight had cleared them.
        self.access
            .cmpxchg(sequence, sequence.wrapping_add(1), Full)
            .ok()?;
        Some(Access {
            tlb: self,
            // ORDERING: `Acquire`: before the walk; see 2. in the module's documentation.
            flushed: self.flushed.load(Acquire),
        })
    }

    /// Invalidates all entries (no `spans`), or those within `spans`. `cancel`: walks in flight
    /// must not cache what they have found.
    pub(crate) fn flush(&self, spans: Option<&[Span]>, cancel: bool) {
        if self.access.load(Relaxed) & 1 != 0 {
            self.interrupted.add(1, Relaxed);
        }
        if cancel {
            // ORDERING: `Full`: see 2. in the module's documentation.
            self.flushed.fetch_add(1, Full);
        }
        let Some(spans) = spans else {
            self.generation.fetch_add(1, Relaxed);
            return;
        };
        for span in spans {
            let pages = (span.end.saturating_sub(span.start) >> PAGE_SHIFT) as usize;
            if pages < ENTRIES / 4 {
                let mut page = span.start & !(PAGE - 1);
                while page < span.end {
                    let tag = Tag::new(span.tag, page);
                    if let Some(entry) = self.entries.get(tag.index()) {
                        self.drop_if(entry, |entry| entry == tag);
                    }
                    page = page.saturating_add(PAGE);
                }
            } else {
                for entry in &self.entries {
                    self.drop_if(entry, |entry| entry.is_hit(span));
                }
            }
        }
    }

    /// Invalidates an entry, if `is_hit` says of its tag that it has to go.
    fn drop_if(&self, entry: &Entry, is_hit: impl FnOnce(Tag) -> bool) {
        let tag = entry.tag.load(Relaxed);
        if tag != 0 && is_hit(Tag(tag)) {
            entry.tag.store(0, Relaxed);
            self.dropped.add(1, Relaxed);
        }
    }

    /// As [`Tlb::flush`], for the broadcast of that number.
    pub(crate) fn handle(&self, broadcast: u64, spans: Option<&[Span]>, cancel: bool) {
        self.flush(spans, cancel);
        self.handled.add(1, Relaxed);
        self.broadcast.store(broadcast, Release);
    }

    /// Whether it has handled that broadcast.
    pub(crate) fn has_handled(&self, broadcast: u64) -> bool {
        self.broadcast.load(Acquire) == broadcast
    }

    /// What a flush, which has invalidated the entries, has to wait for.
    pub(crate) fn drain(&self) -> Drain<'_> {
        // ORDERING: Between the invalidation and the look for accesses; see `begin()`.
        smp_mb(Full);
        Drain {
            tlb: self,
            sequence: self.access.load(Acquire),
        }
    }

    /// What user space is told about it.
    pub(crate) fn count(&self, cpu: u32) -> abi::Cpu {
        let generation = self.generation.load(Relaxed);
        let is_valid = |entry: &&Entry| {
            entry.tag.load(Relaxed) != 0 && entry.generation.load(Relaxed) == generation
        };
        abi::Cpu {
            cpu,
            valid: self.entries.iter().filter(is_valid).count() as u32,
            handled: self.handled.load(Relaxed),
            interrupted: self.interrupted.load(Relaxed),
            filled: self.filled.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
        }
    }
}

/// The access that was in flight, if there was one.
pub(crate) struct Drain<'a> {
    tlb: &'a Tlb,
    sequence: u64,
}

impl Drain<'_> {
    /// Whether it has ended.
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: `Acquire`: all that the access did to its page was before.
        self.sequence & 1 == 0 || self.tlb.access.load(Acquire) != self.sequence
    }
}

/// An access in flight, until it is dropped. It must not sleep.
pub(crate) struct Access<'a> {
    tlb: &'a Tlb,
    flushed: u64,
}

impl Access<'_> {
    /// The cached entry of the page table.
    pub(crate) fn lookup(&self, tag: Tag) -> Option<u64> {
        let entry = self.tlb.entries.get(tag.index())?;
        // ORDERING: No other access is in flight, so nobody writes the entry but a flush, which
        // only invalidates it.
        let valid = entry.tag.load(Relaxed) == tag.0
            && entry.generation.load(Relaxed) == self.tlb.generation.load(Relaxed);
        valid.then(|| entry.pte.load(Relaxed))
    }

    /// Caches what a walk has found.
    pub(crate) fn fill(&self, tag: Tag, pte: u64) {
        let tlb = self.tlb;
        let Some(entry) = tlb.entries.get(tag.index()) else {
            return;
        };
        entry.tag.store(0, Relaxed);
        entry.pte.store(pte, Relaxed);
        let generation = tlb.generation.load(Relaxed);
        entry.generation.store(generation, Relaxed);
        entry.tag.store(tag.0, Release);
        // ORDERING: Between the entry and the look for flushes; see 2. in the documentation.
        smp_mb(Full);
        if tlb.flushed.load(Relaxed) == self.flushed {
            tlb.filled.add(1, Relaxed);
        } else {
            entry.tag.store(0, Relaxed);
            tlb.cancelled.add(1, Relaxed);
        }
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        // ORDERING: `Release` pairs with `Acquire` of `Drain`.
        let sequence = self.tlb.access.load(Relaxed);
        self.tlb.access.store(sequence.wrapping_add(1), Release);
    }
}
