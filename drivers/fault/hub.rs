// SPDX-License-Identifier: GPL-2.0

//! All that the bus knows: the ring, the incidents, the storms, the counts. Pure logic.
//!
//! The driver keeps one [`Hub`] under a raw spinlock. No call does more than a bounded, small
//! amount of work, so that it can be made in hard interrupt context on PREEMPT_RT; what may take
//! longer comes in steps, with the lock dropped between them.

use super::abi::{self, bus, flag, source, Ack, Bus, Event, Incident, Level};
use super::incident::{Incidents, Refusal, Times, Verdict};
use super::persist::LastWords;
use super::report::Now;
use super::ring::{Cursor, Filter, Found, Ring, Storage};
use super::storm::{Storm, Sum};
use core::mem::take;

/// The newest errno, negated: what `result` of an acknowledgement may go down to.
const MIN_RESULT: i32 = -4095;

/// How long, in ns, readers wait for news that are not urgent after they have been told some: in a
/// storm the bus thread would do nothing but run from one to the next.
pub const PACE_NS: u64 = 1_000_000;

/// What a report came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The incident that it opened.
    pub opened: Option<u64>,
    /// The bus thread has to be woken.
    pub wake: bool,
}

/// What [`Hub::tick`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// This incident expired; call again.
    Expired(Incident),
    /// A storm's sum was put on the ring; call again.
    Summed,
    /// Nothing.
    Idle {
        /// When to call again at the latest, in ns of `CLOCK_MONOTONIC`; [`None`]: when woken.
        due: Option<u64>,
        /// What readers are to be told.
        fresh: Fresh,
    },
}

/// What a reader can read without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something that matches its filter.
    pub any: bool,
    /// Something of level `IMMINENT` or worse that matches.
    pub urgent: bool,
}

/// What is new since the bus thread looked last: by level, a mask of the sources.
pub type Fresh = [u64; Level::COUNT];

/// The state of the bus.
pub struct Hub<S: Storage> {
    ring: Ring<S>,
    incidents: Incidents<S>,
    storms: S::Of<Storm>,
    summing: u64,
    fresh: Fresh,
    paced: bool,
    occurrences: [u64; Level::COUNT],
    lost: u64,
    boot_id: [u8; 16],
}

impl<S: Storage> Hub<S> {
    /// A bus whose ring has room for `1 << order` records.
    pub fn new(order: u32, boot_id: [u8; 16], times: Times) -> Result<Self, S::Error> {
        Ok(Self {
            ring: Ring::new(order)?,
            incidents: Incidents::new(times)?,
            storms: S::filled(Storm::NONE, source::COUNT)?,
            summing: 0,
            fresh: [0; Level::COUNT],
            paced: false,
            occurrences: [0; Level::COUNT],
            lost: 0,
            boot_id,
        })
    }

    /// The ring.
    pub fn ring(&self) -> &Ring<S> {
        &self.ring
    }

    /// The incidents.
    pub fn incidents(&self) -> &Incidents<S> {
        &self.incidents
    }

    /// Changes the times of incidents to come.
    pub fn set_times(&mut self, change: impl FnOnce(&mut Times)) {
        let mut times = self.incidents.times();
        change(&mut times);
        self.incidents.set_times(times);
    }

    /// How many occurrences sources have reported at `level`.
    pub fn occurrences(&self, level: Level) -> u64 {
        let count = self.occurrences.get(level as usize);
        count.copied().unwrap_or_default()
    }

    /// How many records readers have missed, summed up over the readers.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// This boot's id.
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// Puts a source's `event` on the bus. Its `seq` is 0 afterwards when it went into a sum.
    pub fn report(&mut self, event: &mut Event, now: Now) -> Outcome {
        if let Some(count) = self.occurrences.get_mut(usize::from(event.level)) {
            *count = count.wrapping_add(event.count.into());
        }
        event.seq = self.ring.next_seq();
        let mut outcome = Outcome {
            opened: None,
            wake: event.level >= Level::Imminent as u8 || !self.paced,
        };
        if event.level == Level::Imminent as u8 {
            match self.incidents.note(event, now.mono) {
                Some(Verdict::Opened(id)) => outcome.opened = Some(id),
                Some(Verdict::Joined(id)) if !self.admit(event.source, now.mono) => {
                    event.seq = 0;
                    outcome.wake = self.sum_up(event, id, now) && !self.paced;
                    return outcome;
                }
                Some(Verdict::Joined(_)) | None => {}
            }
        }
        self.put(event);
        outcome
    }

    fn admit(&mut self, source: u16, now: u64) -> bool {
        let storm = self.storms.get_mut(usize::from(source));
        storm.is_none_or(|storm| storm.admit(now))
    }

    /// Adds `event` to its source's sum; whether the bus thread has to know.
    fn sum_up(&mut self, event: &Event, incident: u64, now: Now) -> bool {
        let Some(storm) = self.storms.get_mut(usize::from(event.source)) else {
            return false;
        };
        let full = storm.add(incident, event.count, now.mono);
        let bit = source_bit(event.source);
        let begins = self.summing & bit == 0;
        self.summing |= bit;
        if let Some(sum) = full {
            self.put_sum(event.source, sum, now);
        }
        begins || full.is_some()
    }

    /// Puts a record on the ring, and tells its number.
    fn put(&mut self, event: &mut Event) {
        event.seq = self.ring.next_seq();
        self.ring.push(event);
        if let Some(sources) = self.fresh.get_mut(usize::from(event.level)) {
            *sources |= source_bit(event.source);
        }
    }

    /// Puts a record of the bus's own on the ring.
    fn put_own(&mut self, kind: u16, payload: &Bus, now: Now, change: impl FnOnce(&mut Event)) {
        let mut event = Event {
            size: abi::EVENT_SIZE as u32,
            version: abi::ABI_VERSION,
            level: Level::Watch as u8,
            mono_ns: now.mono,
            real_ns: now.real,
            boot_id: self.boot_id,
            source: source::BUS,
            kind,
            count: 1,
            cpu: -1,
            node: -1,
            incident: payload.incident,
            ..Event::ZERO
        };
        // A `Bus` is smaller than the payload.
        let _ = event.set_payload(&payload.to_bytes());
        change(&mut event);
        self.put(&mut event);
    }

    fn put_sum(&mut self, source: u16, sum: Sum, now: Now) {
        let payload = match self.incidents.get(sum.incident) {
            Some(incident) => about(incident, now),
            None => Bus {
                incident: sum.incident,
                source: source.into(),
                ..Bus::ZERO
            },
        };
        self.put_own(bus::STORM, &payload, now, |event| {
            event.count = sum.count;
            event.flags = flag::SUMMARY;
        });
    }

    /// Does one thing that is due at `now`.
    ///
    /// When nothing is, tells what is new and when to come back, in one: a report between the two
    /// would take the caller for one that comes back soon, and not wake it.
    pub fn tick(&mut self, now: Now) -> Tick {
        if let Some(incident) = self.incidents.expire(now.mono) {
            self.put_own(bus::EXPIRED, &about(&incident, now), now, |_| {});
            return Tick::Expired(incident);
        }
        let next = self.next_sum();
        match next {
            Some((due, source)) if due <= now.mono => {
                self.summing &= !source_bit(source);
                let storm = self.storms.get_mut(usize::from(source));
                if let Some(sum) = storm.and_then(Storm::take) {
                    self.put_sum(source, sum, now);
                }
                Tick::Summed
            }
            next => {
                let fresh = take(&mut self.fresh);
                // After news the thread comes back in any case; only urgent ones wake it before.
                self.paced = fresh.iter().any(|sources| *sources != 0);
                let pace = self.paced.then(|| now.mono.saturating_add(PACE_NS));
                let sum = next.map(|(due, _)| due);
                let due = [pace, sum, self.incidents.next_deadline()];
                Tick::Idle {
                    due: due.into_iter().flatten().min(),
                    fresh,
                }
            }
        }
    }

    /// The next sum that is due, and its source.
    fn next_sum(&self) -> Option<(u64, u16)> {
        if self.summing == 0 {
            return None;
        }
        let sums = (0u16..).zip(self.storms.iter());
        sums.filter_map(|(source, storm)| Some((storm.due()?, source)))
            .min()
    }

    /// Acknowledges an incident on behalf of process `acker`; `ack` has passed [`ack_is_valid`].
    pub fn ack(&mut self, ack: &Ack, acker: u32, now: Now) -> Result<Incident, Refusal> {
        let incident = self
            .incidents
            .ack(ack.incident, ack.snapshot_id, ack.result, now.mono)?;
        let payload = Bus {
            acker,
            ..about(&incident, now)
        };
        self.put_own(bus::ACKED, &payload, now, |_| {});
        Ok(incident)
    }

    /// Puts what a previous boot left behind on the ring.
    pub fn restore(&mut self, words: &LastWords) {
        let mut event = words.event;
        event.flags |= flag::PREVIOUS_BOOT;
        event.incident = words.incident;
        self.put(&mut event);
        let payload = Bus {
            incident: words.incident,
            snapshot_id: words.snapshot_id,
            source: event.source.into(),
            ..Bus::ZERO
        };
        let then = Now {
            mono: event.mono_ns,
            real: event.real_ns,
        };
        self.put_own(bus::LAST_WORDS, &payload, then, |own| {
            own.flags = flag::PREVIOUS_BOOT;
            own.boot_id = event.boot_id;
        });
    }

    /// Accounts for what `cursor` has missed.
    fn settle(&mut self, cursor: &mut Cursor<S>) {
        self.lost = self.lost.wrapping_add(self.ring.settle(cursor));
    }

    /// Finds what `cursor` reads next, dropped opening events of unacknowledged incidents first.
    pub fn find(&mut self, cursor: &mut Cursor<S>, out: &mut Event) -> Found {
        self.settle(cursor);
        if let Some(event) = self.replayable(cursor) {
            *out = *event;
            out.flags |= flag::REPLAYED;
            out.lost = cursor.lost();
            return Found::Record;
        }
        if let Some((_, to)) = cursor.replay() {
            cursor.replayed_to(to);
        }
        self.ring.find(cursor, out)
    }

    fn replayable(&self, cursor: &Cursor<S>) -> Option<&Event> {
        let (from, to) = cursor.replay()?;
        self.incidents.unacked_event(from, to, &cursor.filter())
    }

    /// What `cursor` can read without waiting.
    pub fn ready(&mut self, cursor: &mut Cursor<S>) -> Ready {
        self.settle(cursor);
        // Only an event of level IMMINENT opens an incident.
        let replay = self.replayable(cursor).is_some();
        Ready {
            any: replay || self.ring.unread(cursor, Level::Watch) != 0,
            urgent: replay || self.ring.unread(cursor, Level::Imminent) != 0,
        }
    }

    /// Lets `cursor` see other records from here on.
    pub fn set_filter(&mut self, cursor: &mut Cursor<S>, filter: Filter) {
        self.settle(cursor);
        cursor.set_filter(filter);
    }
}

/// Checks what user space says about an incident: no stray bits, a snapshot or a reason.
pub fn ack_is_valid(ack: &Ack) -> bool {
    let result = match ack.result {
        0 => ack.snapshot_id != 0,
        result => (MIN_RESULT..0).contains(&result),
    };
    ack.pad == 0 && result
}

/// The payload of a bus record about `incident`.
fn about(incident: &Incident, now: Now) -> Bus {
    Bus {
        incident: incident.incident,
        snapshot_id: incident.snapshot_id,
        age_ns: now.mono.saturating_sub(incident.opened_ns),
        result: incident.result,
        joined: u32::try_from(incident.joined).unwrap_or(u32::MAX),
        source: incident.source,
        acker: 0,
    }
}

fn source_bit(source: u16) -> u64 {
    1u64.checked_shl(source.into()).unwrap_or(0)
}
