// SPDX-License-Identifier: GPL-2.0

//! Events are counted once, whatever intervals they hit and however threads take turns.

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

proptest! {
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
