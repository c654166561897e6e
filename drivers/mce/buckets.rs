// SPDX-License-Identifier: GPL-2.0

//! Leaky buckets in tables of fixed size.
//!
//! A bucket counts errors of one part of the machine and leaks those that are older than its
//! window. It leaks by the slice, an eighth of the window: an error counts for at least one window
//! and at most nine eighths of it, so that "n within the window" is never missed.

use super::slots::mix;
use core::ops::DerefMut;

const SLICES: usize = 8;

/// Where tables get their memory from.
pub(crate) trait Arena {
    /// Memory for values of `T`.
    type Buffer<T: Copy>: DerefMut<Target = [T]>;
    /// Why there is none.
    type Error;

    /// `len` times `value`.
    fn filled<T: Copy>(len: usize, value: T) -> Result<Self::Buffer<T>, Self::Error>;
}

/// A window of time, in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    slice_ns: u64,
}

impl Window {
    /// A window of `seconds`, at least 1.
    pub(crate) const fn from_secs(seconds: u32) -> Self {
        let seconds = if seconds == 0 { 1 } else { seconds as u64 };
        Window {
            slice_ns: seconds * (1_000_000_000 / SLICES as u64),
        }
    }

    /// The slice that the time `ns` is in.
    const fn slice(&self, ns: u64) -> u64 {
        // Never 0, by construction.
        match ns.checked_div(self.slice_ns) {
            Some(slice) => slice,
            None => 0,
        }
    }
}

/// A leaky bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// The newest slice first.
    counts: [u32; SLICES + 1],
    newest: u64,
    trips: u8,
}

/// What an error did to a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Errors in the bucket now.
    pub(crate) count: u32,
    /// 0, or how often the bucket has reached a limit since it was calm: the threshold, twice the
    /// threshold, four times and so on. Only the error that reaches a limit is told.
    pub(crate) trips: u8,
}

impl Bucket {
    /// A bucket that nothing ever fell into.
    pub(crate) const EMPTY: Self = Bucket {
        counts: [0; SLICES + 1],
        newest: 0,
        trips: 0,
    };

    /// Lets leak what is older than `window` at `now_ns`.
    ///
    /// Records overtake each other on their way out of different processors: an earlier time than
    /// the last one counts as the last one.
    fn leak(&mut self, window: &Window, now_ns: u64) {
        let now = window.slice(now_ns);
        let gone = now
            .saturating_sub(self.newest)
            .min(self.counts.len() as u64);
        self.counts.rotate_right(gone as usize);
        for count in self.counts.iter_mut().take(gone as usize) {
            *count = 0;
        }
        self.newest = self.newest.max(now);
    }

    /// Errors in the bucket.
    fn count(&self) -> u32 {
        self.counts
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Errors in the bucket at `now_ns`.
    pub(crate) fn level(&mut self, window: &Window, now_ns: u64) -> u32 {
        self.leak(window, now_ns);
        self.count()
    }

    /// Puts `errors` into the bucket. A `threshold` of 0 never trips.
    ///
    /// Hysteresis: once tripped, a bucket trips again at twice the count only, and from the start
    /// after it has leaked to less than half of the threshold.
    pub(crate) fn fill(
        &mut self,
        window: &Window,
        now_ns: u64,
        errors: u32,
        threshold: u32,
    ) -> Filled {
        self.leak(window, now_ns);
        let threshold = u64::from(threshold);
        if u64::from(self.count()) * 2 < threshold || self.count() == 0 {
            self.trips = 0;
        }
        if let Some(newest) = self.counts.first_mut() {
            *newest = newest.saturating_add(errors);
        }
        let count = self.count();
        let before = self.trips;
        while threshold != 0 && self.trips < 32 && u64::from(count) >= threshold << self.trips {
            self.trips += 1;
        }
        Filled {
            count,
            trips: if self.trips == before { 0 } else { self.trips },
        }
    }
}

/// How many columns of a row are told apart.
const COLUMNS: usize = 8;

/// The columns of one row that had errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    seen: [Option<(u32, u64)>; COLUMNS],
    trips: u8,
}

impl Columns {
    /// No column yet.
    pub(crate) const EMPTY: Self = Columns {
        seen: [None; COLUMNS],
        trips: 0,
    };

    /// Forgets columns that are older than `window` at `now_ns`, as a bucket leaks.
    fn leak(&mut self, window: &Window, now_ns: u64) {
        let now = window.slice(now_ns);
        for entry in &mut self.seen {
            *entry = entry.filter(|(_, slice)| slice.saturating_add(SLICES as u64) >= now);
        }
    }

    fn count(&self) -> u32 {
        self.seen.iter().flatten().count() as u32
    }

    /// Adds an error in `column`; like [`Bucket::fill`], but counts columns.
    pub(crate) fn fill(
        &mut self,
        window: &Window,
        now_ns: u64,
        column: u32,
        threshold: u32,
    ) -> Filled {
        self.leak(window, now_ns);
        let now = window.slice(now_ns);
        if u64::from(self.count()) * 2 < u64::from(threshold) || self.count() == 0 {
            self.trips = 0;
        }
        let place = self
            .seen
            .iter()
            .position(|entry| entry.is_some_and(|(known, _)| known == column))
            .or_else(|| self.seen.iter().position(|entry| entry.is_none()));
        // With all places taken, another column changes nothing: there are many.
        if let Some(entry) = place.and_then(|place| self.seen.get_mut(place)) {
            *entry = Some((column, now));
        }
        let count = self.count();
        let before = self.trips;
        while threshold != 0
            && self.trips < 32
            && u64::from(count) >= u64::from(threshold) << self.trips
        {
            self.trips += 1;
        }
        Filled {
            count,
            trips: if self.trips == before { 0 } else { self.trips },
        }
    }
}

/// What leaks, and may thus have nothing in it any more.
pub(crate) trait Leaky: Copy {
    /// Whether nothing is left at `now_ns`.
    fn is_dry(self, window: &Window, now_ns: u64) -> bool;
}

impl Leaky for Bucket {
    fn is_dry(mut self, window: &Window, now_ns: u64) -> bool {
        self.level(window, now_ns) == 0
    }
}

impl Leaky for Columns {
    fn is_dry(mut self, window: &Window, now_ns: u64) -> bool {
        self.leak(window, now_ns);
        self.count() == 0
    }
}

/// What an entry of a [`Table`] is about.
pub(crate) type Key = [u64; 2];

#[derive(Clone, Copy)]
struct Entry<V> {
    key: Key,
    /// When it was used last, by the table's own count; 0: free.
    used: u64,
    value: V,
}

/// Entries that share a place in a table; the least recently used of them has to go when all are
/// taken.
const WAYS: usize = 8;

/// A table of fixed size from keys to values.
pub(crate) struct Table<A: Arena, V: Copy> {
    entries: A::Buffer<Entry<V>>,
    empty: V,
    uses: u64,
}

impl<A: Arena, V: Copy> Table<A, V> {
    /// A table with room for `sets * 8` entries, which start as `empty`.
    pub(crate) fn new(sets: usize, empty: V) -> Result<Self, A::Error> {
        let free = Entry {
            key: [0; 2],
            used: 0,
            value: empty,
        };
        Ok(Table {
            entries: A::filled(sets.saturating_mul(WAYS), free)?,
            empty,
            uses: 0,
        })
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for entry in self.entries.iter_mut() {
            entry.used = 0;
        }
    }

    fn set(&mut self, key: Key) -> &mut [Entry<V>] {
        let sets = self.entries.len() / WAYS;
        let [a, b] = key;
        let index = mix(mix(a) ^ b).checked_rem(sets as u64).unwrap_or(0);
        self.entries
            .chunks_exact_mut(WAYS)
            .nth(index as usize)
            .unwrap_or_default()
    }

    /// The value of `key`, when there is one.
    pub(crate) fn get(&mut self, key: Key) -> Option<&mut V> {
        self.set(key)
            .iter_mut()
            .find(|entry| entry.used != 0 && entry.key == key)
            .map(|entry| &mut entry.value)
    }

    /// The value of `key`, a new one if need be, and the value that had to go for it.
    ///
    /// [`None`] only for a table without room.
    pub(crate) fn entry(&mut self, key: Key) -> Option<(&mut V, Option<V>)> {
        self.uses = self.uses.saturating_add(1);
        let (uses, empty) = (self.uses, self.empty);
        let set = self.set(key);
        let known = set
            .iter()
            .position(|entry| entry.used != 0 && entry.key == key);
        let mut evicted = None;
        let entry = match known {
            Some(index) => set.get_mut(index)?,
            None => {
                // Free entries were used least recently of all.
                let entry = set.iter_mut().min_by_key(|entry| entry.used)?;
                if entry.used != 0 {
                    evicted = Some(entry.value);
                }
                entry.key = key;
                entry.value = empty;
                entry
            }
        };
        entry.used = uses;
        Some((&mut entry.value, evicted))
    }
}
