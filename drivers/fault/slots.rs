// SPDX-License-Identifier: GPL-2.0

//! Who has which slot of a store of few.
//!
//! Lock-free and bounded, for any context, NMI included: a claim may interrupt another claim, or a
//! release, on the same CPU.

use super::abi::source;
use kernel::sync::atomic::{Acquire, AtomicFlag, Release};

/// Slots that are used, of however many there is room for.
pub(crate) const SLOTS: usize = 16;

/// The share of the slots, one in so many, that only machine checks may use: other sources have
/// last words of many threads or devices, but a machine check ends the node.
const KEPT_SHARE: usize = 4;

/// Slots `0..room`, each free or claimed.
pub(crate) struct Slots {
    claimed: [AtomicFlag; SLOTS],
    room: usize,
}

impl Slots {
    /// `room` free slots, [`SLOTS`] at most.
    pub(crate) const fn new(room: usize) -> Self {
        Self {
            claimed: [const { AtomicFlag::new(false) }; SLOTS],
            room: if room < SLOTS { room } else { SLOTS },
        }
    }

    /// Claims a slot for `source`. Any context.
    pub(crate) fn claim(&self, source: u16) -> Option<usize> {
        let room = match source {
            source::MCE => self.room,
            _ => self.room - self.room / KEPT_SHARE,
        };
        let mut slots = self.claimed.iter().take(room);
        // Acquire: what is written to the slot comes after what its last user has erased.
        slots.position(|claimed| !claimed.xchg(true, Acquire))
    }

    /// Makes a claimed slot free. Any context.
    pub(crate) fn release(&self, slot: usize) {
        if let Some(claimed) = self.claimed.get(slot) {
            claimed.store(false, Release);
        }
    }
}
