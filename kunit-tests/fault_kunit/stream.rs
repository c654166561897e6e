// SPDX-License-Identifier: GPL-2.0

//! Suites of the bus's logic.

use crate::{
    abi::{Ack, Bus, Event, Level},
    hub::Hub,
    incident::Times,
    report::{Now, Report},
    ring::{Cursor, Found, Storage},
};
use kernel::{alloc::AllocError, prelude::*};

pub(crate) struct Heap;

impl Storage for Heap {
    type Of<T> = KVVec<T>;
    type Error = AllocError;

    fn filled<T: Copy>(value: T, len: usize) -> Result<KVVec<T>, AllocError> {
        KVVec::from_elem(value, len, GFP_KERNEL)
    }
}

const BOOT: [u8; 16] = *b"a boot in a test";
const SECOND: u64 = 1_000_000_000;

fn hub(order: u32) -> Result<Hub<Heap>> {
    Ok(Hub::new(order, BOOT, Times::DEFAULT)?)
}

fn opened(hub: &Hub<Heap>) -> Result<Cursor<Heap>> {
    let mut cursor = Cursor::new()?;
    hub.ring().seek_oldest(&mut cursor);
    Ok(cursor)
}

fn at(mono: u64) -> Now {
    Now { mono, real: mono }
}

fn event(source: u16, level: Level, mono: u64) -> Result<Event> {
    let report = Report {
        mono_ns: 0,
        real_ns: 0,
        kind: 7,
        level,
        flags: 0,
        cpu: -1,
        node: -1,
        count: 1,
        payload: &[1, 2, 3],
    };
    report.event(source, BOOT, at(mono)).ok_or(EINVAL)
}

fn send(hub: &mut Hub<Heap>, source: u16, level: Level, mono: u64) -> Result<Event> {
    let mut event = event(source, level, mono)?;
    hub.report(&mut event, at(mono));
    Ok(event)
}

fn read(hub: &mut Hub<Heap>, cursor: &mut Cursor<Heap>) -> Option<Event> {
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

fn ack(incident: u64, result: i32) -> Ack {
    Ack {
        incident,
        snapshot_id: 256,
        result,
        pad: 0,
    }
}

fn payload(event: &Event) -> Result<Bus> {
    Bus::from_prefix(event.payload()).ok_or(EINVAL)
}

#[kunit_tests(nullhz_fault_ring)]
mod ring {
    use super::*;
    use crate::ring::Filter;

    #[test]
    fn read_or_lost_everything_is_accounted_for() -> Result {
        let mut hub = hub(6)?;
        let (mut all, mut some) = (opened(&hub)?, opened(&hub)?);
        hub.set_filter(&mut some, Filter::new(Level::Degrading, 1 << 2));
        let (mut seen, mut lost, mut matching, mut matched) = (0, 0, 0, 0);
        for n in 0..100_000u32 {
            let source = 1 + (n % 3) as u16;
            let level = if n % 5 == 0 {
                Level::Degrading
            } else {
                Level::Watch
            };
            send(&mut hub, source, level, 1)?;
            matching += u64::from(source == 2 && level == Level::Degrading);
            // A reader that is faster than the writer at times, and slower at others.
            if n % 1000 < 300 {
                for _ in 0..4 {
                    if let Some(event) = read(&mut hub, &mut all) {
                        seen += 1;
                        lost += event.lost;
                        assert_eq!(event.seq, seen + lost);
                    }
                }
            }
            if n % 777 == 0 {
                if let Some(event) = read(&mut hub, &mut some) {
                    assert_eq!((event.source, event.level), (2, Level::Degrading as u8));
                    matched += 1 + event.lost;
                }
            }
        }
        while let Some(event) = read(&mut hub, &mut all) {
            seen += 1;
            lost += event.lost;
        }
        while let Some(event) = read(&mut hub, &mut some) {
            matched += 1 + event.lost;
        }
        assert_eq!(seen + lost, 100_000);
        assert!(lost > 0);
        assert_eq!(matched, matching);
        assert!(!hub.ready(&mut all).any && !hub.ready(&mut some).any);
        Ok(())
    }

    #[test]
    fn a_reader_looks_at_few_records_at_a_time() -> Result {
        let mut hub = hub(8)?;
        let mut cursor = opened(&hub)?;
        hub.set_filter(&mut cursor, Filter::new(Level::Watch, 1 << 2));
        for _ in 0..100 {
            send(&mut hub, 1, Level::Watch, 1)?;
        }
        let mut event = Event::ZERO;
        assert_eq!(hub.find(&mut cursor, &mut event), Found::More);
        assert!(cursor.next() <= 17);
        Ok(())
    }

    #[test]
    fn seeking_finds_the_nearest_record() -> Result {
        let mut hub = hub(3)?;
        let mut cursor = opened(&hub)?;
        for _ in 0..20 {
            send(&mut hub, 1, Level::Watch, 1)?;
        }
        for (seq, expected) in [(1, 13), (13, 13), (17, 17), (20, 20)] {
            hub.ring().seek_oldest(&mut cursor);
            while !hub.ring().seek_on(&mut cursor, seq) {}
            let event = read(&mut hub, &mut cursor).ok_or(ENOENT)?;
            assert_eq!((event.seq, event.lost), (expected, 0));
        }
        hub.ring().seek_newest(&mut cursor);
        assert!(read(&mut hub, &mut cursor).is_none());
        Ok(())
    }
}

#[kunit_tests(nullhz_fault_incident)]
mod incident {
    use super::*;
    use crate::{
        abi::{bus, flag, state},
        hub::{ack_is_valid, Tick, PACE_NS},
        incident::{Refusal, RETRY_NS},
        storm,
    };

    #[test]
    fn a_storm_makes_one_incident_with_exact_counts() -> Result {
        const STORM: u64 = 10_000;
        let mut hub = hub(8)?;
        let mut cursor = opened(&hub)?;
        for n in 0..STORM {
            send(&mut hub, 1, Level::Imminent, SECOND + n)?;
        }
        while hub.tick(at(SECOND + storm::SUM_NS + STORM)) == Tick::Summed {}
        let (mut total, mut openings) = (0, 0);
        while let Some(event) = read(&mut hub, &mut cursor) {
            assert_eq!((event.incident, event.lost), (1, 0));
            total += u64::from(event.count);
            openings += u32::from(event.flags & flag::OPENED != 0);
        }
        assert_eq!((total, openings), (STORM, 1));
        assert_eq!(hub.incidents().last(), 1);
        Ok(())
    }

    #[test]
    fn expiry_and_a_late_acknowledgement() -> Result {
        let mut hub = hub(4)?;
        let mut cursor = opened(&hub)?;
        let deadline = SECOND + Times::DEFAULT.deadline;
        send(&mut hub, 1, Level::Imminent, SECOND)?;
        let due = |tick| match tick {
            Tick::Idle { due, .. } => due,
            _ => Some(0),
        };
        assert_eq!(due(hub.tick(at(SECOND))), Some(SECOND + PACE_NS));
        assert_eq!(due(hub.tick(at(SECOND))), Some(deadline));
        assert!(matches!(hub.tick(at(deadline)), Tick::Expired(_)));
        assert_eq!(due(hub.tick(at(deadline))), Some(deadline + PACE_NS));
        assert_eq!(due(hub.tick(at(deadline))), None);
        let late = hub.ack(&ack(1, 0), 42, at(deadline + 1));
        assert!(late.is_ok_and(|incident| incident.late == 1 && incident.state == state::ACKED));
        assert_eq!(
            hub.ack(&ack(1, 0), 42, at(deadline + 1)),
            Err(Refusal::Already)
        );
        assert_eq!(
            hub.ack(&ack(2, 0), 42, at(deadline + 1)),
            Err(Refusal::Unknown)
        );
        for kind in [7, bus::EXPIRED, bus::ACKED] {
            let event = read(&mut hub, &mut cursor).ok_or(ENOENT)?;
            assert_eq!((event.kind, event.incident), (kind, 1));
            if kind == bus::ACKED {
                let payload = payload(&event)?;
                assert_eq!((payload.acker, payload.snapshot_id), (42, 256));
            }
        }
        Ok(())
    }

    #[test]
    fn a_cooldown_and_what_shortens_it() -> Result {
        let mut hub = hub(4)?;
        let cooldown = Times::DEFAULT.cooldown;
        send(&mut hub, 1, Level::Imminent, SECOND)?;
        assert!(hub.ack(&ack(1, 0), 1, at(SECOND)).is_ok());
        let joins = send(&mut hub, 1, Level::Imminent, SECOND + cooldown - 1)?;
        assert_eq!(joins.incident, 1);
        let opens = send(&mut hub, 1, Level::Imminent, SECOND + cooldown)?;
        assert_eq!(opens.incident, 2);
        assert!(hub.ack(&ack(2, -5), 1, at(SECOND + cooldown)).is_ok());
        let opened = SECOND + cooldown;
        let joins = send(&mut hub, 1, Level::Imminent, opened + RETRY_NS - 1)?;
        assert_eq!(joins.incident, 2);
        let opens = send(&mut hub, 1, Level::Imminent, opened + RETRY_NS)?;
        assert_eq!(opens.incident, 3);
        assert_eq!(hub.incidents().last_snapshot(), 256);
        Ok(())
    }

    #[test]
    fn an_open_incident_outlives_the_ring() -> Result {
        let mut hub = hub(2)?;
        let mut slow = opened(&hub)?;
        let first = send(&mut hub, 1, Level::Imminent, SECOND)?;
        for _ in 0..10 {
            send(&mut hub, 2, Level::Watch, SECOND)?;
        }
        let mut late = opened(&hub)?;
        for cursor in [&mut slow, &mut late] {
            assert!(hub.ready(cursor).urgent);
            let event = read(&mut hub, cursor).ok_or(ENOENT)?;
            assert_eq!(event.seq, first.seq);
            assert_eq!(event.flags, flag::OPENED | flag::REPLAYED);
        }
        Ok(())
    }

    #[test]
    fn acknowledgements_are_checked() {
        assert!(ack_is_valid(&ack(1, 0)) && ack_is_valid(&ack(1, -28)));
        assert!(!ack_is_valid(&ack(1, 1)) && !ack_is_valid(&ack(1, -4096)));
        assert!(!ack_is_valid(&Ack {
            snapshot_id: 0,
            ..ack(1, 0)
        }));
        assert!(!ack_is_valid(&Ack {
            pad: 1,
            ..ack(1, 0)
        }));
    }
}

#[kunit_tests(nullhz_fault_record)]
mod record {
    use super::*;
    use crate::{
        abi::{bus, flag},
        persist::LastWords,
    };

    fn words() -> Result<LastWords> {
        Ok(LastWords {
            number: 1,
            incident: 12,
            snapshot_id: 345,
            event: event(1, Level::Fatal, SECOND)?,
        })
    }

    #[test]
    fn last_words_come_back() -> Result {
        let words = words()?;
        assert!(LastWords::decode(&words.encode()) == Ok(Some(words)));
        let mut hub = hub(4)?;
        hub.restore(&words);
        let mut cursor = opened(&hub)?;
        let fatal = read(&mut hub, &mut cursor).ok_or(ENOENT)?;
        assert_eq!((fatal.flags, fatal.incident), (flag::PREVIOUS_BOOT, 12));
        assert_eq!(fatal.payload(), &[1u8, 2, 3][..]);
        let last = read(&mut hub, &mut cursor).ok_or(ENOENT)?;
        assert_eq!((last.source, last.kind), (0, bus::LAST_WORDS));
        let payload = payload(&last)?;
        assert_eq!((payload.incident, payload.snapshot_id), (12, 345));
        Ok(())
    }

    #[test]
    fn every_damaged_byte_is_seen() -> Result {
        let good = words()?.encode();
        for n in 0..good.len() {
            let mut bytes = good;
            if let Some(byte) = bytes.get_mut(n) {
                *byte ^= 0x10;
            }
            assert!(!matches!(LastWords::decode(&bytes), Ok(Some(_))));
        }
        Ok(())
    }
}
