// SPDX-License-Identifier: GPL-2.0
//! Events as people and programs read them.

use std::fmt::Write;

use chrono::{DateTime, Local, SecondsFormat, Utc};
use nullhz_stall::abi::Stall;
use serde::Serialize;

use crate::abi::{bus, flag, mce, source, Aer, Bus, Event, Level, Mce};
use crate::aer_text::{self, AerView};
use crate::mce_text;
use crate::stall_text::{self, StallView};

/// An event as JSON. Registers are strings in hex: JSON readers lose the low
/// bits of 64-bit numbers.
#[derive(Debug, Serialize)]
pub struct EventView {
    /// Always `event`; hooks get other things too.
    #[serde(rename = "type")]
    kind_of_record: &'static str,
    seq: u64,
    /// RFC 3339, UTC.
    time: String,
    mono_ns: u64,
    boot_id: String,
    level: String,
    source: String,
    kind: u16,
    kind_name: &'static str,
    flags: Vec<&'static str>,
    count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u64>,
    lost: u64,
    text: String,
    payload: Payload,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Payload {
    Bus {
        incident: u64,
        snapshot_id: u64,
        age_ns: u64,
        result: i32,
        joined: u32,
        source: String,
        acker: u32,
    },
    Mce(Box<mce_text::Registers>),
    Stall(Box<StallView>),
    Aer(Box<AerView>),
    Raw {
        hex: String,
    },
}

impl EventView {
    /// The view of an event.
    pub fn new(event: &Event) -> Self {
        let known = |value: i32| (value >= 0).then_some(value);
        Self {
            kind_of_record: "event",
            seq: event.seq,
            time: utc(event.real_ns).to_rfc3339_opts(SecondsFormat::Nanos, true),
            mono_ns: event.mono_ns,
            boot_id: uuid(&event.boot_id),
            level: level_name(event.level),
            source: source_name(event.source),
            kind: event.kind,
            kind_name: kind_name(event),
            flags: flag_names(event.flags),
            count: event.count,
            cpu: known(event.cpu),
            node: known(event.node),
            incident: (event.incident != 0).then_some(event.incident),
            lost: event.lost,
            text: text(event),
            payload: payload(event),
        }
    }

    /// One line of JSON without its end.
    pub fn json(&self) -> String {
        // Only maps with keys other than strings can fail, and there are none.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One line for people, in local time.
pub fn line(event: &Event) -> String {
    let time = utc(event.real_ns).with_timezone(&Local);
    let mut line = format!(
        "{} #{} {:<9} {}",
        time.format("%Y-%m-%d %H:%M:%S%.6f %:z"),
        event.seq,
        level_name(event.level).to_uppercase(),
        source_name(event.source),
    );
    // Writing to a string cannot fail.
    if event.cpu >= 0 {
        let _ = write!(line, " cpu {}", event.cpu);
    }
    if event.node >= 0 {
        let _ = write!(line, " node {}", event.node);
    }
    if event.incident != 0 {
        let _ = write!(line, " incident {}", event.incident);
    }
    if event.count > 1 {
        let _ = write!(line, " ×{}", event.count);
    }
    let _ = write!(line, ": {}", text(event));
    let flags = flag_names(event.flags);
    if !flags.is_empty() {
        let _ = write!(line, " [{}]", flags.join(", "));
    }
    if event.lost > 0 {
        let _ = write!(line, " ({} records lost before this one)", event.lost);
    }
    line
}

/// CLOCK_REALTIME as a date.
pub fn utc(real_ns: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(real_ns.try_into().unwrap_or(i64::MAX))
}

/// A level's name, or its number when it is of a later version.
pub fn level_name(level: u8) -> String {
    Level::from_raw(level).map_or_else(|| level.to_string(), |level| level.name().into())
}

/// The names of the sources that have one.
pub const SOURCES: [(u16, &str); 8] = [
    (source::BUS, "bus"),
    (source::MCE, "mce"),
    (source::STALL, "stall"),
    (source::PCIE_AER, "pcie_aer"),
    (source::GHES, "ghes"),
    (source::GPU, "gpu"),
    (source::NIC, "nic"),
    (source::THERMAL, "thermal"),
];

/// A source's name, or `source-<number>`.
pub fn source_name(id: u16) -> String {
    let named = SOURCES.iter().find(|(known, _)| *known == id);
    named.map_or_else(|| format!("source-{id}"), |(_, name)| (*name).into())
}

/// The source that a name or number stands for.
pub fn parse_source(text: &str) -> Result<u16, String> {
    let named = SOURCES.iter().find(|(_, name)| *name == text);
    let number = text.strip_prefix("source-").unwrap_or(text);
    named
        .map(|(id, _)| *id)
        .or_else(|| number.parse().ok().filter(|id| *id <= source::MAX))
        .ok_or_else(|| {
            let names: Vec<_> = SOURCES.iter().map(|(_, name)| *name).collect();
            format!(
                "one of {} or a number from 0 to {}",
                names.join(", "),
                source::MAX
            )
        })
}

/// A 128-bit id as everybody writes it.
pub fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn flag_names(flags: u8) -> Vec<&'static str> {
    [
        (flag::BOOT, "boot"),
        (flag::PREVIOUS_BOOT, "previous_boot"),
        (flag::OPENED, "opened"),
        (flag::SUMMARY, "summary"),
        (flag::INJECTED, "injected"),
        (flag::REPLAYED, "replayed"),
    ]
    .into_iter()
    .filter_map(|(bit, name)| (flags & bit != 0).then_some(name))
    .collect()
}

fn kind_name(event: &Event) -> &'static str {
    match (event.source, event.kind) {
        (source::BUS, bus::ACKED) => "acked",
        (source::BUS, bus::EXPIRED) => "expired",
        (source::BUS, bus::STORM) => "storm",
        (source::BUS, bus::LAST_WORDS) => "last_words",
        (source::MCE, mce::INVALID) => "invalid",
        (source::MCE, mce::CORRECTED) => "corrected",
        (source::MCE, mce::DEFERRED) => "deferred",
        (source::MCE, mce::ACTION_OPTIONAL) => "action_optional",
        (source::MCE, mce::ACTION_REQUIRED) => "action_required",
        (source::MCE, mce::FATAL) => "fatal",
        (source::MCE, mce::HIDDEN_UC) => "hidden_uncorrected",
        (source::STALL, kind) => stall_text::kind_name(kind),
        (source::PCIE_AER, kind) => aer_text::kind_name(kind),
        _ => "",
    }
}

fn payload(event: &Event) -> Payload {
    match event.source {
        source::BUS => Bus::from_prefix(event.payload()).map(|bus| Payload::Bus {
            incident: bus.incident,
            snapshot_id: bus.snapshot_id,
            age_ns: bus.age_ns,
            result: bus.result,
            joined: bus.joined,
            source: source_name(bus.source.try_into().unwrap_or(u16::MAX)),
            acker: bus.acker,
        }),
        source::MCE => Mce::from_prefix(event.payload())
            .map(|mce| Payload::Mce(Box::new(mce_text::Registers::new(&mce)))),
        source::STALL => Stall::from_prefix(event.payload())
            .map(|stall| Payload::Stall(Box::new(StallView::new(&stall)))),
        source::PCIE_AER => Aer::from_prefix(event.payload())
            .map(|aer| Payload::Aer(Box::new(AerView::new(event.kind, &aer)))),
        _ => None,
    }
    .unwrap_or_else(|| Payload::Raw {
        hex: hex(event.payload()),
    })
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What happened, in words.
pub fn text(event: &Event) -> String {
    match event.source {
        source::BUS => Bus::from_prefix(event.payload()).map(|bus| bus_text(event.kind, &bus)),
        source::MCE => {
            Mce::from_prefix(event.payload()).map(|mce| mce_text::text(kind_name(event), &mce))
        }
        source::STALL => {
            Stall::from_prefix(event.payload()).map(|stall| stall_text::text_of(event.kind, &stall))
        }
        source::PCIE_AER => {
            Aer::from_prefix(event.payload()).map(|aer| aer_text::text(event.kind, &aer))
        }
        _ => None,
    }
    .unwrap_or_else(|| match event.payload() {
        [] => format!("kind {}", event.kind),
        bytes => format!("kind {}, payload {}", event.kind, hex(bytes)),
    })
}

fn bus_text(kind: u16, bus: &Bus) -> String {
    let Bus {
        incident,
        snapshot_id,
        joined,
        acker,
        ..
    } = bus;
    let age = duration(bus.age_ns);
    let source = source_name(bus.source.try_into().unwrap_or(u16::MAX));
    match kind {
        bus::ACKED if bus.result == 0 => format!(
            "incident {incident} acknowledged after {age} with snapshot {snapshot_id} by pid {acker}"
        ),
        bus::ACKED => format!(
            "incident {incident} acknowledged after {age} by pid {acker}: snapshot failed: {}",
            errno_text(bus.result)
        ),
        bus::EXPIRED => format!("incident {incident} not acknowledged for {age}"),
        bus::STORM => format!("{joined} events of {source} joined incident {incident}"),
        bus::LAST_WORDS => format!(
            "the node died of {source}; last incident {incident}, last snapshot {snapshot_id}"
        ),
        _ => format!("kind {kind}, incident {incident}"),
    }
}

/// A negative errno in words.
pub fn errno_text(result: i32) -> String {
    nix::errno::Errno::from_raw(result.saturating_neg()).to_string()
}

/// A time span with the unit that suits it.
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (60_000_000_000, "min"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "µs"),
    ];
    match UNITS.iter().find(|(size, _)| ns >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", ns as f64 / *size as f64),
        None => format!("{ns} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acked() -> Event {
        let bus = Bus {
            incident: 7,
            snapshot_id: 300,
            age_ns: 41_500_000,
            acker: 99,
            joined: 3,
            source: 1,
            ..Bus::ZERO
        };
        let mut event = Event {
            size: 256,
            version: 1,
            seq: 12,
            real_ns: 1_795_182_912_123_456_789,
            cpu: -1,
            node: -1,
            count: 1,
            kind: bus::ACKED,
            flags: flag::OPENED | flag::REPLAYED,
            ..Event::ZERO
        };
        event.set_payload(&bus.to_bytes()).unwrap();
        event
    }

    #[test]
    fn an_acknowledgement_reads_well() {
        let line = line(&acked());
        let end = "#12 WATCH     bus: incident 7 acknowledged after 41.5 ms \
                   with snapshot 300 by pid 99 [opened, replayed]";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn json_has_documented_names() {
        let json: serde_json::Value =
            serde_json::from_str(&EventView::new(&acked()).json()).unwrap();
        assert_eq!(json["type"], "event");
        assert_eq!(json["time"], "2026-11-20T13:55:12.123456789Z");
        assert_eq!(json["level"], "watch");
        assert_eq!(json["source"], "bus");
        assert_eq!(json["kind_name"], "acked");
        assert_eq!(json["payload"]["snapshot_id"], 300);
        assert_eq!(json["flags"], serde_json::json!(["opened", "replayed"]));
        assert!(json.get("cpu").is_none());
    }

    #[test]
    fn spans_have_units() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.5 µs"),
            (41_500_000, "41.5 ms"),
            (2_000_000_000, "2.0 s"),
            (90_000_000_000, "1.5 min"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn sources_have_names_and_numbers() {
        for (id, name) in SOURCES {
            assert_eq!(parse_source(name), Ok(id));
            assert_eq!(source_name(id), name);
        }
        assert_eq!(parse_source(&source_name(40)), Ok(40));
        assert_eq!(parse_source("63"), Ok(63));
        assert!(parse_source("64").is_err());
        assert!(parse_source("mc").is_err());
    }

    proptest! {
        #[test]
        fn any_record_can_be_shown(bytes in prop::collection::vec(any::<u8>(), 256)) {
            let event = Event::from_prefix(&bytes).unwrap();
            prop_assert!(!line(&event).contains('\n'));
            let json: serde_json::Value = serde_json::from_str(&EventView::new(&event).json()).unwrap();
            prop_assert_eq!(json["seq"].as_u64(), Some(event.seq));
        }
    }
}
