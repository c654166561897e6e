// SPDX-License-Identifier: GPL-2.0

//! What the tests of the fault bus share.

// Each test binary uses its own part.
#![allow(dead_code)]

use nullhz_fault_host::{
    abi::{Event, Level},
    hub::{Hub, Outcome},
    incident::Times,
    report::{Now, Report},
    ring::{Cursor, Found, Storage},
};

/// Arrays on the host's heap.
pub struct Heap;

impl Storage for Heap {
    type Of<T> = Vec<T>;
    type Error = std::convert::Infallible;

    fn filled<T: Copy>(value: T, len: usize) -> Result<Vec<T>, Self::Error> {
        Ok(vec![value; len])
    }
}

pub const BOOT: [u8; 16] = *b"a boot in a test";
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

pub fn hub(order: u32) -> Hub<Heap> {
    let Ok(hub) = Hub::new(order, BOOT, Times::DEFAULT);
    hub
}

pub fn cursor() -> Cursor<Heap> {
    let Ok(cursor) = Cursor::new();
    cursor
}

/// A cursor as a newly opened file has it.
pub fn opened(hub: &Hub<Heap>) -> Cursor<Heap> {
    let mut cursor = cursor();
    hub.ring().seek_oldest(&mut cursor);
    cursor
}

pub fn at(mono: u64) -> Now {
    Now {
        mono,
        real: mono + 1_700_000_000 * SECOND,
    }
}

pub fn report(level: Level) -> Report<'static> {
    Report {
        mono_ns: 0,
        real_ns: 0,
        kind: 7,
        level,
        flags: 0,
        cpu: -1,
        node: -1,
        count: 1,
        payload: &[],
    }
}

/// Reports one event, and gives back the record and what came of it.
pub fn send(hub: &mut Hub<Heap>, source: u16, level: Level, mono: u64) -> (Event, Outcome) {
    let mut event = report(level).event(source, BOOT, at(mono)).unwrap();
    let outcome = hub.report(&mut event, at(mono));
    (event, outcome)
}

/// Reads one record, as read() does.
pub fn read(hub: &mut Hub<Heap>, cursor: &mut Cursor<Heap>) -> Option<Event> {
    let mut event = Event::ZERO;
    loop {
        match hub.find(cursor, &mut event) {
            Found::Record => {
                cursor.consume(&event);
                return Some(event);
            }
            Found::More => {}
            Found::Nothing => return None,
        }
    }
}

/// Reads all there is.
pub fn drain(hub: &mut Hub<Heap>, cursor: &mut Cursor<Heap>) -> Vec<Event> {
    std::iter::from_fn(|| read(hub, cursor)).collect()
}
