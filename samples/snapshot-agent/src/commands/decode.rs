// SPDX-License-Identifier: GPL-2.0
//! `nullhz-agent decode`: records from /dev/nullhz-fault, or the registers of a
//! machine check from any log.

use std::fs;
use std::io::{self, Read};

use super::{print, print_json};
use crate::abi::Event;
use crate::error::{Error, Result};
use crate::mce_text::{self, Decoded};
use crate::view::{self, EventView};

/// What to decode.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// A file of records (binary or hex), - for standard input, a record in hex,
    /// or registers: status=0x... [bank=N] [addr=0x...] [misc=0x...]
    /// [vendor=intel|amd|hygon|zhaoxin] [cpuid=0x...] [mcgstatus=0x...]
    /// [mcgcap=0x...] [synd=0x...] [ipid=0x...] ...
    #[arg(required = true, value_name = "RECORD|REGISTER=VALUE")]
    input: Vec<String>,

    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Explains what it is given.
///
/// # Errors
///
/// `Input` when it is no record, `Io` when it cannot be read.
pub fn run(options: &Options) -> Result<()> {
    if options.input.iter().any(|word| word.contains('=')) {
        let mce = mce_text::parse(&options.input).map_err(Error::Input)?;
        let decoded = Decoded::new(&mce);
        return match options.json {
            true => print_json(&decoded),
            false => print(&decoded.lines()),
        };
    }
    for word in &options.input {
        for event in records(&read(word)?).map_err(|why| Error::Input(format!("{word}: {why}")))? {
            if options.json {
                print(&EventView::new(&event).json())?;
            } else {
                print(&view::line(&event))?;
            }
        }
    }
    Ok(())
}

fn read(word: &str) -> Result<Vec<u8>> {
    if word == "-" {
        let mut bytes = Vec::new();
        io::stdin()
            .read_to_end(&mut bytes)
            .map_err(Error::io("standard input"))?;
        return Ok(bytes);
    }
    match fs::read(word) {
        Ok(bytes) => Ok(bytes),
        // Not a file, so perhaps the record itself.
        Err(_) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(word.as_bytes().to_vec())
        }
        Err(err) => Err(Error::io(word)(err)),
    }
}

/// The records in binary or in hex.
///
/// # Errors
///
/// A text that says why they are none.
pub fn records(bytes: &[u8]) -> Result<Vec<Event>, String> {
    let text: Vec<_> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bytes = if !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit) {
        unhex(&text).ok_or("an odd number of hex digits")?
    } else {
        bytes.to_vec()
    };
    let (records, rest) = bytes.as_chunks();
    if records.is_empty() || !rest.is_empty() {
        return Err(format!(
            "{} bytes are not a number of {}-byte records",
            bytes.len(),
            Event::SIZE
        ));
    }
    let events: Vec<_> = records.iter().map(Event::from_bytes).collect();
    match events
        .iter()
        .find(|event| event.size as usize != Event::SIZE)
    {
        Some(event) => Err(format!(
            "not a fault record: its size field says {}",
            event.size
        )),
        None => Ok(events),
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_binary_and_hex() {
        let event = Event {
            size: 256,
            seq: 7,
            ..Event::ZERO
        };
        let bytes = event.to_bytes();
        assert_eq!(records(&bytes), Ok(vec![event]));
        let hex = view::hex(&bytes);
        assert_eq!(records(hex.as_bytes()), Ok(vec![event]));
        let spaced = hex.as_bytes().chunks(32).collect::<Vec<_>>().join(&b'\n');
        assert_eq!(records(&spaced), Ok(vec![event]));
        assert_eq!(records(&[bytes, bytes].concat()), Ok(vec![event, event]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(records(b"").is_err());
        assert!(records(b"abc").is_err());
        assert!(records(&[0; 256]).is_err());
        assert!(records(&[1; 255]).is_err());
        assert!(records("0".repeat(512).as_bytes()).is_err());
    }

    fn decoded(words: &[&str]) -> Result<Decoded, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        mce_text::parse(&words).map(|mce| Decoded::new(&mce))
    }

    #[test]
    fn registers_are_graded() {
        // Intel SDM volume 3B, recoverable errors: memory scrubbing, 00C0-00CF.
        let srao = decoded(&[
            "status=0xbd000000000000c0",
            "misc=0x8c",
            "bank=7",
            "mcgstatus=5",
        ]);
        assert_eq!(srao.unwrap().grade, "action_optional");
        let corrected = decoded(&["status=0x9c00000000000090", "bank=7"]);
        assert_eq!(corrected.unwrap().grade, "corrected");
    }

    #[test]
    fn wrong_registers_are_named() {
        for (words, part) in [
            (vec!["bank=1"], "status"),
            (vec!["status=0xg"], "status=0xg"),
            (vec!["status=1", "bank=256"], "above 255"),
            (vec!["status=1", "vendor=via"], "zhaoxin"),
            (vec!["status=1", "nonsense=1"], "nonsense"),
            (vec!["status=1", "word"], "name=value"),
        ] {
            let err = decoded(&words).unwrap_err();
            assert!(err.contains(part), "{err}");
        }
    }
}
