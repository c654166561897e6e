// SPDX-License-Identifier: GPL-2.0

//! Incidents and storms: rules one by one, then everything at random against a model.

mod common;

use common::*;
use nullhz_fault_host::{
    abi::{bus, flag, state, Ack, Bus, Event, Level},
    hub::{ack_is_valid, Fresh, Hub, Tick, PACE_NS},
    incident::{Refusal, Times, RETRY_NS, TABLE},
    ring::Filter,
    storm,
};
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, HashSet};

const COOLDOWN: u64 = Times::DEFAULT.cooldown;
const DEADLINE: u64 = Times::DEFAULT.deadline;

fn ack(incident: u64, result: i32) -> Ack {
    Ack {
        incident,
        snapshot_id: if result == 0 {
            incident.saturating_add(1_000)
        } else {
            0
        },
        result,
        pad: 0,
    }
}

fn payload(event: &Event) -> Bus {
    Bus::from_prefix(event.payload()).unwrap()
}

/// When a hub that has nothing to do wants to be called again, and what is new.
fn idle(hub: &mut Hub<Heap>, now: u64) -> (Option<u64>, Fresh) {
    match hub.tick(at(now)) {
        Tick::Idle { due, fresh } => (due, fresh),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_imminent_event_opens_and_the_next_joins() {
    let mut hub = hub(4);
    let (first, outcome) = send(&mut hub, 1, Level::Imminent, SECOND);
    assert_eq!((first.incident, outcome.opened), (1, Some(1)));
    assert_eq!(first.flags, flag::OPENED);
    let (second, outcome) = send(&mut hub, 1, Level::Imminent, SECOND + 1);
    assert_eq!((second.incident, outcome.opened), (1, None));
    assert_eq!(second.flags, 0);
    let incident = hub.incidents().get(1).unwrap();
    assert_eq!((incident.state, incident.joined), (state::OPEN, 2));
    assert_eq!(incident.first_seq, first.seq);
    assert_eq!(incident.deadline_ns, SECOND + DEADLINE);
    assert_eq!(hub.incidents().unacked(), 1);
}

#[test]
fn other_levels_open_nothing() {
    let mut hub = hub(4);
    for level in [Level::Watch, Level::Degrading, Level::Fatal] {
        let (event, outcome) = send(&mut hub, 1, level, 1);
        assert_eq!((event.incident, outcome.opened), (0, None));
    }
    assert_eq!(hub.incidents().last(), 0);
}

#[test]
fn sources_have_incidents_of_their_own() {
    let mut hub = hub(4);
    assert_eq!(send(&mut hub, 1, Level::Imminent, 1).1.opened, Some(1));
    assert_eq!(send(&mut hub, 2, Level::Imminent, 1).1.opened, Some(2));
}

#[test]
fn a_cooldown_runs_from_the_opening() {
    let mut hub = hub(4);
    send(&mut hub, 1, Level::Imminent, SECOND);
    hub.ack(&ack(1, 0), 42, at(2 * SECOND)).unwrap();
    assert_eq!(hub.incidents().last_snapshot(), 1_001);
    let (event, outcome) = send(&mut hub, 1, Level::Imminent, SECOND + COOLDOWN - 1);
    assert_eq!((event.incident, outcome.opened), (1, None));
    let (_, outcome) = send(&mut hub, 1, Level::Imminent, SECOND + COOLDOWN);
    assert_eq!(outcome.opened, Some(2));
}

#[test]
fn an_unacknowledged_incident_outlasts_its_cooldown() {
    let mut hub = hub(4);
    send(&mut hub, 1, Level::Imminent, SECOND);
    assert!(matches!(hub.tick(at(SECOND + DEADLINE)), Tick::Expired(_)));
    let (event, outcome) = send(&mut hub, 1, Level::Imminent, SECOND + 2 * COOLDOWN);
    assert_eq!((event.incident, outcome.opened), (1, None));
}

#[test]
fn a_failed_snapshot_is_tried_again_sooner() {
    let mut hub = hub(4);
    send(&mut hub, 1, Level::Imminent, SECOND);
    let incident = hub.ack(&ack(1, -28), 42, at(SECOND + 1)).unwrap();
    assert_eq!((incident.state, incident.result), (state::ACKED, -28));
    assert_eq!(hub.incidents().last_snapshot(), 0);
    let joins = send(&mut hub, 1, Level::Imminent, SECOND + RETRY_NS - 1);
    assert_eq!((joins.0.incident, joins.1.opened), (1, None));
    let opens = send(&mut hub, 1, Level::Imminent, SECOND + RETRY_NS);
    assert_eq!(opens.1.opened, Some(2));
}

#[test]
fn failures_one_after_the_other_make_few_incidents() {
    const WORST: u64 = 24 * 3_600 * SECOND;
    let mut hub = hub(4);
    let mut opened = vec![];
    // A hundred events a second, and no place for a snapshot.
    for now in (0..600 * SECOND).step_by(10_000_000) {
        if let Some(id) = send(&mut hub, 1, Level::Imminent, now).1.opened {
            opened.push(now);
            hub.ack(&ack(id, -28), 42, at(now)).unwrap();
        }
    }
    let gaps: Vec<_> = opened
        .windows(2)
        .map(|two| (two[1] - two[0]) / SECOND)
        .collect();
    assert_eq!(gaps[..7], [1, 2, 4, 8, 16, 32, 60]);
    assert!(gaps[7..].iter().all(|gap| *gap == 60));

    // Another source has failures of its own, and no count of them overflows.
    hub.set_times(|times| times.cooldown = WORST);
    let mut now = 600 * SECOND;
    for _ in 0..70 {
        let id = send(&mut hub, 2, Level::Imminent, now).1.opened.unwrap();
        hub.ack(&ack(id, -5), 42, at(now)).unwrap();
        now += WORST;
    }
    // A success is followed by the whole cooldown, and the next failure by a second again.
    let id = send(&mut hub, 2, Level::Imminent, now).1.opened.unwrap();
    hub.ack(&ack(id, 0), 42, at(now)).unwrap();
    assert_eq!(
        send(&mut hub, 2, Level::Imminent, now + WORST - 1).1.opened,
        None
    );
    now += WORST;
    let id = send(&mut hub, 2, Level::Imminent, now).1.opened.unwrap();
    hub.ack(&ack(id, -5), 42, at(now)).unwrap();
    assert!(send(&mut hub, 2, Level::Imminent, now + RETRY_NS)
        .1
        .opened
        .is_some());
}

#[test]
fn a_deadline_expires_once_and_may_be_acknowledged_late() {
    let mut hub = hub(4);
    let mut reader = opened(&hub);
    send(&mut hub, 1, Level::Imminent, SECOND);
    let deadline = SECOND + DEADLINE;
    assert_eq!(idle(&mut hub, deadline - 1).0, Some(deadline));
    assert!(matches!(hub.tick(at(deadline)), Tick::Expired(i) if i.incident == 1));
    assert_eq!(idle(&mut hub, deadline).0, Some(deadline + PACE_NS));
    assert_eq!(idle(&mut hub, deadline).0, None);
    assert_eq!(hub.incidents().unacked(), 1);
    // Nor does an answer that is refused make an acknowledger.
    assert!(hub.ack(&ack(2, 0), 42, at(deadline)).is_err());
    assert!(!hub.incidents().acknowledged());
    let incident = hub.ack(&ack(1, 0), 42, at(deadline + SECOND)).unwrap();
    assert_eq!((incident.state, incident.late), (state::ACKED, 1));
    assert_eq!(hub.incidents().unacked(), 0);
    assert!(hub.incidents().acknowledged());

    let events = drain(&mut hub, &mut reader);
    let kinds: Vec<_> = events.iter().map(|e| (e.source, e.kind)).collect();
    assert_eq!(kinds, [(1, 7), (0, bus::EXPIRED), (0, bus::ACKED)]);
    assert_eq!(payload(&events[1]).age_ns, DEADLINE);
    let acked = payload(&events[2]);
    assert_eq!((acked.incident, acked.snapshot_id), (1, 1_001));
    assert_eq!((acked.acker, acked.source, acked.joined), (42, 1, 1));
    assert_eq!(acked.age_ns, DEADLINE + SECOND);
    assert!(events[1..].iter().all(|e| e.level == Level::Watch as u8));
}

#[test]
fn late_is_late_before_anybody_calls_it_expired() {
    let mut hub = hub(4);
    send(&mut hub, 1, Level::Imminent, SECOND);
    send(&mut hub, 2, Level::Imminent, SECOND);
    let deadline = SECOND + DEADLINE;
    assert_eq!(hub.ack(&ack(1, 0), 1, at(deadline - 1)).unwrap().late, 0);
    assert_eq!(hub.ack(&ack(2, 0), 1, at(deadline)).unwrap().late, 1);
}

#[test]
fn acknowledgements_that_make_no_sense_are_refused() {
    let mut hub = hub(4);
    send(&mut hub, 1, Level::Imminent, SECOND);
    hub.ack(&ack(1, 0), 1, at(SECOND)).unwrap();
    assert_eq!(hub.ack(&ack(1, 0), 1, at(SECOND)), Err(Refusal::Already));
    for id in [0, 2, u64::MAX] {
        assert_eq!(hub.ack(&ack(id, 0), 1, at(SECOND)), Err(Refusal::Unknown));
    }
    assert!(ack_is_valid(&ack(1, 0)));
    assert!(ack_is_valid(&ack(1, -1)));
    assert!(ack_is_valid(&ack(1, -4095)));
    for result in [1, i32::MAX, -4096, i32::MIN] {
        assert!(!ack_is_valid(&ack(1, result)));
    }
    let no_snapshot = Ack {
        snapshot_id: 0,
        ..ack(1, 0)
    };
    let stray = Ack {
        pad: 1,
        ..ack(1, 0)
    };
    assert!(!ack_is_valid(&no_snapshot) && !ack_is_valid(&stray));
}

#[test]
fn a_new_reader_gets_what_the_ring_has_dropped() {
    let mut hub = hub(2);
    let (first, _) = send(&mut hub, 1, Level::Imminent, SECOND);
    let (second, _) = send(&mut hub, 2, Level::Imminent, SECOND);
    for _ in 0..8 {
        send(&mut hub, 1, Level::Watch, SECOND);
    }
    hub.ack(&ack(2, 0), 1, at(SECOND)).unwrap();

    let mut reader = opened(&hub);
    assert!(hub.ready(&mut reader).urgent);
    let events = drain(&mut hub, &mut reader);
    assert_eq!(events[0].seq, first.seq);
    assert_eq!(events[0].flags, flag::OPENED | flag::REPLAYED);
    assert_eq!(events.len(), 5);
    assert!(!events.iter().any(|e| e.seq == second.seq));
    assert!(events.iter().all(|e| e.lost == 0));
    assert!(!hub.ready(&mut reader).any);
    // Acknowledged, it has nothing to tell the next reader.
    hub.ack(&ack(1, 0), 1, at(SECOND)).unwrap();
    let mut reader = opened(&hub);
    assert!(!hub.ready(&mut reader).urgent);
    assert_eq!(drain(&mut hub, &mut reader).len(), 4);
}

#[test]
fn what_the_ring_still_has_is_not_replayed() {
    let mut hub = hub(2);
    let (first, _) = send(&mut hub, 1, Level::Imminent, SECOND);
    let mut reader = opened(&hub);
    let events = drain(&mut hub, &mut reader);
    assert_eq!(events, [first]);
}

#[test]
fn a_slow_reader_misses_no_open_incident() {
    let mut hub = hub(2);
    let mut reader = opened(&hub);
    send(&mut hub, 1, Level::Watch, SECOND);
    assert_eq!(drain(&mut hub, &mut reader).len(), 1);
    let (open, _) = send(&mut hub, 1, Level::Imminent, SECOND);
    for _ in 0..6 {
        send(&mut hub, 1, Level::Watch, SECOND);
    }
    let events = drain(&mut hub, &mut reader);
    let seqs: Vec<_> = events.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [open.seq, 5, 6, 7, 8]);
    // The record itself and two others were overwritten; it comes again on top of that.
    assert_eq!(events[0].lost, 3);
    assert_ne!(events[0].flags & flag::REPLAYED, 0);
    assert!(events[1..].iter().all(|e| e.lost == 0));
}

#[test]
fn a_filter_holds_for_replays() {
    let mut hub = hub(1);
    send(&mut hub, 1, Level::Imminent, SECOND);
    for _ in 0..4 {
        send(&mut hub, 2, Level::Watch, SECOND);
    }
    let mut reader = opened(&hub);
    hub.set_filter(&mut reader, Filter::new(Level::Imminent, 1 << 2));
    assert!(!hub.ready(&mut reader).any);
    assert!(drain(&mut hub, &mut reader).is_empty());
}

#[test]
fn whoever_seeks_a_number_is_not_told_again() {
    let mut hub = hub(1);
    send(&mut hub, 1, Level::Imminent, SECOND);
    for _ in 0..4 {
        send(&mut hub, 2, Level::Watch, SECOND);
    }
    let mut reader = opened(&hub);
    while !hub.ring().seek_on(&mut reader, 2) {}
    let seqs: Vec<_> = drain(&mut hub, &mut reader).iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [4, 5]);
}

#[test]
fn a_storm_is_summed_up() {
    const STORM: u64 = 10_000;
    let mut hub = hub(8);
    let mut reader = opened(&hub);
    let mut wakes = 0;
    for n in 0..STORM {
        let (event, outcome) = send(&mut hub, 1, Level::Imminent, SECOND + n);
        assert_eq!(event.seq == 0, n > u64::from(storm::ALLOWANCE));
        wakes += u64::from(outcome.wake);
    }
    // The opening, the allowance, and once for the sum.
    assert_eq!(wakes, u64::from(storm::ALLOWANCE) + 2);
    let begin = SECOND + 1 + u64::from(storm::ALLOWANCE);
    assert_eq!(idle(&mut hub, SECOND + STORM).1, [0, 0, 1 << 1, 0]);
    assert_eq!(
        idle(&mut hub, SECOND + STORM),
        (Some(begin + storm::SUM_NS), [0; 4])
    );
    assert_eq!(hub.tick(at(begin + storm::SUM_NS)), Tick::Summed);
    let events = drain(&mut hub, &mut reader);
    let sum = events.last().unwrap();
    assert_eq!((sum.source, sum.kind), (0, bus::STORM));
    assert_eq!((sum.flags, sum.incident), (flag::SUMMARY, 1));
    assert_eq!(u64::from(payload(sum).joined), STORM);
    let total: u64 = events.iter().map(|e| u64::from(e.count)).sum();
    assert_eq!(total, STORM);
    assert_eq!(hub.occurrences(Level::Imminent), STORM);
    assert_eq!(hub.incidents().last(), 1);
    // A second later there is a new allowance.
    assert_ne!(send(&mut hub, 1, Level::Imminent, 2 * SECOND + 1).0.seq, 0);
}

#[test]
fn only_urgent_news_break_the_pace() {
    let mut hub = hub(4);
    let take_fresh = |hub: &mut _| idle(hub, SECOND).1;
    let wakes = |hub: &mut _, level| send(hub, 1, level, SECOND).1.wake;
    assert!(wakes(&mut hub, Level::Watch));
    assert_eq!(take_fresh(&mut hub), [1 << 1, 0, 0, 0]);
    // The thread is about to look again by itself.
    assert!(!wakes(&mut hub, Level::Watch));
    assert!(!wakes(&mut hub, Level::Degrading));
    assert!(wakes(&mut hub, Level::Imminent));
    assert!(wakes(&mut hub, Level::Fatal));
    assert_eq!(take_fresh(&mut hub), [1 << 1; 4]);
    assert!(!wakes(&mut hub, Level::Watch));
    assert_eq!(take_fresh(&mut hub), [1 << 1, 0, 0, 0]);
    // It has looked, found nothing and sleeps.
    assert_eq!(take_fresh(&mut hub), [0; 4]);
    assert!(wakes(&mut hub, Level::Watch));
}

#[test]
fn a_sum_that_begins_always_has_somebody_to_put_it_on_the_ring() {
    for before in [true, false] {
        let mut hub = hub(8);
        for _ in 0..=storm::ALLOWANCE {
            send(&mut hub, 1, Level::Imminent, SECOND);
        }
        let opening = hub.ack(&ack(1, 0), 1, at(SECOND)).map(|i| i.incident);
        assert_eq!(opening, Ok(1));
        // The thread tells all that, and comes back once more.
        let now = SECOND + PACE_NS;
        assert_eq!(idle(&mut hub, SECOND).0, Some(now));
        let mut wake = false;
        let mut begin = |hub: &mut _| {
            let (event, outcome) = send(hub, 1, Level::Imminent, now);
            assert_eq!(event.seq, 0);
            wake = outcome.wake;
        };
        if before {
            begin(&mut hub);
        }
        let (due, fresh) = idle(&mut hub, now);
        assert_eq!(fresh, [0; 4]);
        if !before {
            begin(&mut hub);
        }
        assert!(
            wake || due.is_some_and(|due| due <= now + storm::SUM_NS),
            "before: {before}"
        );
    }
}

#[test]
fn a_sum_never_overflows_a_record() {
    let mut hub = hub(8);
    let mut reader = opened(&hub);
    let mut sent = 0;
    for _ in 0..40 {
        let mut event = report(Level::Imminent).event(1, BOOT, at(SECOND)).unwrap();
        event.count = u32::MAX - 7;
        event.flags = flag::SUMMARY;
        sent += u64::from(event.count);
        hub.report(&mut event, at(SECOND));
    }
    while hub.tick(at(2 * SECOND)) == Tick::Summed {}
    let events = drain(&mut hub, &mut reader);
    assert_eq!(events.iter().map(|e| u64::from(e.count)).sum::<u64>(), sent);
}

#[test]
fn an_expired_incident_is_not_forgotten_before_its_acknowledgement() {
    let mut hub = hub(1);
    let mut now = SECOND;
    send(&mut hub, 1, Level::Imminent, now);
    now += DEADLINE;
    assert!(matches!(hub.tick(at(now)), Tick::Expired(_)));
    for _ in 0..TABLE {
        now += COOLDOWN;
        let id = send(&mut hub, 2, Level::Imminent, now).1.opened.unwrap();
        hub.ack(&ack(id, 0), 1, at(now)).unwrap();
    }
    let acked = hub.ack(&ack(1, 0), 1, at(now)).unwrap();
    assert_eq!((acked.incident, acked.late), (1, 1));
}

#[test]
fn the_table_forgets_acknowledged_incidents_only() {
    let mut hub = hub(1);
    let mut now = SECOND;
    // One stays open while another source goes through many.
    send(&mut hub, 1, Level::Imminent, now);
    for _ in 0..3 * TABLE {
        now += COOLDOWN;
        let id = send(&mut hub, 2, Level::Imminent, now).1.opened.unwrap();
        hub.ack(&ack(id, 0), 1, at(now)).unwrap();
    }
    assert_eq!(hub.incidents().iter().count(), TABLE);
    assert!(hub.incidents().get(1).is_some());
    assert!(hub.incidents().get(2).is_none());
    let mut reader = opened(&hub);
    assert_eq!(read(&mut hub, &mut reader).unwrap().incident, 1);
    // Every source there can be has one open at once.
    now += COOLDOWN;
    for source in 1..64 {
        send(&mut hub, source, Level::Imminent, now);
    }
    assert_eq!(hub.incidents().unacked(), 63);
    let mut reader = opened(&hub);
    let seen: HashSet<_> = drain(&mut hub, &mut reader)
        .iter()
        .map(|e| e.source)
        .collect();
    assert!((1..64).all(|source| seen.contains(&source)));
}

#[derive(Clone, Debug)]
enum Op {
    Report(u16, Level, u32),
    Pass(u64),
    Tick,
    Ack(u64, i32),
    Drain,
}

fn op() -> impl Strategy<Value = Op> {
    let level = prop_oneof![5 => Just(Level::Imminent), 1 => Just(Level::Watch)];
    let pass = prop_oneof![
        6 => 0..30 * MS,
        3 => 0..2 * SECOND,
        1 => 0..2 * COOLDOWN,
    ];
    prop_oneof![
        12 => (1u16..4, level, 1u32..5).prop_map(|(s, l, c)| Op::Report(s, l, c)),
        6 => pass.prop_map(Op::Pass),
        3 => Just(Op::Tick),
        2 => (0u64..12, prop_oneof![Just(0), Just(-5)]).prop_map(|(id, r)| Op::Ack(id, r)),
        1 => Just(Op::Drain),
    ]
}

/// What the model knows of an incident.
struct Known {
    source: u16,
    opened: u64,
    acked: Option<i32>,
    sent: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn everything_at_random(ops in vec(op(), 0..400)) {
        // So large that the reader misses nothing: counts have to add up exactly.
        let mut hub = hub(10);
        let mut reader = opened(&hub);
        let mut now = SECOND;
        let mut known: BTreeMap<u64, Known> = BTreeMap::new();
        let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
        let mut failures: BTreeMap<u16, u32> = BTreeMap::new();
        let mut events = Vec::new();

        for op in ops {
            match op {
                Op::Report(source, level, count) => {
                    let mut event = report(level).event(source, BOOT, at(now)).unwrap();
                    event.count = count;
                    let outcome = hub.report(&mut event, at(now));
                    if level != Level::Imminent {
                        prop_assert!(event.seq != 0 && event.incident == 0);
                        continue;
                    }
                    let last = newest.get(&source).map(|id| (id, &known[id]));
                    let joins = last.filter(|(_, last)| match last.acked {
                        None => true,
                        Some(_) => now - last.opened < match failures.get(&source) {
                            None | Some(0) => COOLDOWN,
                            Some(n) => COOLDOWN.min(SECOND << (n - 1)),
                        },
                    });
                    let id = joins.map_or(known.len() as u64 + 1, |(id, _)| *id);
                    prop_assert_eq!(outcome.opened, joins.is_none().then_some(id));
                    prop_assert_eq!(event.incident, id);
                    newest.insert(source, id);
                    let entry = known.entry(id).or_insert(Known {
                        source,
                        opened: now,
                        acked: None,
                        sent: 0,
                    });
                    entry.sent += u64::from(count);
                }
                Op::Pass(ns) => now += ns,
                Op::Tick => while !matches!(hub.tick(at(now)), Tick::Idle { .. }) {},
                Op::Ack(id, result) => {
                    let expected = match known.get_mut(&id) {
                        None => Err(Refusal::Unknown),
                        Some(known) if known.acked.is_some() => Err(Refusal::Already),
                        Some(known) => {
                            known.acked = Some(result);
                            let row = failures.entry(known.source).or_default();
                            *row = if result == 0 { 0 } else { *row + 1 };
                            Ok(u32::from(now >= known.opened + DEADLINE))
                        }
                    };
                    let got = hub.ack(&ack(id, result), 1, at(now)).map(|i| i.late);
                    prop_assert_eq!(got, expected);
                }
                Op::Drain => events.extend(drain(&mut hub, &mut reader)),
            }
            let open = known.values().filter(|known| known.acked.is_none());
            prop_assert_eq!(hub.incidents().unacked() as usize, open.count());
        }

        now += storm::SUM_NS + DEADLINE;
        while !matches!(hub.tick(at(now)), Tick::Idle { .. }) {}
        prop_assert_eq!(idle(&mut hub, now), (None, [0; 4]));
        events.extend(drain(&mut hub, &mut reader));
        prop_assert!(events.iter().all(|e| e.lost == 0));

        for (id, known) in &known {
            let of = events.iter().filter(|e| e.incident == *id);
            let told: u64 = of
                .clone()
                .filter(|e| e.source == known.source || e.kind == bus::STORM)
                .map(|e| u64::from(e.count))
                .sum();
            prop_assert_eq!(told, known.sent);
            prop_assert_eq!(hub.incidents().get(*id).unwrap().joined, known.sent);
            let opening = of.clone().filter(|e| e.flags & flag::OPENED != 0);
            prop_assert_eq!(opening.count(), 1);
            let expired = of.clone().filter(|e| e.source == 0 && e.kind == bus::EXPIRED);
            prop_assert!(expired.count() <= 1);
            let acked = of.filter(|e| e.source == 0 && e.kind == bus::ACKED).count();
            prop_assert_eq!(acked, usize::from(known.acked.is_some()));
        }
        // Whoever comes now hears of all that is open, once.
        let unacked: Vec<u64> = known.iter().filter(|(_, k)| k.acked.is_none()).map(|(id, _)| *id).collect();
        let mut late = opened(&hub);
        let mut told: Vec<u64> = drain(&mut hub, &mut late)
            .iter()
            .filter(|e| e.flags & flag::OPENED != 0 && unacked.contains(&e.incident))
            .map(|e| e.incident)
            .collect();
        told.sort_unstable();
        prop_assert_eq!(told, unacked);
    }
}
