// SPDX-License-Identifier: GPL-2.0

//! How often the watchdog has reset this node, as it is kept across resets. Pure logic.
//!
//! A ledger has the times of the last resets and a mark that tells how the boot that wrote it is
//! doing. Whoever finds the mark of a boot that was armed, and neither ended cleanly nor panicked,
//! knows that this boot was ended by the watchdog, by the reset button or by a power cut; the
//! watchdog's own status tells which, where it has one. Where it has none, it counts as a
//! watchdog's: a boot loop is worse than a start in disarmed mode.
//!
//! Wall-clock time, since it must last across boots, but it is read only once in each, at load: a
//! node whose battery is dead boots in the past, loops there, and is told the time by NTP later,
//! which makes its resets no older. Nor does a clock that goes back make them count for longer: a
//! reset in the future counts as one at load. So within a boot only time that has passed makes an
//! end of a reset, a day of it at most, whatever is done to the clock.

use super::abi::{record, Field, Unread, Unwritten};

#[path = "../include/nullhz/crc32.rs"]
mod crc32;
use crc32::crc32;

const MAGIC: u64 = u64::from_le_bytes(*b"nullhzSW");
const VERSION: u32 = 1;

/// A moment of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The wall clock at load, seconds since 1970.
    pub loaded: u64,
    /// Seconds since then, by a clock that nobody sets.
    pub elapsed: u64,
}

/// Resets that a ledger remembers, and so the largest budget.
pub const REMEMBERED: usize = 16;
/// How long a reset counts, seconds.
pub const WINDOW_S: u64 = 24 * 3600;
/// The default budget: so many resets within the window, and the node starts disarmed.
pub const DEFAULT_LIMIT: u32 = 3;

record! {
    /// The stored form.
    Stored: 160 {
        /// [`MAGIC`].
        magic: u64,
        /// [`VERSION`].
        version: u32,
        /// CRC-32 (IEEE 802.3) of all that follows.
        crc: u32,
        /// Counts the writes: of two copies the one with the higher number is the newer.
        number: u64,
        /// [`Mark`].
        mark: u32,
        /// 0.
        pad: u32,
        /// Seconds since 1970, newest first, 0: none.
        resets: [u64; REMEMBERED],
    }
}

/// Bytes of a stored ledger.
pub const STORED_SIZE: usize = Stored::SIZE;

/// No node counts up to here. A ledger that says so could not be outdone by a newer one, and its
/// node would never again remember a reset.
const NUMBERS: u64 = 1 << 63;

/// Bytes in front of what the checksum covers.
const PREFIX: usize = 16;

/// How a boot is doing.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No reset can come from us: not armed, or the boot ends cleanly.
    Clean = 0,
    /// A hardware watchdog runs that resets the node when we stop.
    Armed = 1,
    /// The gate was shut, and the reason kept with the fault bus.
    Shut = 2,
    /// The kernel panicked.
    Panic = 3,
    /// The module was unloaded: what the watchdog says of this boot has been counted.
    Unloaded = 4,
}

impl Mark {
    fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Mark::Clean),
            1 => Some(Mark::Armed),
            2 => Some(Mark::Shut),
            3 => Some(Mark::Panic),
            4 => Some(Mark::Unloaded),
            _ => None,
        }
    }
}

/// How the boot before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Cleanly, or not armed; or nothing is known and the watchdog says nothing either; or it has
    /// not ended, and this is the module again.
    Clean,
    /// With a panic.
    Panic,
    /// By the watchdog, after we had shut the gate: the fault bus has the last words.
    Bitten,
    /// By the watchdog, without last words.
    Reset,
    /// In some other way: power, or a reset by hand.
    Unclean,
}

/// The ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    number: u64,
    mark: Mark,
    resets: [u64; REMEMBERED],
}

impl Ledger {
    /// That of a node without a past.
    pub const EMPTY: Self = Ledger {
        number: 0,
        mark: Mark::Clean,
        resets: [0; REMEMBERED],
    };

    /// The stored form, to be written over the older of two copies ([`Ledger::copy`]).
    pub fn encode(&self) -> [u8; STORED_SIZE] {
        let mut stored = Stored {
            magic: MAGIC,
            version: VERSION,
            crc: 0,
            number: self.number,
            mark: self.mark as u32,
            pad: 0,
            resets: self.resets,
        };
        stored.crc = checksum(&stored.to_bytes());
        stored.to_bytes()
    }

    /// Reads what lies at the start of `bytes`; [`None`] when it is no intact ledger of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STORED_SIZE] = bytes.first_chunk()?;
        let stored = Stored::from_bytes(bytes);
        let intact =
            stored.magic == MAGIC && stored.version == VERSION && stored.crc == checksum(bytes);
        if !intact || stored.number >= NUMBERS {
            return None;
        }
        Some(Ledger {
            number: stored.number,
            mark: Mark::from_raw(stored.mark)?,
            resets: stored.resets,
        })
    }

    /// The newer of two.
    pub fn newer(self, other: Self) -> Self {
        if other.number > self.number {
            other
        } else {
            self
        }
    }

    /// Which of two copies (0 or 1) the next write goes to: a reset in the middle of it leaves the
    /// other one.
    pub fn copy(&self) -> usize {
        (self.number & 1) as usize
    }

    /// A new boot begins, with load at `now` seconds: tells how the one before ended, and counts it
    /// if the watchdog ended it. `watchdog` is what the hardware says: whether it has reset the
    /// node; [`None`]: it cannot tell. To be written.
    pub fn boot(&mut self, now: u64, watchdog: Option<bool>) -> Ending {
        let ending = match (self.mark, watchdog) {
            (Mark::Unloaded, _) => Ending::Clean,
            (Mark::Shut, _) => Ending::Bitten,
            (_, Some(true)) | (Mark::Armed, None) => Ending::Reset,
            (Mark::Armed, Some(false)) => Ending::Unclean,
            (Mark::Panic, _) => Ending::Panic,
            (Mark::Clean, _) => Ending::Clean,
        };
        if matches!(ending, Ending::Bitten | Ending::Reset) {
            self.resets.rotate_right(1);
            if let Some(newest) = self.resets.first_mut() {
                // 0 stands for none.
                *newest = now.max(1);
            }
        }
        self.set(Mark::Clean);
        ending
    }

    /// Sets the mark of this boot. To be written.
    pub fn set(&mut self, mark: Mark) {
        self.mark = mark;
        self.number = self.number.saturating_add(1);
    }

    /// The mark of this boot.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// An operator trusts the node again: forgets all resets. To be written.
    pub fn forgive(&mut self) {
        self.resets = [0; REMEMBERED];
        self.number = self.number.saturating_add(1);
    }

    /// Resets within the window before `now`.
    pub fn resets(&self, now: Moment) -> u32 {
        let Moment { loaded, elapsed } = now;
        let now = loaded.saturating_add(elapsed);
        let until = |reset: &u64| loaded.min(*reset).saturating_add(WINDOW_S);
        let counts = |reset: &&u64| **reset != 0 && now < until(reset);
        self.resets.iter().filter(counts).count() as u32
    }

    /// Whether there are `limit` resets within the window, so that the node does not reset any
    /// more. 0: it never does.
    pub fn exhausted(&self, now: Moment, limit: u32) -> bool {
        self.resets(now) >= limit.min(REMEMBERED as u32)
    }
}

fn checksum(stored: &[u8; STORED_SIZE]) -> u32 {
    crc32(stored.get(PREFIX..).unwrap_or_default())
}
