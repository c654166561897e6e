// SPDX-License-Identifier: GPL-2.0

//! Events are counted once, and waited for, whatever intervals they hit and however threads take
//! turns.

use proptest::prelude::*;

#[path = "../../../../drivers/mmu_batch/passes.rs"]
mod passes;

use passes::Passes;

const PAGE: u64 = 4096;

/// An event of a thread: the first of 16 intervals that it hits, and how many.
type Event = (u64, u64);

/// One thread's events, each as the steps that it takes, with the range and the interval.
fn steps(events: &[Event]) -> Vec<(u64, u64, u64)> {
    let mut steps = Vec::new();
    for &(first, count) in events {
        let (start, end) = (first * PAGE, (first + count) * PAGE);
        steps.extend((first..first + count).map(|at| (start, end, at * PAGE)));
    }
    steps
}

fn event() -> impl Strategy<Value = Event> {
    (0u64..16).prop_flat_map(|first| (Just(first), 1..=16 - first))
}

/// A thread in the middle of its events: the steps of each that are left, and what is waited for.
struct Running {
    thread: i32,
    events: Vec<Vec<(u64, u64, u64)>>,
    /// What the second passes of the event under way wait for.
    promised: u64,
    /// What those of earlier ones have waited for.
    finished: u64,
}

proptest! {
    /// An interval has no second pass only if an earlier one of the same event has, which waits at
    /// least as long, or if there is nothing to wait for any more.
    #[test]
    fn somebody_waits_for_each_ticket(
        threads in prop::collection::vec(prop::collection::vec(event(), 1..12), 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0u64..2), 4096),
    ) {
        let mut running: Vec<_> = threads
            .iter()
            .zip(1..)
            .map(|(events, thread)| Running {
                thread,
                events: events.iter().map(|event| steps(&[*event])).collect(),
                promised: 0,
                finished: 0,
            })
            .collect();
        let mut passes = Passes::NONE;
        let mut generation = 1;
        for (next, closed) in order.iter().cycle() {
            if running.is_empty() {
                break;
            }
            let index = next.index(running.len());
            let one = &mut running[index];
            let (start, end, at) = one.events[0].remove(0);
            generation += closed;
            passes.begins(one.thread, start, end, at);
            if passes.waits_anyway(generation) {
                prop_assert!(generation <= one.promised.max(one.finished));
            } else {
                one.promised = one.promised.max(generation);
            }
            if one.events[0].is_empty() {
                one.events.remove(0);
                one.finished = one.finished.max(std::mem::take(&mut one.promised));
            }
            if one.events.is_empty() {
                running.swap_remove(index);
            }
        }
    }

    #[test]
    fn threads_that_take_turns(
        threads in prop::collection::vec(prop::collection::vec(event(), 0..12), 1..32),
        order in prop::collection::vec(any::<prop::sample::Index>(), 4096),
    ) {
        let expected: usize = threads.iter().map(Vec::len).sum();
        let mut left: Vec<_> = threads
            .iter()
            .enumerate()
            .map(|(thread, events)| (thread as i32 + 1, steps(events).into_iter()))
            .filter(|(_, steps)| steps.len() > 0)
            .collect();
        let mut passes = Passes::NONE;
        let mut begun = 0;
        let mut order = order.iter().cycle();
        while !left.is_empty() {
            let next = order.next().unwrap().index(left.len());
            let (thread, steps) = &mut left[next];
            let (start, end, at) = steps.next().unwrap();
            begun += usize::from(passes.begins(*thread, start, end, at));
            if steps.len() == 0 {
                left.swap_remove(next);
            }
        }
        prop_assert_eq!(begun, expected);
    }
}

#[test]
fn the_same_again_is_another_event() {
    let mut passes = Passes::NONE;
    for _ in 0..3 {
        assert!(passes.begins(7, 0, 2 * PAGE, 0));
        assert!(!passes.begins(7, 0, 2 * PAGE, PAGE));
    }
}

#[test]
fn the_first_interval_waits_for_the_others() {
    let mut passes = Passes::NONE;
    passes.begins(7, 0, 3 * PAGE, 0);
    assert!(!passes.waits_anyway(5));
    passes.begins(7, 0, 3 * PAGE, PAGE);
    assert!(passes.waits_anyway(5));
    // The generation was closed in between.
    passes.begins(7, 0, 3 * PAGE, 2 * PAGE);
    assert!(!passes.waits_anyway(6));
    // Another thread's is not its own.
    passes.begins(8, 0, 3 * PAGE, 0);
    assert!(!passes.waits_anyway(6));
    // Nor is the next event.
    passes.begins(7, 0, 3 * PAGE, 0);
    assert!(!passes.waits_anyway(6));
}

#[test]
fn too_many_threads_are_counted_too_often_at_worst() {
    let mut passes = Passes::NONE;
    let mut begun = 0;
    for at in 0..2 {
        for thread in 0..100 {
            begun += u32::from(passes.begins(thread, 0, 2 * PAGE, at * PAGE));
        }
    }
    assert!((100..=200).contains(&begun), "{begun}");
}
