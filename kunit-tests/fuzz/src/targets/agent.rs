// SPDX-License-Identifier: GPL-2.0

//! What the agent reads and shows.

use nullhz_agent::abi::Event;
use nullhz_agent::agent::state::State;
use nullhz_agent::agent::{prometheus, rt};
use nullhz_agent::commands::decode::records;
use nullhz_agent::mce_text::{self, Decoded};
use nullhz_agent::snapshot::Name;
use nullhz_agent::store::plain_name;
use nullhz_agent::view::{self, EventView};

use crate::input::Input;

/// One line that a terminal can show.
fn check_line(text: &str) {
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}

pub(super) fn view(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let mut event = Event::from_bytes(&input.array());
    // Of the sources that have words of their own, mostly.
    if input.flag() {
        event.source %= 4;
    }
    check_line(&view::line(&event));
    check_line(&view::text(&event));
    let json = EventView::new(&event).json();
    check_line(&json);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["seq"].as_u64(), Some(event.seq));
    assert_eq!(value["lost"].as_u64(), Some(event.lost));
    assert!(value["source"].is_string() && value["text"].is_string());
}

fn registers(text: &str) {
    let words: Vec<String> = text.split_whitespace().map(Into::into).collect();
    let Ok(mce) = mce_text::parse(&words) else {
        return;
    };
    let decoded = Decoded::new(&mce);
    for line in decoded.lines().lines() {
        check_line(line);
    }
    // The registers as they are told mean the same when they are given again.
    let json = serde_json::to_value(&decoded).unwrap();
    let mut told: Vec<String> = [
        "status",
        "addr",
        "misc",
        "mcgstatus",
        "ip",
        "synd",
        "ipid",
        "synd1",
        "synd2",
        "mcgcap",
        "cpuid",
        "socketid",
        "bank",
        "cs",
        "vendor",
    ]
    .iter()
    .map(|name| format!("{name}={}", json[*name].to_string().trim_matches('"')))
    .collect();
    told.reverse();
    assert_eq!(mce_text::parse(&told), Ok(mce));
}

/// `decode`'s file or standard input.
fn file(bytes: &[u8]) {
    if let Ok(events) = records(bytes) {
        assert!(events
            .iter()
            .all(|event| event.size as usize == Event::SIZE));
        let again: Vec<u8> = events.iter().flat_map(Event::to_bytes).collect();
        assert_eq!(records(&again), Ok(events.clone()));
        assert_eq!(records(view::hex(&again).as_bytes()), Ok(events));
    }
}

fn names(text: &str) {
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.to_string(), text);
        assert_eq!(plain_name(text), Ok(text.into()));
    }
    if let Ok(name) = plain_name(text) {
        let path = std::path::Path::new("/volume").join(&name);
        assert_eq!(path.parent(), Some("/volume".as_ref()));
        assert_eq!(path.file_name(), Some(name.as_ref()));
    }
    if let Ok(cpus) = rt::parse_cpus(text) {
        assert_eq!(rt::parse_cpus(&rt::format_cpus(&cpus)), Ok(cpus));
    }
    if let Ok(source) = view::parse_source(text) {
        assert!(source < 64);
        assert_eq!(view::parse_source(&view::source_name(source)), Ok(source));
    }
}

pub(super) fn arguments(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match (kind % 3, std::str::from_utf8(rest)) {
        (0, Ok(text)) => registers(text),
        (1, Ok(text)) => names(text),
        _ => file(rest),
    }
}

/// https://prometheus.io/docs/instrumenting/exposition_formats/
fn check_metric(line: &str) {
    if line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
        return;
    }
    let (name, value) = match line.split_once('{') {
        None => line.split_once(' ').unwrap(),
        Some((name, rest)) => (name, rest.rsplit_once("} ").unwrap().1),
    };
    assert!(
        name.bytes().all(|c| c == b'_' || c.is_ascii_alphanumeric()),
        "{line}"
    );
    assert!(
        name.starts_with(|c: char| c.is_ascii_alphabetic()),
        "{line}"
    );
    assert!(value.parse::<f64>().is_ok(), "{line}");
    // Labels: quotes that are not escaped come in pairs.
    let mut quotes = 0;
    let mut escaped = false;
    for c in line.chars() {
        quotes += u32::from(c == '"' && !escaped);
        escaped = c == '\\' && !escaped;
    }
    assert_eq!(quotes % 2, 0, "{line}");
}

pub(super) fn state(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else {
        return;
    };
    prometheus::text(&state).lines().for_each(check_metric);
    let json = serde_json::to_vec(&state).unwrap();
    assert!(serde_json::from_slice::<State>(&json).is_ok());
}
