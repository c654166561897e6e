// SPDX-License-Identifier: GPL-2.0

//! The slots with real threads.

use crate::atomic::AtomicU64;
use crate::slots::{identity, Missed, Ring, Slot};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn ring<const W: usize>(slots: usize) -> Ring<Vec<Slot<W>>, W> {
    Ring::new((0..slots).map(|_| Slot::new()).collect()).expect("enough slots")
}

#[test]
fn a_ring_needs_two_slots() {
    for slots in [0, 1] {
        let slots: Vec<Slot<1>> = (0..slots).map(|_| Slot::new()).collect();
        assert!(Ring::new(slots).is_none());
    }
}

#[test]
fn first_in_first_out_until_full() {
    let ring = ring::<2>(3);
    for round in 0..10 {
        for n in 0..3 {
            assert!(ring.push(&[round, n]));
        }
        assert!(!ring.push(&[99, 99]));
        for n in 0..3 {
            assert_eq!(ring.pop(), Some([round, n]));
        }
        assert_eq!(ring.pop(), None);
    }
}

#[test]
fn nothing_is_lost_doubled_or_torn() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 50_000;

    let ring = ring::<4>(64);
    let running = AtomicBool::new(true);
    let (stored, got) = thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let ring = &ring;
                scope.spawn(move || {
                    (0..EACH)
                        .map(|n| producer * EACH + n + 1)
                        .filter(|id| ring.push(&[*id, !*id, *id * 3, *id ^ 0xff]))
                        .count()
                })
            })
            .collect();
        let consumer = scope.spawn(|| {
            let mut seen = HashSet::new();
            let mut last = [0; PRODUCERS as usize];
            loop {
                let done = !running.load(Ordering::SeqCst);
                while let Some([a, b, c, d]) = ring.pop() {
                    assert_eq!([b, c, d], [!a, a * 3, a ^ 0xff], "torn");
                    assert!(seen.insert(a), "twice");
                    let producer = ((a - 1) / EACH) as usize;
                    assert!(last[producer] < a, "out of order");
                    last[producer] = a;
                }
                if done {
                    return seen.len();
                }
                thread::yield_now();
            }
        });
        let stored: usize = producers.into_iter().map(|p| p.join().unwrap()).sum();
        running.store(false, Ordering::SeqCst);
        (stored, consumer.join().unwrap())
    });
    assert_eq!(stored, got);
    assert!(stored > 0);
}

#[test]
fn the_missed_are_known_again_as_often_as_they_were_missed() {
    let places: Vec<_> = (0..64).map(|_| AtomicU64::new(0)).collect();
    let missed = Missed::new(places);
    let one = identity(&[1, 2, 3]);
    let two = identity(&[1, 2, 4]);
    assert_ne!(one, two);
    assert!(!missed.take(one));
    assert!(missed.insert(one, 0));
    assert!(missed.insert(one, 0));
    assert!(missed.insert(two, 0));
    assert!(missed.take(one));
    assert!(missed.take(two));
    assert!(missed.take(one));
    assert!(!missed.take(one));
    assert!(!missed.take(two));
}

#[test]
fn a_full_set_says_so() {
    let missed = Missed::new((0..32).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let inserted = (0..1000)
        .filter(|n| missed.insert(identity(&[*n]), 0))
        .count();
    assert!((16..=32).contains(&inserted));
    let taken = (0..1000).filter(|n| missed.take(identity(&[*n]))).count();
    assert_eq!(inserted, taken);
}

#[test]
fn identities_are_never_zero_and_rarely_equal() {
    let all: HashSet<_> = (0..100_000u64).map(|n| identity(&[n, 0, 7])).collect();
    assert!(!all.contains(&0));
    assert_eq!(all.len(), 100_000);
}

#[test]
fn what_nobody_takes_makes_room_after_a_while() {
    let missed = Missed::new((0..16).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    // A time stamp counts 2^30 ns; a place is kept for 64 of them.
    let day = 80_000 << 30;
    for n in 0..16 {
        assert!(missed.insert(identity(&[n]), day));
    }
    let late = identity(&[99]);
    assert!(!missed.insert(late, day + (64 << 30) - 1));
    assert!(missed.insert(late, day + (64 << 30)));
    assert!(missed.take(late));
    assert_eq!((0..16).filter(|n| missed.take(identity(&[*n]))).count(), 15);
}
