// SPDX-License-Identifier: GPL-2.0

//! Incidents: one per source and trouble, however many events tell of it. Pure logic.
//!
//! ```text
//!              IMMINENT               deadline
//!  (no incident) ------> OPEN -------------------> EXPIRED
//!                          |                          |
//!                          | ACK(snapshot, result)    | ACK, late
//!                          v                          v
//!                        ACKED <----------------------+
//! ```
//!
//! An event joins its source's newest incident while that is unacknowledged, and until a cooldown
//! has passed since it was opened: a storm makes one snapshot. When the acknowledger says that the
//! snapshot failed, the next one is tried sooner: [`RETRY_NS`] after the opening, and twice as long
//! after each failure that follows, up to the cooldown. A success makes it start over.
//!
//! A source has at most one unacknowledged incident, so a table with a place for every source and
//! one more never has to forget one.

use super::abi::{self, source, state, Event, Incident};
use super::ring::{Filter, Storage};

/// Incidents that are remembered.
pub const TABLE: usize = 64;

/// From the opening of an incident whose snapshot failed to that of the next one, in ns, at first:
/// a failure often is over soon, but one that comes at once must not be asked for all the time.
pub const RETRY_NS: u64 = 1_000_000_000;

// One place more than there are sources (the bus itself opens no incidents).
const _: () = assert!(TABLE > source::COUNT - 1);

/// How long things take, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the opening of an incident to that of the source's next one, at least.
    pub cooldown: u64,
    /// From the opening of an incident to its expiry.
    pub deadline: u64,
}

impl Times {
    /// One snapshot a minute, and five seconds to make it.
    pub const DEFAULT: Self = Self {
        cooldown: 60_000_000_000,
        deadline: 5_000_000_000,
    };
}

/// What became of an event that an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It opened this incident.
    Opened(u64),
    /// It joined this incident.
    Joined(u64),
}

/// Why an acknowledgement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such incident (any more).
    Unknown,
    /// It has been acknowledged.
    Already,
}

/// A source's newest incident; outlives the incident's place in the table.
#[derive(Clone, Copy)]
struct Newest {
    id: u64,
    place: usize,
    opened_ns: u64,
    unacked: bool,
    /// Snapshots that failed one after the other, up to now.
    failures: u32,
}

impl Newest {
    /// How long after its opening other events join the incident, once it is acknowledged.
    fn cooldown(&self, times: &Times) -> u64 {
        match self.failures.checked_sub(1) {
            None => times.cooldown,
            Some(doublings) => {
                let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
                RETRY_NS.saturating_mul(factor).min(times.cooldown)
            }
        }
    }
}

/// The incidents, newest [`TABLE`] at most.
///
/// # Invariants
///
/// - A place whose `incident` is 0 is free.
/// - `opening` holds, at the same index, the event that opened the incident.
/// - At most one incident of each source is unacknowledged: the one in `newest`.
pub struct Incidents<S: Storage> {
    places: S::Of<Incident>,
    opening: S::Of<Event>,
    newest: S::Of<Newest>,
    last: u64,
    last_snapshot: u64,
    acknowledged: bool,
    unacked: u32,
    times: Times,
}

impl<S: Storage> Incidents<S> {
    /// No incidents yet.
    pub fn new(times: Times) -> Result<Self, S::Error> {
        const NONE: Newest = Newest {
            id: 0,
            place: 0,
            opened_ns: 0,
            unacked: false,
            failures: 0,
        };
        Ok(Self {
            places: S::filled(Incident::ZERO, TABLE)?,
            opening: S::filled(Event::ZERO, TABLE)?,
            newest: S::filled(NONE, source::COUNT)?,
            last: 0,
            last_snapshot: 0,
            acknowledged: false,
            unacked: 0,
            times,
        })
    }

    /// The times in force.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Changes the times; deadlines that are running stay as they are.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
    }

    /// The id of the newest incident, 0: none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The snapshot of the newest successful acknowledgement, 0: none yet.
    pub fn last_snapshot(&self) -> u64 {
        self.last_snapshot
    }

    /// Whether any was ever acknowledged: somebody is there who does that, or was.
    pub fn acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// How many are unacknowledged.
    pub fn unacked(&self) -> u32 {
        self.unacked
    }

    /// Those that are remembered, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.places.iter().filter(|entry| entry.incident != 0)
    }

    /// Where incident `id` is.
    pub fn get(&self, id: u64) -> Option<&Incident> {
        self.iter().find(|entry| entry.incident == id)
    }

    /// Takes note of `event`, which will be or would have been number `event.seq`, at `now`.
    ///
    /// Fills in `event.incident`, and `F_OPENED` when it opened one.
    pub fn note(&mut self, event: &mut Event, now: u64) -> Option<Verdict> {
        let newest = *self.newest.get(usize::from(event.source))?;
        let cooling = now.saturating_sub(newest.opened_ns) < newest.cooldown(&self.times);
        if newest.id != 0 && (newest.unacked || cooling) {
            self.join(&newest, event);
            Some(Verdict::Joined(newest.id))
        } else {
            self.open(event, now).map(Verdict::Opened)
        }
    }

    fn join(&mut self, newest: &Newest, event: &mut Event) {
        event.incident = newest.id;
        let place = self.places.get_mut(newest.place);
        // An acknowledged incident may have lost its place while the source still cools down.
        if let Some(entry) = place.filter(|entry| entry.incident == newest.id) {
            entry.joined = entry.joined.saturating_add(event.count.into());
        }
    }

    fn open(&mut self, event: &mut Event, now: u64) -> Option<u64> {
        let id = self.last.wrapping_add(1);
        // Free places have id 0, so they go first, then the oldest acknowledged incident.
        let dispensable = self.places.iter().enumerate();
        let (place, _) = dispensable
            .filter(|(_, entry)| entry.incident == 0 || entry.state == state::ACKED)
            .min_by_key(|(_, entry)| entry.incident)?;
        event.incident = id;
        event.flags |= abi::flag::OPENED;
        *self.places.get_mut(place)? = Incident {
            incident: id,
            opened_ns: now,
            deadline_ns: now.saturating_add(self.times.deadline),
            first_seq: event.seq,
            joined: event.count.into(),
            state: state::OPEN,
            source: event.source.into(),
            ..Incident::ZERO
        };
        *self.opening.get_mut(place)? = *event;
        let newest = self.newest.get_mut(usize::from(event.source))?;
        *newest = Newest {
            id,
            place,
            opened_ns: now,
            unacked: true,
            ..*newest
        };
        self.last = id;
        self.unacked = self.unacked.saturating_add(1);
        Some(id)
    }

    /// Acknowledges incident `id`: `snapshot_id` was made, or `result`, negative, says why not.
    pub fn ack(
        &mut self,
        id: u64,
        snapshot_id: u64,
        result: i32,
        now: u64,
    ) -> Result<Incident, Refusal> {
        let mut places = self.places.iter_mut();
        let entry = places
            .find(|entry| entry.incident == id && id != 0)
            .ok_or(Refusal::Unknown)?;
        if entry.state == state::ACKED {
            return Err(Refusal::Already);
        }
        // Late is late even when nobody has come round to call it expired.
        entry.late = u32::from(entry.state == state::EXPIRED || now >= entry.deadline_ns);
        entry.state = state::ACKED;
        entry.acked_ns = now;
        entry.snapshot_id = snapshot_id;
        entry.result = result;
        let acked = *entry;
        self.acknowledged = true;
        if let Some(newest) = self.newest.get_mut(acked.source as usize) {
            newest.unacked = false;
            newest.failures = match result {
                0.. => 0,
                _ => newest.failures.saturating_add(1),
            };
        }
        if result >= 0 {
            self.last_snapshot = snapshot_id;
        }
        self.unacked = self.unacked.saturating_sub(1);
        Ok(acked)
    }

    /// Expires one incident whose deadline has passed at `now`.
    pub fn expire(&mut self, now: u64) -> Option<Incident> {
        if self.unacked == 0 {
            return None;
        }
        let mut places = self.places.iter_mut();
        let entry = places.find(|entry| entry.state == state::OPEN && entry.deadline_ns <= now)?;
        entry.state = state::EXPIRED;
        Some(*entry)
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.unacked == 0 {
            return None;
        }
        let open = self.iter().filter(|entry| entry.state == state::OPEN);
        open.map(|entry| entry.deadline_ns).min()
    }

    /// The first unacknowledged incident's opening event that `filter` lets pass, of those whose
    /// `seq` is from `from` to below `to`.
    pub fn unacked_event(&self, from: u64, to: u64, filter: &Filter) -> Option<&Event> {
        let events = self.places.iter().zip(self.opening.iter());
        events
            .filter(|(entry, _)| matches!(entry.state, state::OPEN | state::EXPIRED))
            .map(|(_, event)| event)
            .filter(|event| (from..to).contains(&event.seq))
            .filter(|event| filter.passes(event.source, event.level))
            .min_by_key(|event| event.seq)
    }
}
