// SPDX-License-Identifier: GPL-2.0

//! The ring of records, and the cursors that read it. Pure logic.
//!
//! The ring overwrites its oldest record when it is full, so a slow reader misses records. How many
//! of those it wanted cannot be told from the records themselves, which are gone. So the ring and
//! the cursors count by source and level ([`Tally`]): the ring what it has overwritten, a cursor
//! what it has passed. The difference, taken over the sources and levels that a cursor's filter
//! lets pass, is the exact loss, and costs the reporter one addition.
//!
//! Nothing here allocates, blocks or panics; everything is bounded by a small constant, as all of
//! it runs under a raw spinlock.

use super::abi::{self, flag, source, Event, Level};
use core::ops::DerefMut;

/// Where arrays whose length is known only at run time live.
///
/// `kernel::alloc::KVVec` in the kernel, `Vec` on the host.
pub trait Storage {
    /// An array.
    type Of<T>: DerefMut<Target = [T]>;
    /// Why there was none.
    type Error;

    /// An array of `len` times `value`.
    fn filled<T: Copy>(value: T, len: usize) -> Result<Self::Of<T>, Self::Error>;
}

/// What a reader wants: the records of some sources from some level on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    min_level: Level,
    sources: u64,
}

impl Filter {
    /// Lets everything pass.
    pub const ALL: Self = Self {
        min_level: Level::Watch,
        sources: u64::MAX,
    };

    /// Lets the sources in the mask `sources` pass from `min_level` on.
    pub const fn new(min_level: Level, sources: u64) -> Self {
        Self { min_level, sources }
    }

    /// Checks what user space asks for: a known level, a source at least, no stray bits.
    pub fn from_abi(raw: &abi::Filter) -> Option<Self> {
        let min_level = Level::from_raw(u8::try_from(raw.min_level).ok()?)?;
        (raw.pad == 0 && raw.source_mask != 0).then_some(Self::new(min_level, raw.source_mask))
    }

    /// This filter, but nothing milder than `level`.
    pub fn at_least(self, level: Level) -> Self {
        Self {
            min_level: self.min_level.max(level),
            ..self
        }
    }

    /// Whether records of `source` at `level` pass.
    pub fn passes(&self, source: u16, level: u8) -> bool {
        level >= self.min_level as u8 && self.has(source.into())
    }

    /// Whether one of `fresh` passes: by level, the sources that have something new.
    pub fn passes_any(&self, fresh: &[u64; Level::COUNT]) -> bool {
        fresh
            .iter()
            .skip(self.min_level as usize)
            .any(|sources| sources & self.sources != 0)
    }

    fn has(&self, source: u32) -> bool {
        self.sources.checked_shr(source).unwrap_or(0) & 1 != 0
    }
}

/// Counts of records by source and level.
pub struct Tally<S: Storage>(S::Of<[u64; Level::COUNT]>);

impl<S: Storage> Tally<S> {
    /// Nothing counted yet.
    pub fn new() -> Result<Self, S::Error> {
        Ok(Self(S::filled([0; Level::COUNT], source::COUNT)?))
    }

    fn add(&mut self, event: &Event) {
        let levels = self.0.get_mut(usize::from(event.source));
        if let Some(count) = levels.and_then(|l| l.get_mut(usize::from(event.level))) {
            *count = count.wrapping_add(1);
        }
    }

    fn copy_from(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(other.0.iter()) {
            *to = *from;
        }
    }

    /// How many records that `filter` lets pass were counted here since `earlier` was the same.
    fn since(&self, earlier: &Self, filter: &Filter) -> u64 {
        let sources = (0u32..).zip(self.0.iter().zip(earlier.0.iter()));
        let wanted = sources.filter(|(source, _)| filter.has(*source));
        wanted.fold(0, |sum, (_, (now, then))| {
            let levels = now.iter().zip(then).skip(filter.min_level as usize);
            levels.fold(sum, |sum: u64, (now, then)| {
                sum.wrapping_add(now.wrapping_sub(*then))
            })
        })
    }
}

/// Where one reader is.
///
/// # Invariants
///
/// - `passed` counts the records with a `seq` below `next`, all of them, whatever the filter.
/// - `replay_from <= replay_to <= next`. As long as there is something between the former two,
///   `replay_to` is `next`: what is replayed comes before the cursor moves on.
pub struct Cursor<S: Storage> {
    next: u64,
    passed: Tally<S>,
    filter: Filter,
    lost: u64,
    replay_from: u64,
    replay_to: u64,
}

impl<S: Storage> Cursor<S> {
    /// A cursor that has yet to be placed by [`Ring::seek_oldest`] or [`Ring::seek_newest`].
    pub fn new() -> Result<Self, S::Error> {
        Ok(Self {
            next: 1,
            passed: Tally::new()?,
            filter: Filter::ALL,
            lost: 0,
            replay_from: 1,
            replay_to: 1,
        })
    }

    /// What passes.
    pub fn filter(&self) -> Filter {
        self.filter
    }

    /// Lets other records pass from here on; settle first, as what was lost so far counts as it was
    /// filtered.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
    }

    /// The `seq` of the next record that it looks at.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Matching records missed, and not yet told to the reader.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The range of `seq` whose dropped opening events are still to be delivered, if there is one.
    pub fn replay(&self) -> Option<(u64, u64)> {
        (self.replay_from < self.replay_to).then_some((self.replay_from, self.replay_to))
    }

    /// Nothing below `seq` is to be replayed any more.
    pub fn replayed_to(&mut self, seq: u64) {
        self.replay_from = seq.max(self.replay_from).min(self.replay_to);
    }

    /// The reader has taken `event`, which was found for it and has not been consumed yet.
    pub fn consume(&mut self, event: &Event) {
        let after = event.seq.wrapping_add(1);
        if event.flags & flag::REPLAYED != 0 {
            self.replayed_to(after);
        } else {
            // INVARIANT: `find` left `next` at this very record.
            self.passed.add(event);
            self.next = after;
        }
        self.lost = self.lost.saturating_sub(event.lost);
    }
}

/// What [`Ring::find`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A matching record was copied out.
    Record,
    /// None so far; ask again, after the lock was dropped.
    More,
    /// There is none.
    Nothing,
}

/// The newest records, overwriting.
///
/// # Invariants
///
/// - `slots.len()` is `mask + 1`, a power of two.
/// - The record with `seq` n, for n from [`Ring::tail`] to `head`, is in slot `n & mask`.
/// - `pushed` counts the records up to `head`, `dropped` those below [`Ring::tail`].
pub struct Ring<S: Storage> {
    slots: S::Of<Event>,
    mask: u64,
    head: u64,
    pushed: Tally<S>,
    dropped: Tally<S>,
}

/// How many records are looked at while the lock is held: about the cache misses of one copy.
const LOOK: usize = 16;

impl<S: Storage> Ring<S> {
    /// A ring of `1 << order` records.
    pub fn new(order: u32) -> Result<Self, S::Error> {
        let len = 1usize << order.min(usize::BITS - 1);
        Ok(Self {
            slots: S::filled(Event::ZERO, len)?,
            mask: len as u64 - 1,
            head: 0,
            pushed: Tally::new()?,
            dropped: Tally::new()?,
        })
    }

    /// How many records it holds when full.
    pub fn capacity(&self) -> u64 {
        self.mask.wrapping_add(1)
    }

    /// `seq` of the newest record, 0: none yet.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// `seq` of the oldest record that is still there; `head + 1` when there is none.
    pub fn tail(&self) -> u64 {
        self.head.saturating_sub(self.mask).max(1)
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Event> {
        self.slots.get_mut((seq & self.mask) as usize)
    }

    fn at(&self, seq: u64) -> Option<&Event> {
        self.slots.get((seq & self.mask) as usize)
    }

    /// The `seq` that the next record gets.
    pub fn next_seq(&self) -> u64 {
        self.head.wrapping_add(1)
    }

    /// Adds a record; its `seq` has to be [`Ring::next_seq`].
    pub fn push(&mut self, event: &Event) {
        let seq = self.next_seq();
        // The slot that `seq` goes to holds the oldest record once every slot is in use.
        if seq > self.capacity() {
            if let Some(oldest) = self.slots.get((seq & self.mask) as usize) {
                self.dropped.add(oldest);
            }
        }
        if let Some(slot) = self.slot(seq) {
            *slot = *event;
        }
        self.pushed.add(event);
        self.head = seq;
    }

    /// Accounts for what was overwritten before `cursor` had looked at it; how much of that it
    /// wanted.
    pub fn settle(&self, cursor: &mut Cursor<S>) -> u64 {
        if cursor.next >= self.tail() {
            return 0;
        }
        let lost = self.dropped.since(&cursor.passed, &cursor.filter);
        cursor.lost = cursor.lost.saturating_add(lost);
        if cursor.replay().is_none() {
            cursor.replay_from = cursor.next;
        }
        self.place_at_tail(cursor);
        lost
    }

    fn place_at_tail(&self, cursor: &mut Cursor<S>) {
        // INVARIANT: `dropped` counts exactly what is below the tail.
        cursor.next = self.tail();
        cursor.replay_to = cursor.next;
        cursor.passed.copy_from(&self.dropped);
    }

    /// Finds the next record that `cursor`, settled, wants and copies it to `out`, with what was
    /// lost before it. The record stays unread until [`Cursor::consume`].
    pub fn find(&self, cursor: &mut Cursor<S>, out: &mut Event) -> Found {
        for _ in 0..LOOK {
            if cursor.next > self.head {
                return Found::Nothing;
            }
            let Some(event) = self.at(cursor.next) else {
                return Found::Nothing;
            };
            if cursor.filter.passes(event.source, event.level) {
                *out = *event;
                out.lost = cursor.lost;
                return Found::Record;
            }
            cursor.passed.add(event);
            cursor.next = cursor.next.wrapping_add(1);
        }
        Found::More
    }

    /// How many records of `level` or worse `cursor`, settled, can still read.
    pub fn unread(&self, cursor: &Cursor<S>, level: Level) -> u64 {
        self.pushed
            .since(&cursor.passed, &cursor.filter.at_least(level))
    }

    /// Starts with the oldest record, and with the opening events that are older still.
    pub fn seek_oldest(&self, cursor: &mut Cursor<S>) {
        cursor.lost = 0;
        cursor.replay_from = 1;
        self.place_at_tail(cursor);
    }

    /// Starts with the next record to come.
    pub fn seek_newest(&self, cursor: &mut Cursor<S>) {
        cursor.lost = 0;
        cursor.next = self.next_seq();
        cursor.replay_from = cursor.next;
        cursor.replay_to = cursor.next;
        cursor.passed.copy_from(&self.pushed);
    }

    /// Moves a cursor that was placed by [`Ring::seek_oldest`] on towards `seq`; whether it is
    /// there, or at the nearest record. If not, ask again, after the lock was dropped.
    pub fn seek_on(&self, cursor: &mut Cursor<S>, seq: u64) -> bool {
        if cursor.next < self.tail() {
            self.place_at_tail(cursor);
        }
        for _ in 0..LOOK {
            if cursor.next >= seq || cursor.next > self.head {
                break;
            }
            if let Some(event) = self.at(cursor.next) {
                cursor.passed.add(event);
            }
            cursor.next = cursor.next.wrapping_add(1);
        }
        // Whoever asks for a sequence number has read what came before it.
        cursor.replay_from = cursor.next;
        cursor.replay_to = cursor.next;
        cursor.next >= seq || cursor.next > self.head
    }
}
