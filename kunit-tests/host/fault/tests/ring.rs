// SPDX-License-Identifier: GPL-2.0

//! The ring against a model that remembers everything: order, filters and exact losses.

mod common;

use common::*;
use nullhz_fault_host::{
    abi::{Event, Level},
    ring::{Cursor, Filter, Found},
};
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Op {
    Push(u16, Level),
    Read(usize, usize),
    /// A find() that is followed by other operations before its consume().
    Find(usize),
    Filter(usize, Level, u64),
    Oldest(usize),
    Newest(usize),
    Seek(usize, u64),
}

/// Records of these levels are never summed up and open no incident.
fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        6 => Just(Level::Watch),
        2 => Just(Level::Degrading),
        1 => Just(Level::Fatal),
    ]
}

fn source() -> impl Strategy<Value = u16> {
    prop_oneof![1u16..4, Just(63u16)]
}

const READERS: usize = 3;

fn op() -> impl Strategy<Value = Op> {
    let reader = || 0..READERS;
    let mask = prop_oneof![
        Just(u64::MAX),
        any::<u64>().prop_map(|mask| mask | 2),
        Just(1u64 << 63 | 4),
        Just(1u64 << 40),
    ];
    prop_oneof![
        12 => (source(), level()).prop_map(|(source, level)| Op::Push(source, level)),
        4 => (reader(), 0usize..12).prop_map(|(reader, n)| Op::Read(reader, n)),
        2 => reader().prop_map(Op::Find),
        2 => (reader(), level(), mask).prop_map(|(r, level, mask)| Op::Filter(r, level, mask)),
        1 => reader().prop_map(Op::Oldest),
        1 => reader().prop_map(Op::Newest),
        1 => (reader(), 0u64..400).prop_map(|(reader, seq)| Op::Seek(reader, seq)),
    ]
}

/// A reader that can look at all of history.
struct Model {
    next: u64,
    filter: Filter,
    lost: u64,
}

impl Model {
    fn matching(&self, history: &[Event], from: u64, to: u64) -> u64 {
        let range = history.iter().filter(|e| (from..to).contains(&e.seq));
        range
            .filter(|e| self.filter.passes(e.source, e.level))
            .count() as u64
    }

    fn settle(&mut self, history: &[Event], tail: u64) {
        if self.next < tail {
            self.lost += self.matching(history, self.next, tail);
            self.next = tail;
        }
    }

    fn read(&mut self, history: &[Event], tail: u64) -> Option<Event> {
        self.settle(history, tail);
        let mut rest = history.iter().filter(|e| e.seq >= self.next);
        let Some(found) = rest.find(|e| self.filter.passes(e.source, e.level)) else {
            // What was looked at and not wanted has been passed, for other filters too.
            self.next = self.next.max(history.len() as u64 + 1);
            return None;
        };
        self.next = found.seq + 1;
        Some(Event {
            lost: std::mem::take(&mut self.lost),
            ..*found
        })
    }
}

fn check(order: u32, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut hub = hub(order);
    let mut history = Vec::new();
    let mut readers: Vec<(Cursor<Heap>, Model)> = (0..READERS)
        .map(|_| {
            let model = Model {
                next: 1,
                filter: Filter::ALL,
                lost: 0,
            };
            (opened(&hub), model)
        })
        .collect();
    let mut pending: Vec<Option<Event>> = vec![None; READERS];

    for op in ops {
        let tail = hub.ring().tail();
        let finish = |cursor: &mut Cursor<Heap>, found: &mut Option<Event>| {
            if let Some(event) = found.take() {
                cursor.consume(&event);
            }
        };
        match op {
            Op::Push(source, level) => {
                let (event, outcome) = send(&mut hub, source, level, 1);
                prop_assert_eq!(event.seq, history.len() as u64 + 1);
                prop_assert!(outcome.wake && outcome.opened.is_none());
                history.push(event);
            }
            Op::Read(reader, n) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                for _ in 0..n {
                    prop_assert_eq!(read(&mut hub, cursor), model.read(&history, tail));
                }
            }
            Op::Find(reader) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                let mut event = Event::ZERO;
                let found = loop {
                    match hub.find(cursor, &mut event) {
                        Found::Record => break Some(event),
                        Found::More => continue,
                        Found::Nothing => break None,
                    }
                };
                prop_assert_eq!(found, model.read(&history, tail));
                pending[reader] = found;
            }
            Op::Filter(reader, level, mask) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                model.settle(&history, tail);
                model.filter = Filter::new(level, mask);
                hub.set_filter(cursor, model.filter);
            }
            Op::Oldest(reader) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                hub.ring().seek_oldest(cursor);
                (model.next, model.lost) = (tail, 0);
            }
            Op::Newest(reader) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                hub.ring().seek_newest(cursor);
                (model.next, model.lost) = (history.len() as u64 + 1, 0);
            }
            Op::Seek(reader, seq) => {
                let (cursor, model) = &mut readers[reader];
                finish(cursor, &mut pending[reader]);
                hub.ring().seek_oldest(cursor);
                while !hub.ring().seek_on(cursor, seq) {}
                model.next = seq.clamp(tail, history.len() as u64 + 1);
                model.lost = 0;
            }
        }
        for ((cursor, model), pending) in readers.iter_mut().zip(&pending) {
            if pending.is_some() {
                continue;
            }
            let tail = hub.ring().tail();
            let end = history.len() as u64 + 1;
            let unread = model.matching(&history, model.next.max(tail), end);
            let ready = hub.ready(cursor);
            prop_assert_eq!(ready.any, unread != 0);
            let worst = Model {
                filter: model.filter.at_least(Level::Imminent),
                ..*model
            };
            let urgent = worst.matching(&history, model.next.max(tail), end);
            prop_assert_eq!(ready.urgent, urgent != 0);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn agrees_with_a_model(order in 0u32..6, ops in vec(op(), 0..300)) {
        check(order, ops)?;
    }

    /// Read or lost, every matching record is accounted for, and the bus's own count agrees.
    #[test]
    fn nothing_goes_missing(order in 0u32..5, bursts in vec((0usize..40, 0usize..40), 1..40)) {
        let mut hub = hub(order);
        let mut cursor = opened(&hub);
        let (mut sent, mut seen, mut lost) = (0, 0, 0);
        for (push, pull) in bursts {
            for _ in 0..push {
                send(&mut hub, 1, Level::Watch, 1);
                sent += 1;
            }
            for event in (0..pull).map_while(|_| read(&mut hub, &mut cursor)) {
                seen += 1;
                lost += event.lost;
                prop_assert_eq!(event.seq, seen + lost);
            }
        }
        for event in drain(&mut hub, &mut cursor) {
            seen += 1;
            lost += event.lost;
        }
        prop_assert_eq!(seen + lost, sent);
        prop_assert_eq!(hub.lost(), lost);
        prop_assert_eq!(hub.occurrences(Level::Watch), sent);
    }
}

#[test]
fn looks_at_few_records_at_a_time() {
    let mut hub = hub(8);
    let mut cursor = opened(&hub);
    hub.set_filter(&mut cursor, Filter::new(Level::Watch, 1 << 2));
    for _ in 0..100 {
        send(&mut hub, 1, Level::Watch, 1);
    }
    send(&mut hub, 2, Level::Watch, 1);
    let mut event = Event::ZERO;
    assert_eq!(hub.find(&mut cursor, &mut event), Found::More);
    assert!(cursor.next() <= 17);
    assert!(hub.ready(&mut cursor).any);
    assert_eq!(read(&mut hub, &mut cursor).unwrap().seq, 101);
}

#[test]
fn a_record_is_read_once_even_when_it_is_overwritten_meanwhile() {
    let mut hub = hub(1);
    let mut cursor = opened(&hub);
    let mut event = Event::ZERO;
    send(&mut hub, 1, Level::Watch, 1);
    assert_eq!(hub.find(&mut cursor, &mut event), Found::Record);
    for _ in 0..5 {
        send(&mut hub, 1, Level::Watch, 1);
    }
    cursor.consume(&event);
    // 2, 3 and 4 are gone, 1 was read.
    let next = read(&mut hub, &mut cursor).unwrap();
    assert_eq!((next.seq, next.lost), (5, 3));
}

#[test]
fn a_record_that_could_not_be_delivered_stays() {
    let mut hub = hub(1);
    let mut cursor = opened(&hub);
    let mut event = Event::ZERO;
    for _ in 0..3 {
        send(&mut hub, 1, Level::Watch, 1);
    }
    for _ in 0..3 {
        assert_eq!(hub.find(&mut cursor, &mut event), Found::Record);
        assert_eq!((event.seq, event.lost), (2, 1));
    }
    // Its turn never came: it is lost as well, and the count says so.
    for _ in 0..2 {
        send(&mut hub, 1, Level::Watch, 1);
    }
    let next = read(&mut hub, &mut cursor).unwrap();
    assert_eq!((next.seq, next.lost), (4, 3));
}
