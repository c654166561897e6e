// SPDX-License-Identifier: GPL-2.0

//! The fault bus against readers that remember everything.

use std::collections::BTreeMap;

use crate::abi::{bus, flag, source, state, Ack, Event, Level, ABI_VERSION, EVENT_SIZE};
use crate::input::Input;
use nullhz_fault_host::hub::{ack_is_valid, Hub, Tick};
use nullhz_fault_host::incident::{Refusal, Times};
use nullhz_fault_host::persist::LastWords;
use nullhz_fault_host::report::{Now, Report};
use nullhz_fault_host::ring::{Cursor, Filter, Found, Storage};

/// Arrays on the host's heap.
enum Heap {}

impl Storage for Heap {
    type Of<T> = Vec<T>;
    type Error = std::convert::Infallible;

    fn filled<T: Copy>(value: T, len: usize) -> Result<Vec<T>, Self::Error> {
        Ok(vec![value; len])
    }
}

const BOOT: [u8; 16] = [7; 16];

/// A reader, and what it is owed.
struct Reader {
    cursor: Cursor<Heap>,
    filter: Filter,
    next: u64,
    /// Not told yet.
    lost: u64,
}

impl Reader {
    fn new(hub: &Hub<Heap>) -> Self {
        let Ok(mut cursor) = Cursor::new();
        hub.ring().seek_oldest(&mut cursor);
        Reader {
            next: cursor.next(),
            cursor,
            filter: Filter::ALL,
            lost: 0,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        self.filter.passes(event.source, event.level)
    }

    /// What has left the ring unread is lost.
    fn settle(&mut self, history: &[Event], tail: u64) {
        let gone = history
            .iter()
            .filter(|event| (self.next..tail).contains(&event.seq));
        self.lost += gone.filter(|event| self.wants(event)).count() as u64;
        self.next = self.next.max(tail);
    }

    fn pending<'a>(&'a self, history: &'a [Event]) -> impl Iterator<Item = &'a Event> {
        history
            .iter()
            .filter(|event| event.seq >= self.next && self.wants(event))
    }
}

struct World {
    hub: Hub<Heap>,
    now: u64,
    /// All records that were ever on the ring: read by one who is never late.
    history: Vec<Event>,
    witness: Cursor<Heap>,
    readers: Vec<Reader>,
    /// Occurrences at IMMINENT by source: reported, and seen in records.
    reported: BTreeMap<u16, u64>,
    by_level: [u64; Level::COUNT],
}

impl World {
    fn time(&self) -> Now {
        Now {
            mono: self.now,
            real: self.now ^ 1 << 60,
        }
    }

    fn read(hub: &mut Hub<Heap>, cursor: &mut Cursor<Heap>) -> Option<Event> {
        let mut event = Event::ZERO;
        loop {
            match hub.find(cursor, &mut event) {
                Found::Record => return Some(event),
                Found::More => {}
                Found::Nothing => return None,
            }
        }
    }

    fn witness(&mut self) {
        while let Some(event) = Self::read(&mut self.hub, &mut self.witness) {
            self.witness.consume(&event);
            assert_eq!((event.seq, event.lost), (self.history.len() as u64 + 1, 0));
            self.history.push(event);
        }
        assert_eq!(self.hub.ring().head(), self.history.len() as u64);
    }

    fn report(&mut self, input: &mut Input<'_>) {
        let level = input.pick(&[
            Level::Imminent,
            Level::Watch,
            Level::Degrading,
            Level::Fatal,
        ]);
        let number = input.pick(&[1, 2, 3, 63]);
        let count = if input.flag() {
            1
        } else {
            input.extreme32().max(1)
        };
        let report = Report {
            mono_ns: 0,
            real_ns: 0,
            kind: 7,
            level,
            flags: if count > 1 { flag::SUMMARY } else { 0 },
            cpu: -1,
            node: -1,
            count,
            payload: &[],
        };
        let now = self.time();
        let mut event = report.event(number, BOOT, now).unwrap();
        let outcome = self.hub.report(&mut event, now);
        self.by_level[level as usize] += u64::from(count);
        if level == Level::Imminent {
            *self.reported.entry(number).or_default() += u64::from(count);
            // The node's agent has to hear of every new incident.
            assert!(outcome.opened.is_none() || outcome.wake);
            assert_ne!(event.incident, 0);
        }
        assert_eq!(outcome.opened.is_some(), event.flags & flag::OPENED != 0);
    }

    fn ack(&mut self, input: &mut Input<'_>) {
        let ack = Ack {
            incident: input.below(12),
            snapshot_id: input.below(3),
            result: if input.flag() { 0 } else { -5 },
            pad: 0,
        };
        if !ack_is_valid(&ack) {
            return;
        }
        let before = self.hub.incidents().get(ack.incident).copied();
        let result = self.hub.ack(&ack, 1, self.time());
        match before {
            None => assert_eq!(result, Err(Refusal::Unknown)),
            Some(before) if before.state == state::ACKED => {
                assert_eq!(result, Err(Refusal::Already));
            }
            Some(before) => {
                let late = before.state == state::EXPIRED || self.now >= before.deadline_ns;
                let acked = result.unwrap();
                assert_eq!((acked.state, acked.late), (state::ACKED, late.into()));
                assert_eq!(acked.acked_ns, self.now);
            }
        }
    }

    fn restore(&mut self, input: &mut Input<'_>) {
        let event = Event {
            size: EVENT_SIZE as u32,
            version: ABI_VERSION,
            level: Level::Fatal as u8,
            source: input.below(64) as u16,
            count: 1,
            boot_id: [3; 16],
            ..Event::ZERO
        };
        let words = LastWords {
            number: 1,
            incident: input.u64(),
            snapshot_id: 5,
            event,
        };
        let first = self.history.len();
        self.hub.restore(&words);
        self.witness();
        let [fault, last] = self.history[first..] else {
            panic!("{} records", self.history.len() - first);
        };
        assert_eq!(
            (fault.source, fault.incident),
            (event.source, words.incident)
        );
        assert_eq!((last.source, last.kind), (source::BUS, bus::LAST_WORDS));
        for event in [fault, last] {
            assert_eq!((event.flags, event.boot_id), (flag::PREVIOUS_BOOT, [3; 16]));
        }
    }

    /// All that is due, one thing after the other.
    fn tick(&mut self) {
        loop {
            match self.hub.tick(self.time()) {
                Tick::Expired(incident) => {
                    assert_eq!(incident.state, state::EXPIRED);
                    assert!(incident.deadline_ns <= self.now);
                }
                Tick::Summed => {}
                Tick::Idle { due, .. } => return assert!(due.is_none_or(|due| due > self.now)),
            }
            self.witness();
        }
    }

    /// One record, as read() would deliver it; it may not come to that.
    fn step(&mut self, number: usize, consume: bool) {
        let tail = self.hub.ring().tail();
        let reader = &mut self.readers[number];
        reader.settle(&self.history, tail);
        let ready = self.hub.ready(&mut reader.cursor);
        let found = Self::read(&mut self.hub, &mut reader.cursor);
        assert_eq!(ready.any, found.is_some());
        let Some(event) = found else {
            assert_eq!(reader.pending(&self.history).count(), 0);
            assert_eq!(reader.cursor.lost(), reader.lost);
            // What was looked at and not wanted has been passed, for other filters too.
            reader.next = reader.next.max(self.history.len() as u64 + 1);
            return;
        };
        assert!(reader.wants(&event));
        assert_eq!(event.lost, reader.lost);
        let original = &self.history[event.seq as usize - 1];
        let replayed = event.flags & flag::REPLAYED != 0;
        if replayed {
            // Dropped by the ring, but nobody has dealt with it.
            let incident = self.hub.incidents().get(event.incident).unwrap();
            assert!(event.seq < tail && incident.state != state::ACKED);
            assert_eq!(incident.first_seq, event.seq);
        } else {
            let next = reader.pending(&self.history).next().unwrap();
            assert_eq!(next.seq, event.seq);
            // Records before it, which it does not want, are behind it for good.
            reader.next = event.seq;
        }
        let flags = event.flags & !flag::REPLAYED;
        assert_eq!(
            *original,
            Event {
                flags,
                lost: 0,
                ..event
            }
        );
        let bad = |event: &&Event| event.level >= Level::Imminent as u8;
        let urgent = replayed || reader.pending(&self.history).any(|event| bad(&event));
        assert_eq!(ready.urgent, urgent);
        if consume {
            reader.cursor.consume(&event);
            reader.lost = 0;
            if !replayed {
                reader.next = event.seq + 1;
            }
        }
    }

    fn filter(&mut self, number: usize, input: &mut Input<'_>) {
        let mask = input.pick(&[u64::MAX, 2, 1 << 63 | 4, 1, 1 << 40]);
        let filter = Filter::new(input.pick(&Level::ALL), mask);
        let tail = self.hub.ring().tail();
        let reader = &mut self.readers[number];
        reader.settle(&self.history, tail);
        self.hub.set_filter(&mut reader.cursor, filter);
        reader.filter = filter;
    }

    fn seek(&mut self, number: usize, input: &mut Input<'_>) {
        let ring = self.hub.ring();
        let reader = &mut self.readers[number];
        reader.lost = 0;
        match input.below(3) {
            0 => ring.seek_oldest(&mut reader.cursor),
            1 => ring.seek_newest(&mut reader.cursor),
            _ => {
                let seq = input.extreme();
                ring.seek_oldest(&mut reader.cursor);
                while !ring.seek_on(&mut reader.cursor, seq) {}
                let nearest = seq.clamp(ring.tail(), ring.head() + 1);
                assert_eq!(reader.cursor.next(), nearest);
            }
        }
        reader.next = reader.cursor.next();
    }

    fn check(&self) {
        let incidents = self.hub.incidents();
        let unacked = || {
            incidents
                .iter()
                .filter(|incident| incident.state != state::ACKED)
        };
        assert_eq!(incidents.unacked() as usize, unacked().count());
        let mut sources: Vec<u32> = unacked().map(|incident| incident.source).collect();
        sources.sort_unstable();
        assert!(sources.windows(2).all(|pair| pair[0] != pair[1]));
        for level in Level::ALL {
            assert_eq!(self.hub.occurrences(level), self.by_level[level as usize]);
        }
    }

    /// In the end every occurrence is in a record.
    fn account(mut self) {
        self.now = self.now.saturating_add(1 << 40);
        self.tick();
        let own = |event: &&Event| {
            event.level == Level::Imminent as u8 && event.flags & flag::PREVIOUS_BOOT == 0
        };
        let sum = |event: &&Event| event.source == source::BUS && event.kind == bus::STORM;
        let count = |events: &mut dyn Iterator<Item = &Event>| -> u64 {
            events.map(|event| u64::from(event.count)).sum()
        };
        let alone = count(&mut self.history.iter().filter(own));
        let summed = count(&mut self.history.iter().filter(sum));
        assert_eq!(alone + summed, self.reported.values().sum::<u64>());
        self.check();
    }
}

pub(super) fn bus(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let order = 2 + input.below(4) as u32;
    let times = Times {
        cooldown: input.extreme(),
        deadline: input.extreme(),
    };
    let Ok(hub) = Hub::new(order, BOOT, times);
    let Ok(mut witness) = Cursor::new();
    hub.ring().seek_oldest(&mut witness);
    let mut world = World {
        readers: (0..2).map(|_| Reader::new(&hub)).collect(),
        hub,
        now: 1,
        history: Vec::new(),
        witness,
        reported: BTreeMap::new(),
        by_level: [0; Level::COUNT],
    };
    while !input.is_empty() {
        let what = input.u8();
        let reader = usize::from(what & 1);
        match what >> 1 & 15 {
            0..4 => world.report(input),
            4 => {
                for _ in 0..input.below(64) {
                    world.report(&mut Input::new(&[0, 0, 1]));
                    world.witness();
                }
            }
            5 => world.ack(input),
            6 => world.restore(input),
            7 => world.now = world.now.saturating_add(input.extreme()).min(1 << 62),
            8 => world.tick(),
            9 => world.filter(reader, input),
            10 => world.seek(reader, input),
            11 => world.step(reader, false),
            12 => world.readers[reader] = Reader::new(&world.hub),
            _ => {
                for _ in 0..input.below(8) {
                    world.step(reader, true);
                }
            }
        }
        world.witness();
        world.check();
    }
    world.account();
}
