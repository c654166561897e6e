// SPDX-License-Identifier: GPL-2.0
//! Snapshots as the agent thinks of them: their names, which incidents they
//! answer, and which of them may go. Pure, so that all of it is tested without
//! a filesystem.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::btrfs::SubvolumeInfo;

const UTC_FORMAT: &str = "%Y%m%dT%H%M%S%.3fZ";

/// The name of a snapshot: `20261120T135512.123Z-i42-4f3a9c01-1a2b3c4d5e`.
///
/// UTC of its start, so that names sort; the incident that it was taken for;
/// the first four bytes of the bus's id and CLOCK_MONOTONIC at its start in hex,
/// which tell exactly, whatever the wall clock did since, which incidents were
/// open before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Milliseconds of CLOCK_REALTIME when it was begun.
    utc_ms: i64,
    /// The incident that it was taken for.
    pub incident: u64,
    /// The first four bytes of the id that the bus calls the boot's; there is a
    /// new one whenever its module is loaded, as incidents are then counted anew.
    pub boot: u32,
    /// CLOCK_MONOTONIC when it was begun, ns.
    pub started_ns: u64,
}

impl Name {
    /// The name of a snapshot begun at `started_ns` (CLOCK_MONOTONIC), `utc_ms`
    /// (CLOCK_REALTIME) of boot `boot_id`.
    pub fn new(utc_ms: i64, incident: u64, boot_id: &[u8; 16], started_ns: u64) -> Self {
        let [a, b, c, d, ..] = *boot_id;
        Self {
            // What chrono can write and read back: years 0 to 9999.
            utc_ms: utc_ms.clamp(0, 253_402_300_799_999),
            incident,
            boot: u32::from_be_bytes([a, b, c, d]),
            started_ns,
        }
    }

    /// When it was begun.
    pub fn utc(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.utc_ms).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            incident,
            boot,
            started_ns,
            ..
        } = self;
        let utc = self.utc().format(UTC_FORMAT);
        write!(f, "{utc}-i{incident}-{boot:08x}-{started_ns:x}")
    }
}

impl FromStr for Name {
    type Err = ();

    /// Accepts exactly what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(());
        let utc = NaiveDateTime::parse_from_str(next()?, UTC_FORMAT).map_err(drop)?;
        let name = Self {
            utc_ms: utc.and_utc().timestamp_millis(),
            incident: next()?.strip_prefix('i').ok_or(())?.parse().map_err(drop)?,
            boot: u32::from_str_radix(next()?, 16).map_err(drop)?,
            started_ns: u64::from_str_radix(next()?, 16).map_err(drop)?,
        };
        // One snapshot has one name: no leading zeros, signs or capitals.
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

/// What a directory entry with a snapshot's name turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A read-only subvolume: complete, by how BTRFS makes them.
    Valid,
    /// A subvolume that was made writable by somebody: theirs now. Neither
    /// counted nor ever deleted.
    Writable,
    /// No subvolume at all; neither counted nor ever deleted.
    Foreign,
}

/// A snapshot on the volume.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: Name,
    /// What BTRFS says about it; `None` when it is no subvolume.
    pub info: Option<SubvolumeInfo>,
}

impl Snapshot {
    /// What it is.
    pub fn state(&self) -> State {
        match self.info {
            Some(info) if info.read_only => State::Valid,
            Some(_) => State::Writable,
            None => State::Foreign,
        }
    }

    /// Whether it is a valid snapshot of `source`, begun in this boot after an
    /// incident was opened, so that it answers the incident.
    pub fn answers(&self, source: &[u8; 16], boot_id: &[u8; 16], opened_ns: u64) -> bool {
        let [a, b, c, d, ..] = *boot_id;
        self.state() == State::Valid
            && self.info.is_some_and(|info| info.parent_uuid == *source)
            && self.name.boot == u32::from_be_bytes([a, b, c, d])
            && self.name.started_ns >= opened_ns
    }

    /// What snapshots are ordered by: the transaction that made them. Unlike
    /// the time in the name it never goes back.
    fn age_key(&self) -> Option<(u64, u64)> {
        match self.info {
            Some(info) if info.read_only => Some((info.created, info.id)),
            _ => None,
        }
    }
}

/// Sorts oldest first; what is not valid comes first of all.
pub fn sort(snapshots: &mut [Snapshot]) {
    snapshots.sort_by_key(|snapshot| (snapshot.age_key(), snapshot.name));
}

/// The names of those that may be deleted so that the `keep` newest valid ones
/// stay, oldest first.
pub fn expendable(snapshots: &[Snapshot], keep: usize) -> Vec<Name> {
    let mut valid: Vec<_> = snapshots
        .iter()
        .filter_map(|snapshot| Some((snapshot.age_key()?, snapshot.name)))
        .collect();
    valid.sort();
    valid.truncate(valid.len().saturating_sub(keep));
    valid.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: [u8; 16] = [
        0x4f, 0x3a, 0x9c, 0x01, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    ];
    const SOURCE: [u8; 16] = [7; 16];

    fn snapshot(created: u64, read_only: bool, name: Name) -> Snapshot {
        Snapshot {
            name,
            info: Some(SubvolumeInfo {
                id: 256 + created,
                uuid: [1; 16],
                parent_uuid: SOURCE,
                created,
                read_only,
            }),
        }
    }

    #[test]
    fn a_name_reads_as_documented() {
        let name = Name::new(1_795_182_912_123, 42, &BOOT, 0x1a_2b3c_4d5e);
        let text = "20261120T135512.123Z-i42-4f3a9c01-1a2b3c4d5e";
        assert_eq!(name.to_string(), text);
        assert_eq!(text.parse(), Ok(name));
    }

    #[test]
    fn only_canonical_names_are_ours() {
        for text in [
            "",
            ".nullhz-agent",
            "lost+found",
            "20261120T135512.123Z",
            "20261120T135512.123Z-i42-4f3a9c01-1a2b3c4d5e.tmp",
            "20261120T135512.123Z-i042-4f3a9c01-1a2b3c4d5e",
            "20261120T135512.123Z-i42-4F3A9C01-1a2b3c4d5e",
            "20261120T135512.123Z-i+42-4f3a9c01-1a2b3c4d5e",
            "20261120T135512.123Z-i42-4f3a9c01-01a2b3c4d5e",
            "20261120T135512.123Z-i42-4f3a9c01-1a2b3c4d5e-x",
            "20261320T135512.123Z-i42-4f3a9c01-1a2b3c4d5e",
            "20261120T135512Z-i42-4f3a9c01-1a2b3c4d5e",
        ] {
            assert_eq!(text.parse::<Name>(), Err(()), "{text}");
        }
    }

    #[test]
    fn an_incident_is_answered_by_what_began_after_it_opened() {
        let taken = snapshot(9, true, Name::new(0, 1, &BOOT, 1000));
        assert!(taken.answers(&SOURCE, &BOOT, 1000));
        assert!(!taken.answers(&SOURCE, &BOOT, 1001));
        assert!(!taken.answers(&SOURCE, &[0; 16], 1000));
        assert!(!taken.answers(&[8; 16], &BOOT, 1000));
        let writable = snapshot(9, false, Name::new(0, 1, &BOOT, 1000));
        assert!(!writable.answers(&SOURCE, &BOOT, 1000));
        let foreign = Snapshot {
            info: None,
            ..taken
        };
        assert!(!foreign.answers(&SOURCE, &BOOT, 1000));
    }

    #[test]
    fn a_wall_clock_that_went_back_does_not_cost_the_newest() {
        let old = snapshot(10, true, Name::new(9_000_000, 1, &BOOT, 1));
        let new = snapshot(11, true, Name::new(1_000_000, 2, &BOOT, 2));
        assert_eq!(expendable(&[old, new], 1), [old.name]);
        assert_eq!(expendable(&[new, old], 1), [old.name]);
    }

    fn any_snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
        let one = (
            0..1u64 << 40,
            any::<Option<bool>>(),
            any::<u64>(),
            any::<u64>(),
        );
        prop::collection::vec(one, 0..20).prop_map(|list| {
            let build = |(created, (utc, kind, incident, started))| {
                let name = Name::new(utc as i64, incident, &BOOT, started);
                match kind {
                    Some(read_only) => snapshot(created, read_only, name),
                    None => Snapshot { name, info: None },
                }
            };
            (1000..).zip(list).map(build).collect()
        })
    }

    proptest! {
        #[test]
        fn names_come_back(utc in any::<i64>(), incident: u64, boot: [u8; 16], started: u64) {
            let name = Name::new(utc, incident, &boot, started);
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn names_sort_by_time(a in 0..1i64 << 47, b in 0..1i64 << 47) {
            let (x, y) = (Name::new(a, 1, &BOOT, 0), Name::new(b, 1, &BOOT, 0));
            prop_assert_eq!(a.cmp(&b), x.to_string().cmp(&y.to_string()));
        }

        #[test]
        fn the_newest_valid_ones_stay(list in any_snapshots().prop_shuffle(), keep in 1usize..6) {
            let gone = expendable(&list, keep);
            let valid: Vec<_> = list.iter().filter(|s| s.state() == State::Valid).collect();
            // Exactly the surplus goes, and nothing that is not a valid snapshot.
            prop_assert_eq!(gone.len(), valid.len().saturating_sub(keep));
            let created = |name: &Name| valid.iter().find(|s| s.name == *name).map(|s| s.info.unwrap().created);
            let newest_gone = gone.iter().map(|name| created(name).unwrap()).max();
            for stays in valid.iter().filter(|s| !gone.contains(&s.name)) {
                prop_assert!(newest_gone < Some(stays.info.unwrap().created));
            }
            // Rotating again changes nothing.
            let left: Vec<_> = list.iter().copied().filter(|s| !gone.contains(&s.name)).collect();
            prop_assert!(expendable(&left, keep).is_empty());
        }
    }
}
