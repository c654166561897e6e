// SPDX-License-Identifier: GPL-2.0

//! A dying node's last words, as they lie in a store that survives a reset. Pure logic.
//!
//! A store may hold anything: what a previous kernel wrote, what firmware left, half a record. Only
//! what has the magic number is looked at, and only what has a matching checksum and sensible
//! fields is believed.

use super::abi::{
    flag, record, source, Event, Field, Level, Unread, Unwritten, ABI_VERSION, EVENT_SIZE,
    PAYLOAD_SIZE,
};

#[path = "../include/nullhz/crc32.rs"]
mod crc32;
use crc32::crc32;

const MAGIC: u64 = u64::from_le_bytes(*b"nullhzFL");
const VERSION: u32 = 1;

record! {
    /// The stored form.
    Stored: 320 {
        /// [`MAGIC`].
        magic: u64,
        /// [`VERSION`].
        version: u32,
        /// CRC-32 (IEEE 802.3) of all that follows.
        crc: u32,
        /// 1, 2, ... in one boot.
        number: u64,
        /// The boot's last incident, 0: none.
        incident: u64,
        /// The boot's last successful snapshot, 0: none.
        snapshot_id: u64,
        /// Zeros.
        reserved: [u8; 24],
        /// [`Event`].
        event: [u8; EVENT_SIZE],
    }
}

/// Bytes of a stored record.
pub const STORED_SIZE: usize = Stored::SIZE;

/// Bytes in front of what the checksum covers.
const PREFIX: usize = 16;

/// What a node leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// 1, 2, ... in one boot: with the event's `boot_id`, tells whether two stores hold the same.
    pub number: u64,
    /// The boot's last incident, 0: none.
    pub incident: u64,
    /// The boot's last successful snapshot, 0: none.
    pub snapshot_id: u64,
    /// The fault.
    pub event: Event,
}

/// A record of ours that has suffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl LastWords {
    /// The stored form.
    pub fn encode(&self) -> [u8; STORED_SIZE] {
        let mut stored = Stored {
            magic: MAGIC,
            version: VERSION,
            crc: 0,
            number: self.number,
            incident: self.incident,
            snapshot_id: self.snapshot_id,
            reserved: [0; 24],
            event: self.event.to_bytes(),
        };
        stored.crc = checksum(&stored.to_bytes());
        stored.to_bytes()
    }

    /// Reads what lies at the start of `bytes`; [`None`] when it is nothing of ours.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Damaged> {
        let Some(bytes) = bytes.first_chunk() else {
            return Ok(None);
        };
        let stored = Stored::from_bytes(bytes);
        if stored.magic != MAGIC {
            return Ok(None);
        }
        let event = Event::from_bytes(&stored.event);
        let intact = stored.version == VERSION && stored.crc == checksum(bytes);
        if !intact || !sensible(&event) {
            return Err(Damaged);
        }
        Ok(Some(LastWords {
            number: stored.number,
            incident: stored.incident,
            snapshot_id: stored.snapshot_id,
            event,
        }))
    }

    /// Whether both were written by the same call.
    pub fn same_as(&self, other: &Self) -> bool {
        self.number == other.number && self.event.boot_id == other.event.boot_id
    }
}

/// Whether the bus could have made this record: a checksum proves only that nothing changed since.
fn sensible(event: &Event) -> bool {
    event.size as usize == EVENT_SIZE
        && event.version == ABI_VERSION
        && event.level == Level::Fatal as u8
        && event.flags & !flag::FROM_SOURCE == 0
        && event.source <= source::MAX
        && event.count != 0
        && event.payload_len as usize <= PAYLOAD_SIZE
}

fn checksum(stored: &[u8; STORED_SIZE]) -> u32 {
    crc32(stored.get(PREFIX..).unwrap_or_default())
}
