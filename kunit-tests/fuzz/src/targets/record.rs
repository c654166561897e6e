// SPDX-License-Identifier: GPL-2.0

//! Records of the ABI and what is kept across a reset: whatever bytes there are.

use crate::abi::{self, flag, source, Ack, Event, Filter, Level};
use crate::input::Input;
use nullhz_fault_host::hub::ack_is_valid;
use nullhz_fault_host::persist::{self, Damaged, LastWords};
use nullhz_fault_host::report::{Now, Report};
use nullhz_fault_host::ring;
use nullhz_stall_host::abi as stall;
use nullhz_stall_host::budget::{self, Ending, Ledger, Mark, Moment};

/// CRC-32 (IEEE 802.3) by its table.
fn crc32(bytes: &[u8]) -> u32 {
    let entry = |n: u32| {
        (0..8).fold(n, |c, _| {
            if c & 1 == 0 {
                c >> 1
            } else {
                c >> 1 ^ 0xedb8_8320
            }
        })
    };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        entry((crc ^ u32::from(*byte)) & 0xff) ^ crc >> 8
    });
    !crc
}

/// Makes a record of what is stored pass its checksum, which no fuzzer guesses.
fn seal(bytes: &mut [u8], magic: &[u8; 8]) {
    bytes[..8].copy_from_slice(magic);
    bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
    let crc = crc32(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_ne_bytes());
}

macro_rules! round_trip {
    ($bytes:expr, $($record:path),*) => {$({
        type Record = $record;
        if let Some(record) = Record::from_prefix($bytes) {
            assert_eq!(record.to_bytes()[..], $bytes[..Record::SIZE]);
        } else {
            assert!($bytes.len() < Record::SIZE);
        }
    })*};
}

fn event(input: &mut Input<'_>) {
    let mut event = Event::from_bytes(&input.array());
    assert!(event.payload().len() <= abi::PAYLOAD_SIZE);
    let payload = input.rest();
    let before = event;
    match event.set_payload(payload) {
        Some(()) => {
            assert_eq!(event.payload(), payload);
            assert!(event.payload[payload.len()..].iter().all(|byte| *byte == 0));
            assert_eq!(Event::from_bytes(&event.to_bytes()), event);
        }
        None => {
            assert!(payload.len() > abi::PAYLOAD_SIZE);
            assert_eq!(event, before);
        }
    }
}

fn report(input: &mut Input<'_>) {
    let report = Report {
        mono_ns: input.extreme(),
        real_ns: input.extreme(),
        kind: input.u16(),
        level: input.pick(&Level::ALL),
        flags: input.u8(),
        cpu: input.i32(),
        node: input.i32(),
        count: input.extreme32(),
        payload: &[1; 256][..input.u8().into()],
    };
    let now = Now {
        mono: input.u64(),
        real: input.u64(),
    };
    let event = report.event(input.u16(), [7; 16], now);
    let bad = report.flags & !flag::FROM_SOURCE != 0
        || report.count == 0
        || (report.count > 1 && report.flags & flag::SUMMARY == 0)
        || report.cpu < -1
        || report.node < -1
        || report.payload.len() > abi::PAYLOAD_SIZE;
    assert_eq!(event.is_none(), bad);
    if let Some(event) = event {
        assert_eq!(event.payload(), report.payload);
        assert_eq!((event.incident, event.lost, event.pad), (0, 0, 0));
        assert_eq!(
            event.mono_ns,
            if report.mono_ns == 0 {
                now.mono
            } else {
                report.mono_ns
            }
        );
        assert_eq!(
            event.real_ns,
            if report.real_ns == 0 {
                now.real
            } else {
                report.real_ns
            }
        );
    }
}

fn calls(input: &mut Input<'_>) {
    let filter = Filter::from_bytes(&input.array());
    let taken = ring::Filter::from_abi(&filter);
    assert_eq!(
        taken.is_some(),
        filter.min_level < 4 && filter.pad == 0 && filter.source_mask != 0
    );
    if let Some(taken) = taken {
        let (source, level) = (input.u8().into(), input.u8());
        let wanted = source < 64 && filter.source_mask >> source & 1 != 0;
        assert_eq!(
            taken.passes(source, level),
            wanted && u32::from(level) >= filter.min_level
        );
    }
    let ack = Ack::from_bytes(&input.array());
    let made = ack.result == 0 && ack.snapshot_id != 0;
    let failed = (-4095..0).contains(&ack.result);
    assert_eq!(ack_is_valid(&ack), ack.pad == 0 && (made || failed));
}

fn last_words(input: &mut Input<'_>) {
    let sealed = input.flag();
    let mut bytes: [u8; persist::STORED_SIZE] = input.array();
    if sealed {
        // What the bus writes, for the rest of the checks to be reached.
        seal(&mut bytes, b"nullhzFL");
    }
    match LastWords::decode(&bytes) {
        Ok(Some(words)) => {
            let event = &words.event;
            assert_eq!(event.level, Level::Fatal as u8);
            assert!(event.source <= source::MAX && event.count > 0);
            assert_eq!(LastWords::decode(&words.encode()), Ok(Some(words)));
            // One bit more or less.
            let mut torn = words.encode();
            let at = usize::from(input.u16()) % (8 * torn.len() - 64) + 64;
            torn[at / 8] ^= 1 << (at % 8);
            assert_eq!(LastWords::decode(&torn), Err(Damaged));
        }
        Ok(None) => assert!(!bytes.starts_with(b"nullhzFL")),
        Err(Damaged) => assert!(bytes.starts_with(b"nullhzFL")),
    }
    assert_eq!(LastWords::decode(&bytes[..input.u8().into()]), Ok(None));
}

fn ledger(input: &mut Input<'_>) {
    let sealed = input.flag();
    let mut bytes: [u8; budget::STORED_SIZE] = input.array();
    if sealed {
        seal(&mut bytes, b"nullhzSW");
        // The mark and the pad.
        bytes[24] %= 6;
        bytes[25..32].fill(0);
        seal(&mut bytes, b"nullhzSW");
    }
    let Some(mut ledger) = Ledger::decode(&bytes) else {
        assert!(!sealed || bytes[24] > 4 || bytes[23] > 127);
        return;
    };
    assert_eq!(ledger.encode(), bytes);
    if bytes[23] == 127 {
        // Some writes more, and it is none.
        return;
    }
    let mut other = ledger;
    while !input.is_empty() {
        // Seconds since 1970: at its end the clock is 2^34.
        let (now, limit) = (input.extreme() >> 30, input.u8().into());
        let moment = Moment {
            loaded: now,
            elapsed: 0,
        };
        let resets = ledger.resets(moment);
        assert!(resets <= budget::REMEMBERED as u32);
        assert_eq!(ledger.exhausted(moment, limit), resets >= limit.min(16));
        assert!(ledger.copy() < 2);
        let before = ledger.copy();
        match input.below(5) {
            0 => {
                let mark = ledger.mark();
                let watchdog = input.pick(&[None, Some(false), Some(true)]);
                let ending = ledger.boot(now, watchdog);
                assert_eq!(ledger.mark(), Mark::Clean);
                let counted = matches!(ending, Ending::Bitten | Ending::Reset);
                // The new one counts now, and pushes at most one out.
                assert!(!counted || ledger.resets(moment) >= resets.max(1));
                assert!(counted || ledger.resets(moment) == resets);
                assert!(mark != Mark::Armed || watchdog == Some(false) || counted);
            }
            1 => ledger.set(input.pick(&[Mark::Armed, Mark::Shut, Mark::Panic, Mark::Unloaded])),
            2 => {
                ledger.forgive();
                assert_eq!(ledger.resets(moment), 0);
            }
            3 => {
                assert_eq!(Ledger::decode(&ledger.encode()), Some(ledger));
                continue;
            }
            _ => {
                // Written after `other`, so newer.
                assert_eq!(other.newer(ledger), ledger);
                other = ledger;
                continue;
            }
        }
        // Each write goes to the other copy.
        assert_ne!(ledger.copy(), before);
    }
}

pub(super) fn record(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    match input.below(6) {
        0 => {
            let bytes = input.rest();
            round_trip!(
                bytes,
                abi::Bus,
                abi::Mce,
                abi::Event,
                abi::Info,
                abi::Filter,
                abi::Seek,
                abi::Ack,
                abi::Incident,
                stall::Page,
                stall::Info,
                stall::Register,
                stall::Grace,
                stall::Checkpoint,
                stall::Rank,
                stall::Stall
            );
            assert!(!stall::text(bytes).contains(&0));
        }
        1 => event(input),
        2 => report(input),
        3 => calls(input),
        4 => last_words(input),
        _ => ledger(input),
    }
}
