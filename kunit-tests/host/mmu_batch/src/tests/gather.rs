// SPDX-License-Identifier: GPL-2.0

//! Deferred unmaps against a plain list of them.

use crate::combine::Ticket;
use crate::gather::{Cause, Due, Gather, Kept, Limits, Next, Unmap, CAUSES};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

const US: u64 = 1_000;

type Ring = Gather<Vec<Option<Kept<u64>>>>;

fn ring(places: usize) -> Ring {
    Gather::new((0..places).map(|_| None).collect()).unwrap()
}

const LIMITS: Limits = Limits {
    window_ns: 100 * US,
    unmaps: 1000,
    pages: 1000,
};

fn unmap(ticket: u64, pages: u64, held: u64) -> Unmap<u64> {
    Unmap {
        pages,
        ticket: Ticket::from_raw(ticket),
        held,
    }
}

#[test]
fn a_window_for_the_first_one() {
    let mut ring = ring(200);
    assert_eq!(ring.due(0), Due::Never);
    let first = ring.push(unmap(1, 1, 0), 7, &LIMITS);
    assert_eq!(first.unwrap(), Next::WakeAt(7 + 100 * US));
    for n in 1..100 {
        assert_eq!(
            ring.push(unmap(1, 1, n), 8 + n, &LIMITS).unwrap(),
            Next::Kept
        );
    }
    assert_eq!(ring.due(6 + 100 * US), Due::At(7 + 100 * US));
    assert_eq!(ring.due(7 + 100 * US), Due::Now(Ticket::from_raw(1)));
    assert!(ring.pop(Ticket::FINISHED).is_none());
    // One flush for all of them.
    for n in 0..100 {
        assert_eq!(ring.pop(Ticket::from_raw(1)).unwrap().held, n);
    }
    assert!(ring.pop(Ticket::from_raw(1)).is_none());
    assert_eq!(
        (ring.due(u64::MAX), ring.deferred()),
        (Due::Never, (100, 100))
    );
}

#[test]
fn memory_is_short() {
    let mut ring = ring(200);
    assert!(!ring.squeeze());
    ring.push(unmap(1, 1, 0), 0, &LIMITS).unwrap();
    assert_eq!(
        (ring.due(1), ring.cause()),
        (Due::At(100 * US), Cause::Time)
    );
    assert!(ring.squeeze());
    let now = Due::Now(Ticket::from_raw(1));
    assert_eq!((ring.due(1), ring.cause()), (now, Cause::Shrinker));
    // Once it is drained, or gone, the next one has a window again.
    ring.count(Cause::Shrinker);
    assert_eq!(
        (ring.due(1), ring.cause()),
        (Due::At(100 * US), Cause::Time)
    );
    assert!(ring.squeeze());
    ring.pop(Ticket::from_raw(1)).unwrap();
    ring.push(unmap(2, 1, 0), 5, &LIMITS).unwrap();
    assert_eq!(ring.due(6), Due::At(5 + 100 * US));
}

#[test]
fn what_needs_no_flush_does_not_hide_what_does() {
    let mut ring = ring(4);
    for ticket in [5, 0] {
        let _ = ring.push(unmap(ticket, 1, ticket), 0, &LIMITS);
    }
    assert_eq!(ring.last_ticket(), Some(Ticket::from_raw(5)));
    assert_eq!(ring.due(100 * US), Due::Now(Ticket::from_raw(5)));
}

#[test]
fn the_next_one_has_a_window_of_its_own() {
    let mut ring = ring(8);
    for (ticket, now) in [(1, 0), (2, 60 * US)] {
        let _ = ring.push(unmap(ticket, 1, now), now, &LIMITS);
    }
    // Somebody else has flushed.
    assert_eq!(ring.pop(Ticket::from_raw(1)).unwrap().held, 0);
    assert!(ring.pop(Ticket::from_raw(1)).is_none());
    assert_eq!(ring.due(100 * US), Due::At(160 * US));
    assert_eq!(ring.due(160 * US), Due::Now(Ticket::from_raw(2)));
}

#[test]
fn size_and_no_window_at_all() {
    let mut ring = ring(4);
    let big = unmap(1, 1000, 0);
    assert_eq!(
        ring.push(big, 0, &LIMITS).unwrap(),
        Next::Drain(Cause::Size)
    );
    ring.pop(Ticket::from_raw(1));
    let at_once = Limits {
        window_ns: 0,
        ..LIMITS
    };
    assert_eq!(
        ring.push(unmap(2, 1, 1), 0, &at_once).unwrap(),
        Next::Drain(Cause::Time)
    );
    assert_eq!(ring.due(0), Due::Now(Ticket::from_raw(2)));
    // Who comes while that one is flushed may be too late for its flush.
    assert_eq!(
        ring.push(unmap(3, 1, 2), 0, &at_once).unwrap(),
        Next::Drain(Cause::Time)
    );
    let three = Limits {
        unmaps: 3,
        ..LIMITS
    };
    assert_eq!(
        ring.push(unmap(3, 1, 3), 0, &three).unwrap(),
        Next::Drain(Cause::Size)
    );
}

#[test]
fn the_last_place() {
    let mut ring = ring(2);
    let next = |ring: &mut Ring, n| {
        ring.push(unmap(1, 1, n), 0, &LIMITS)
            .map_err(|back| back.held)
    };
    assert_eq!(next(&mut ring, 0), Ok(Next::WakeAt(100 * US)));
    assert_eq!(next(&mut ring, 1), Ok(Next::Drain(Cause::Size)));
    assert_eq!(next(&mut ring, 2), Err(2));
    assert_eq!(ring.pop(Ticket::from_raw(1)).unwrap().held, 0);
    assert_eq!(next(&mut ring, 3), Ok(Next::Drain(Cause::Size)));
    // The third one came back: its caller waits, and releases it.
    assert_eq!(ring.deferred(), (4, 4));
    assert!(Gather::<Vec<Option<Kept<u64>>>>::new(Vec::new()).is_none());
}

#[test]
fn drains_are_counted() {
    let mut ring = ring(1);
    for cause in [Cause::Submit, Cause::Time, Cause::Time, Cause::Release] {
        ring.count(cause);
    }
    assert_eq!(ring.drains().iter().sum::<u64>(), 4);
    assert_eq!(ring.drains()[Cause::Time as usize], 2);
    assert_eq!(Cause::Release as usize, CAUSES - 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push { pages: u64, wait: u64 },
    Flush,
    Pop,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..40, 0u64..5).prop_map(|(pages, wait)| Step::Push { pages, wait }),
        1 => Just(Step::Flush),
        4 => Just(Step::Pop),
        1 => (0u64..90 * US).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Nothing is released before its flush, lost, released twice, or kept for longer than its
    /// window without somebody being told to look.
    #[test]
    fn like_a_list(
        steps in prop::collection::vec(step(), 1..200),
        places in 1usize..20,
        unmaps in 1usize..25,
        pages in 1u64..200,
    ) {
        let limits = Limits { window_ns: 100 * US, unmaps, pages };
        let mut ring = ring(places);
        let mut list = VecDeque::new();
        let (mut now, mut flushed, mut id) = (0, 0, 0);
        // When somebody was told to look, at the latest.
        let mut asked = None;
        for step in steps {
            match step {
                Step::Push { pages, wait } => {
                    now += wait;
                    let ticket = flushed + 1;
                    id += 1;
                    match ring.push(unmap(ticket, pages, id), now, &limits) {
                        Ok(next) => {
                            list.push_back((id, ticket, pages, now + limits.window_ns));
                            let kept: u64 = list.iter().map(|(_, _, pages, _)| pages).sum();
                            let much = kept >= limits.pages || list.len() >= unmaps.min(places);
                            prop_assert_eq!(next == Next::Drain(Cause::Size), much);
                            match next {
                                Next::WakeAt(at) => asked = Some(at),
                                Next::Drain(_) => asked = Some(now),
                                Next::Kept => prop_assert!(list.len() > 1),
                            }
                        }
                        Err(back) => {
                            prop_assert_eq!(list.len(), places);
                            prop_assert_eq!(back.held, id);
                        }
                    }
                }
                Step::Flush => flushed += 1,
                Step::Wait(ns) => now += ns,
                Step::Pop => {
                    let ready = list.front().is_some_and(|(_, ticket, ..)| *ticket <= flushed);
                    let popped = ring.pop(Ticket::from_raw(flushed));
                    prop_assert_eq!(popped.is_some(), ready);
                    if let Some(popped) = popped {
                        let (id, _, pages, _) = list.pop_front().unwrap();
                        prop_assert_eq!((popped.held, popped.pages), (id, pages));
                    }
                }
            }
            prop_assert_eq!(ring.len(), list.len());
            prop_assert_eq!(ring.is_empty(), list.is_empty());
            prop_assert_eq!(ring.pages(), list.iter().map(|(_, _, pages, _)| pages).sum::<u64>());
            let last = list.iter().map(|(_, ticket, ..)| *ticket).max();
            prop_assert_eq!(ring.last_ticket(), last.map(Ticket::from_raw));
            match (ring.due(now), list.front()) {
                (Due::Never, None) => asked = None,
                (Due::At(at), Some((.., deadline))) => {
                    prop_assert!(at == *deadline && now < at);
                    // Who looks in time, or is asked to, is told to come back.
                    prop_assert!(asked.is_some_and(|asked| asked <= at));
                }
                (Due::Now(ticket), Some((.., deadline))) => {
                    prop_assert!(now >= *deadline);
                    prop_assert_eq!(Some(ticket), last.map(Ticket::from_raw));
                }
                (due, first) => prop_assert!(false, "{due:?} {first:?}"),
            }
        }
    }
}
