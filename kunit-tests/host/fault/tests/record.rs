// SPDX-License-Identifier: GPL-2.0

//! Records as bytes: the ABI, reports turned into events, and a dying node's last words.

mod common;

use common::*;
use nullhz_fault_host::{
    abi::{self, bus, flag, Event, Level},
    persist::{Damaged, LastWords, STORED_SIZE},
    report::Report,
    ring::Filter,
};
use proptest::{collection::vec, prelude::*};

#[test]
fn fields_lie_where_the_header_puts_them() {
    let event = Event {
        size: 0x0101_0101,
        version: 0x0202,
        level: 3,
        flags: 4,
        seq: 5,
        boot_id: [6; 16],
        source: 7,
        kind: 8,
        count: 9,
        cpu: -1,
        node: -1,
        incident: 10,
        lost: 11,
        payload_len: 12,
        payload: [13; abi::PAYLOAD_SIZE],
        ..Event::ZERO
    };
    let bytes = event.to_bytes();
    assert_eq!(bytes[0..8], [1, 1, 1, 1, 2, 2, 3, 4]);
    assert_eq!(bytes[8..16], 5u64.to_ne_bytes());
    assert_eq!(bytes[16..32], [0; 16]);
    assert_eq!(bytes[32..48], [6; 16]);
    assert_eq!(bytes[48..50], 7u16.to_ne_bytes());
    assert_eq!(bytes[56..64], [0xff; 8]);
    assert_eq!(bytes[64..72], 10u64.to_ne_bytes());
    assert_eq!(bytes[72..80], 11u64.to_ne_bytes());
    assert_eq!(bytes[80..84], 12u32.to_ne_bytes());
    assert_eq!(bytes[84..88], [0; 4]);
    assert_eq!(bytes[88..], [13; abi::PAYLOAD_SIZE]);
    assert_eq!(Event::from_bytes(&bytes), event);
}

#[test]
fn ioctl_numbers_are_those_of_the_header() {
    assert_eq!(abi::ioc::INFO, 0x8040_f100);
    assert_eq!(abi::ioc::FILTER, 0x4010_f101);
    assert_eq!(abi::ioc::SEEK, 0x4010_f102);
    assert_eq!(abi::ioc::ACK, 0x4018_f103);
    assert_eq!(abi::ioc::INCIDENT, 0xc048_f104);
}

#[test]
fn filters_are_checked() {
    let raw = |min_level, pad, source_mask| {
        Filter::from_abi(&abi::Filter {
            min_level,
            pad,
            source_mask,
        })
    };
    assert_eq!(raw(0, 0, u64::MAX), Some(Filter::ALL));
    assert_eq!(raw(3, 0, 2), Some(Filter::new(Level::Fatal, 2)));
    assert_eq!(raw(4, 0, 1), None);
    assert_eq!(raw(256, 0, 1), None);
    assert_eq!(raw(0, 1, 1), None);
    assert_eq!(raw(0, 0, 0), None);
}

#[test]
fn reports_are_checked() {
    let good = Report {
        payload: &[1, 2, 3],
        ..report(Level::Degrading)
    };
    let event = good.event(5, BOOT, at(9)).unwrap();
    assert_eq!((event.size, event.version), (256, 1));
    assert_eq!((event.mono_ns, event.real_ns), (at(9).mono, at(9).real));
    assert_eq!((event.source, event.kind, event.level), (5, 7, 1));
    assert_eq!((event.boot_id, event.payload()), (BOOT, &[1u8, 2, 3][..]));

    let timed = Report {
        mono_ns: 3,
        real_ns: 4,
        ..good
    };
    let event = timed.event(5, BOOT, at(9)).unwrap();
    assert_eq!((event.mono_ns, event.real_ns), (3, 4));

    let full = [0xaa; abi::PAYLOAD_SIZE];
    let too_much = [0; abi::PAYLOAD_SIZE + 1];
    let summary = Report {
        count: 2,
        flags: flag::SUMMARY,
        ..good
    };
    assert!(summary.event(5, BOOT, at(9)).is_some());
    assert!(Report {
        payload: &full,
        ..good
    }
    .event(5, BOOT, at(9))
    .is_some());
    for bad in [
        Report {
            payload: &too_much,
            ..good
        },
        Report { count: 0, ..good },
        Report { count: 2, ..good },
        Report {
            flags: flag::OPENED,
            ..good
        },
        Report {
            flags: flag::REPLAYED,
            ..good
        },
        Report {
            flags: flag::PREVIOUS_BOOT,
            ..good
        },
        Report {
            flags: 0x40,
            ..good
        },
        Report { cpu: -2, ..good },
        Report {
            node: i32::MIN,
            ..good
        },
    ] {
        assert!(bad.event(5, BOOT, at(9)).is_none(), "{bad:?}");
    }
}

fn words() -> LastWords {
    let fatal = Report {
        payload: &[1, 2, 3],
        ..report(Level::Fatal)
    };
    LastWords {
        number: 1,
        incident: 12,
        snapshot_id: 345,
        event: fatal.event(1, BOOT, at(9)).unwrap(),
    }
}

#[test]
fn last_words_come_back() {
    let words = words();
    assert_eq!(LastWords::decode(&words.encode()), Ok(Some(words)));

    let mut hub = hub(4);
    hub.restore(&words);
    let mut reader = opened(&hub);
    assert!(hub.ready(&mut reader).urgent);
    let events = drain(&mut hub, &mut reader);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|e| e.flags == flag::PREVIOUS_BOOT));
    assert!(events.iter().all(|e| e.boot_id == BOOT && e.incident == 12));
    assert_eq!(events[0].payload(), words.event.payload());
    assert_eq!((events[1].source, events[1].kind), (0, bus::LAST_WORDS));
    let state = abi::Bus::from_prefix(events[1].payload()).unwrap();
    assert_eq!(
        (state.incident, state.snapshot_id, state.source),
        (12, 345, 1)
    );
    // They are history: this boot has counted nothing.
    assert!(Level::ALL.iter().all(|level| hub.occurrences(*level) == 0));
    assert_eq!(hub.incidents().last(), 0);
}

#[test]
fn the_checksum_is_the_usual_one() {
    // CRC-32 of the covered bytes, computed with zlib.
    let bytes = words().encode();
    let crc = u32::from_ne_bytes(bytes[12..16].try_into().unwrap());
    assert_eq!(crc, crc32_by_table(&bytes[16..]));
    assert_eq!(crc32_by_table(b"123456789"), 0xcbf4_3926);
}

/// Another way to the same sum.
fn crc32_by_table(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256u32)
        .map(|n| {
            (0..8).fold(n, |c, _| {
                if c & 1 == 1 {
                    0xedb8_8320 ^ (c >> 1)
                } else {
                    c >> 1
                }
            })
        })
        .collect();
    !bytes
        .iter()
        .fold(!0u32, |c, b| table[usize::from(c as u8 ^ b)] ^ (c >> 8))
}

#[test]
fn every_damaged_bit_is_seen() {
    let words = words();
    let good = words.encode();
    for bit in 0..8 * STORED_SIZE {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 { Ok(None) } else { Err(Damaged) };
        assert_eq!(LastWords::decode(&bytes), expected, "bit {bit}");
    }
    for len in 0..STORED_SIZE {
        assert_eq!(LastWords::decode(&good[..len]), Ok(None));
    }
}

#[test]
fn a_checksum_alone_is_not_believed() {
    let good = words();
    let believed = |change: fn(&mut Event)| {
        let mut words = good;
        change(&mut words.event);
        LastWords::decode(&words.encode()) != Err(Damaged)
    };
    assert!(believed(|_| {}));
    assert!(!believed(|e| e.level = 2));
    assert!(!believed(|e| e.level = 200));
    assert!(!believed(|e| e.source = 64));
    assert!(!believed(|e| e.payload_len = 169));
    assert!(!believed(|e| e.size = 255));
    assert!(!believed(|e| e.version = 2));
    assert!(!believed(|e| e.count = 0));
    assert!(!believed(|e| e.flags = flag::REPLAYED));
}

proptest! {
    #[test]
    fn events_survive_their_bytes(bytes in vec(any::<u8>(), Event::SIZE)) {
        let bytes: [u8; Event::SIZE] = bytes.try_into().unwrap();
        let event = Event::from_bytes(&bytes);
        prop_assert_eq!(event.to_bytes(), bytes);
        prop_assert!(event.payload().len() <= abi::PAYLOAD_SIZE);
    }

    #[test]
    fn anything_may_lie_in_a_store(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(LastWords::decode(&bytes), Ok(None));
        let mut marked = b"nullhzFL".to_vec();
        marked.extend(bytes);
        prop_assert!(!matches!(LastWords::decode(&marked), Ok(Some(_))));
    }
}
