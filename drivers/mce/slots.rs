// SPDX-License-Identifier: GPL-2.0

//! The way out of the machine-check handler: preallocated slots that any context can fill.
//!
//! [`Ring`] is a bounded queue for many producers, which may interrupt each other at any
//! instruction (NMI, #MC), and one consumer in process context. [`Missed`] remembers the identity
//! of what found the ring full, so that it can be recognised when it comes by again on the decode
//! chain. Nothing here blocks, allocates, spins on another context's progress, or panics.
//!
//! A slot's sequence number tells whose turn it is. For the slot at index `i` of `n`, in its round
//! `r` (the position is `p = r * n + i`):
//!
//! ```text
//!   p          free: the producer that moves `tail` from p to p + 1 owns it
//!   p + 1      full: the consumer that is at p owns it
//!   p + n      free again, for the next round
//! ```
//!
//! The payload is kept in relaxed atomics, so that no access can be a data race whatever happens;
//! the sequence number's release and acquire make it visible as a whole.

use super::atomic::AtomicU64;
use core::ops::Deref;

/// One slot of a [`Ring`] with room for `W` words.
pub(crate) struct Slot<const W: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; W],
}

impl<const W: usize> Slot<W> {
    /// A slot that is not part of a ring yet.
    pub(crate) fn new() -> Self {
        Slot {
            sequence: AtomicU64::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// A bounded queue of `W` words each; see the module's documentation.
///
/// # Invariants
///
/// - There are at least two slots: with one, "full" and "free again" would be the same number.
/// - `tail` is the position that the next producer takes, `head` the one that the consumer takes;
///   `head <= tail <= head + n`.
pub(crate) struct Ring<B, const W: usize> {
    slots: B,
    tail: AtomicU64,
    head: AtomicU64,
}

impl<B: Deref<Target = [Slot<W>]>, const W: usize> Ring<B, W> {
    /// A ring over `slots`; [`None`] for less than two.
    pub(crate) fn new(slots: B) -> Option<Self> {
        if slots.len() < 2 {
            return None;
        }
        for (index, slot) in (0u64..).zip(slots.iter()) {
            slot.sequence.store_release(index);
        }
        // INVARIANT: at least two slots, every one free in round 0.
        Some(Ring {
            slots,
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
        })
    }

    fn slot(&self, position: u64) -> Option<&Slot<W>> {
        let index = position.checked_rem(self.slots.len() as u64)?;
        self.slots.get(index as usize)
    }

    /// Puts `words` at the end. Any context, NMI included.
    ///
    /// Returns false when there is no room. Lock-free: a retry means that another producer got in.
    pub(crate) fn push(&self, words: &[u64; W]) -> bool {
        let mut position = self.tail.load();
        loop {
            let Some(slot) = self.slot(position) else {
                return false;
            };
            let sequence = slot.sequence.load_acquire();
            if sequence < position {
                // Still full from the round before.
                return false;
            }
            if sequence > position {
                // Another producer was here.
                position = self.tail.load();
                continue;
            }
            match self
                .tail
                .compare_exchange(position, position.wrapping_add(1))
            {
                Ok(()) => {
                    for (to, from) in slot.words.iter().zip(words) {
                        to.store(*from);
                    }
                    slot.sequence.store_release(position.wrapping_add(1));
                    return true;
                }
                Err(now) => position = now,
            }
        }
    }

    /// Takes the first entry. Only one caller at a time.
    ///
    /// [`None`] also when the first entry is not finished: its producer will say so when it is.
    pub(crate) fn pop(&self) -> Option<[u64; W]> {
        let position = self.head.load();
        let slot = self.slot(position)?;
        if slot.sequence.load_acquire() != position.wrapping_add(1) {
            return None;
        }
        let mut words = [0; W];
        for (to, from) in words.iter_mut().zip(&slot.words) {
            *to = from.load();
        }
        self.head.store(position.wrapping_add(1));
        slot.sequence
            .store_release(position.wrapping_add(self.slots.len() as u64));
        Some(words)
    }
}

/// How many places [`Missed`] looks at for one identity.
const PROBES: u64 = 16;

/// The part of a place that tells when it was taken, in units of 2^30 ns; the rest is the identity.
const STAMP: u64 = 0xffff;

/// How long a place is kept for an identity that nobody takes, in the same units: about a minute.
/// By then the decode chain has seen all that it will ever see.
const KEPT: u64 = 64;

const fn stamp(now_ns: u64) -> u64 {
    (now_ns >> 30) & STAMP
}

/// A set of identities that any context can add to and take from.
pub(crate) struct Missed<B> {
    places: B,
}

impl<B: Deref<Target = [AtomicU64]>> Missed<B> {
    /// An empty set over `places`, which are all 0.
    pub(crate) fn new(places: B) -> Self {
        Missed { places }
    }

    fn probe(&self, identity: u64) -> impl Iterator<Item = &AtomicU64> {
        let len = self.places.len() as u64;
        (0..PROBES.min(len)).filter_map(move |step| {
            let index = (identity >> 16).wrapping_add(step).checked_rem(len)?;
            self.places.get(index as usize)
        })
    }

    /// Adds `identity` of [`identity()`], once more if it is there already. False when there is no
    /// place.
    pub(crate) fn insert(&self, identity: u64, now_ns: u64) -> bool {
        let now = stamp(now_ns);
        self.probe(identity).any(|place| {
            let there = place.load();
            let age = now.wrapping_sub(there) & STAMP;
            (there == 0 || age >= KEPT) && place.compare_exchange(there, identity | now).is_ok()
        })
    }

    /// Takes `identity` away, once; false when it is not there.
    pub(crate) fn take(&self, identity: u64) -> bool {
        self.probe(identity).any(|place| {
            let there = place.load();
            there & !STAMP == identity && place.compare_exchange(there, 0).is_ok()
        })
    }
}

/// A number that is the same for equal words and, with luck of 1 in 2^47, for no others; never 0,
/// with the bits of [`Missed`]'s time stamps free.
pub(crate) fn identity(words: &[u64]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15;
    for word in words {
        hash = mix(hash ^ word);
    }
    (hash | (1 << 63)) & !STAMP
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", the finalizer of SplitMix.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
