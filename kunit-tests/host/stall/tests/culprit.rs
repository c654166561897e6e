// SPDX-License-Identifier: GPL-2.0

//! What a process is said to do, from what its threads do.

use nullhz_stall_host::{
    abi::Culprit,
    culprit::{Survey, Thread, STUCK_NS},
};
use proptest::{collection::vec, prelude::*};
use Culprit::*;

const MAIN: i32 = 100;

/// A look at threads that have been switched from `switches` times each.
fn look(now_ns: u64, switches: u64, before: Option<&Survey>, threads: &[(i32, Culprit)]) -> Survey {
    let mut survey = Survey::new(MAIN, now_ns, 0);
    for &(tid, class) in threads {
        let thread = Thread {
            tid,
            class,
            switches,
        };
        survey.add(thread, before);
    }
    survey
}

/// The next look, after time enough, at threads that have not run.
fn again(before: &Survey, threads: &[(i32, Culprit)]) -> Survey {
    look(STUCK_NS, 0, Some(before), threads)
}

fn culprit(threads: &[(i32, Culprit)]) -> (i32, Culprit) {
    let once = look(0, 0, None, threads);
    let twice = again(&once, threads).culprit();
    (twice.tid, twice.class)
}

#[test]
fn the_loop_s_own_thread_tells() {
    for class in [Spinning, Disk, Stopped, Frozen, Sleeping] {
        let threads = [(7, Sleeping), (MAIN, class), (9, Spinning)];
        assert_eq!(culprit(&threads), (MAIN, class));
    }
    assert_eq!(culprit(&[(MAIN, Stopped), (9, Disk)]), (MAIN, Stopped));
}

#[test]
fn it_sleeps_for_one_that_is_stuck() {
    let threads = [(MAIN, Sleeping), (7, Spinning), (8, Disk), (9, Sleeping)];
    // Seen once, it may be a disk that is merely busy.
    let once = look(0, 0, None, &threads);
    assert_eq!(once.culprit().tid, MAIN);
    let twice = again(&once, &threads);
    assert_eq!((twice.culprit().tid, twice.culprit().class), (8, Disk));
    assert!(twice.is_stuck());
    // Another one each time is no stuck one.
    let other = again(&once, &[(MAIN, Sleeping), (8, Sleeping), (9, Disk)]);
    assert_eq!(other.culprit().tid, MAIN);
}

#[test]
fn an_operator_may_ask_for_longer() {
    let look = |now_ns, before: Option<&Survey>| {
        let mut survey = Survey::new(MAIN, now_ns, 3 * STUCK_NS);
        let blocked = Thread {
            tid: MAIN,
            class: Disk,
            switches: 1,
        };
        survey.add(blocked, before);
        survey
    };
    let once = look(0, None);
    let twice = look(3 * STUCK_NS - 1, Some(&once));
    assert!(!twice.is_stuck());
    assert!(look(3 * STUCK_NS, Some(&twice)).is_stuck());
}

#[test]
fn stuck_is_who_has_not_run_for_a_while() {
    for threads in [&[(MAIN, Disk)][..], &[(MAIN, Sleeping), (8, Disk)]] {
        let once = look(0, 5, None, threads);
        assert!(!once.is_stuck(), "one look, and it may write all the time");
        let soon = look(STUCK_NS - 1, 5, Some(&once), threads);
        assert!(!soon.is_stuck(), "two looks that are too close");
        // What the looks in between have found is not forgotten.
        assert!(look(STUCK_NS, 5, Some(&soon), threads).is_stuck());
        let later = look(9 * STUCK_NS, 6, Some(&soon), threads);
        assert!(!later.is_stuck(), "it has run in between");
        assert!(!look(10 * STUCK_NS - 1, 6, Some(&later), threads).is_stuck());
        assert!(look(10 * STUCK_NS, 6, Some(&later), threads).is_stuck());
        let awake = look(2 * STUCK_NS, 5, Some(&soon), &[(MAIN, Sleeping)]);
        assert!(!awake.is_stuck());
    }
    // The loop's own thread is said to be in D state at once, and other threads' state is not its.
    assert_eq!(look(0, 0, None, &[(MAIN, Disk)]).culprit().class, Disk);
    let once = look(0, 0, None, &[(MAIN, Spinning), (8, Disk)]);
    assert!(!again(&once, &[(MAIN, Spinning), (8, Disk)]).is_stuck());
    assert!(!again(&once, &[(MAIN, Disk), (8, Disk)]).is_stuck());
}

#[test]
fn among_busy_loaders_the_stuck_one_is_found() {
    let mut threads = vec![(MAIN, Sleeping)];
    threads.extend((1..8).map(|tid| (tid, Disk)));
    let once = look(0, 0, None, &threads);
    let twice = again(&once, &[(MAIN, Sleeping), (20, Disk), (5, Disk)]);
    assert_eq!(twice.culprit().tid, 5);
}

#[test]
fn a_dead_loop_leaves_the_answer_to_others() {
    assert_eq!(culprit(&[]), (MAIN, Exited));
    assert_eq!(culprit(&[(7, Exited), (8, Unknown)]), (MAIN, Exited));
    assert_eq!(culprit(&[(MAIN, Exited), (7, Sleeping)]), (7, Sleeping));
    let threads = [(7, Sleeping), (8, Spinning), (9, Disk), (10, Stopped)];
    assert_eq!(culprit(&threads), (9, Disk));
}

proptest! {
    #[test]
    fn the_answer_is_one_of_the_threads(
        looks in vec(
            (0..4 * STUCK_NS, vec((95..110i32, proptest::sample::select(Culprit::ALL)), 0..30)),
            1..4,
        ),
    ) {
        let mut before = None;
        for (now_ns, threads) in looks {
            let now = look(now_ns, 0, before.as_ref(), &threads);
            let found = now.culprit();
            let there = threads.contains(&(found.tid, found.class));
            let calmed = threads.contains(&(found.tid, Culprit::Disk));
            let gone = (found.tid, found.class) == (MAIN, Culprit::Exited);
            prop_assert!(there || gone || (calmed && found.class == Culprit::Sleeping));
            prop_assert!(!now.is_stuck() || (before.is_some() && found.class == Culprit::Disk));
            before = Some(now);
        }
    }
}
