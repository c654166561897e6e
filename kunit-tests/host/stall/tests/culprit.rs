// SPDX-License-Identifier: GPL-2.0

//! What a process is said to do, from what its threads do.

use nullhz_stall_host::{
    abi::Culprit,
    culprit::{Survey, Thread},
};
use proptest::{collection::vec, prelude::*};

const MAIN: i32 = 100;

fn survey(before: Option<&Survey>, threads: &[(i32, Culprit)]) -> Survey {
    let mut survey = Survey::new(MAIN, before);
    for (tid, class) in threads {
        survey.add(Thread {
            tid: *tid,
            class: *class,
        });
    }
    survey
}

fn culprit(threads: &[(i32, Culprit)]) -> (i32, Culprit) {
    let once = survey(None, threads);
    let twice = survey(Some(&once), threads).culprit();
    (twice.tid, twice.class)
}

#[test]
fn the_loop_s_own_thread_tells() {
    use Culprit::*;
    for class in [Spinning, Disk, Stopped, Frozen, Sleeping] {
        let threads = [(7, Sleeping), (MAIN, class), (9, Spinning)];
        assert_eq!(culprit(&threads), (MAIN, class));
    }
    assert_eq!(culprit(&[(MAIN, Stopped), (9, Disk)]), (MAIN, Stopped));
}

#[test]
fn it_sleeps_for_one_that_is_stuck() {
    use Culprit::*;
    let threads = [(MAIN, Sleeping), (7, Spinning), (8, Disk), (9, Sleeping)];
    // Seen once, it may be a disk that is merely busy.
    let once = survey(None, &threads);
    assert_eq!(once.culprit().tid, MAIN);
    let twice = survey(Some(&once), &threads).culprit();
    assert_eq!((twice.tid, twice.class), (8, Disk));
    // Another one each time is no stuck one.
    let other = survey(Some(&once), &[(MAIN, Sleeping), (8, Sleeping), (9, Disk)]);
    assert_eq!(other.culprit().tid, MAIN);
}

#[test]
fn among_busy_loaders_the_stuck_one_is_found() {
    use Culprit::*;
    let mut threads = vec![(MAIN, Sleeping)];
    threads.extend((1..8).map(|tid| (tid, Disk)));
    let once = survey(None, &threads);
    let twice = survey(Some(&once), &[(MAIN, Sleeping), (20, Disk), (5, Disk)]);
    assert_eq!(twice.culprit().tid, 5);
}

#[test]
fn a_dead_loop_leaves_the_answer_to_others() {
    use Culprit::*;
    assert_eq!(culprit(&[]), (MAIN, Exited));
    assert_eq!(culprit(&[(7, Exited), (8, Unknown)]), (MAIN, Exited));
    assert_eq!(culprit(&[(MAIN, Exited), (7, Sleeping)]), (7, Sleeping));
    let threads = [(7, Sleeping), (8, Spinning), (9, Disk), (10, Stopped)];
    assert_eq!(culprit(&threads), (9, Disk));
}

proptest! {
    #[test]
    fn the_answer_is_one_of_the_threads(
        looks in vec(vec((95..110i32, proptest::sample::select(Culprit::ALL)), 0..30), 1..4),
    ) {
        let mut before = None;
        for threads in looks {
            let now = survey(before.as_ref(), &threads);
            let found = now.culprit();
            let there = threads.contains(&(found.tid, found.class));
            let calmed = threads.contains(&(found.tid, Culprit::Disk));
            let gone = (found.tid, found.class) == (MAIN, Culprit::Exited);
            prop_assert!(there || gone || (calmed && found.class == Culprit::Sleeping));
            before = Some(now);
        }
    }
}
