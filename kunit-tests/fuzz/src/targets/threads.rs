// SPDX-License-Identifier: GPL-2.0

//! Who is to blame in a stalled process.

use crate::input::Input;
use nullhz_stall_host::abi::Culprit;
use nullhz_stall_host::culprit::{Survey, Thread};

pub(super) fn threads(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let main = input.u8().into();
    let mut before: Option<(Survey, Vec<i32>)> = None;
    while !input.is_empty() {
        let mut survey = Survey::new(main, before.as_ref().map(|(survey, _)| survey));
        let known = before.map_or(Vec::new(), |(_, stuck)| stuck);
        let mut seen: Vec<Thread> = Vec::new();
        for _ in 0..input.below(24) {
            let tid = i32::from(input.u8()) + 1;
            if seen.iter().all(|thread| thread.tid != tid) {
                let class = input.pick(Culprit::ALL);
                seen.push(Thread { tid, class });
                survey.add(Thread { tid, class });
            }
        }
        let own = seen.iter().find(|thread| thread.tid == main);
        let own = own.map_or(Culprit::Exited, |thread| thread.class);
        let others = || seen.iter().filter(|thread| thread.tid != main);
        let disk = |thread: &&Thread| thread.class == Culprit::Disk;
        // Only the first few are remembered.
        let stuck: Vec<i32> = others()
            .filter(disk)
            .map(|thread| thread.tid)
            .take(8)
            .collect();

        let found = survey.culprit();
        let there = seen.iter().find(|thread| thread.tid == found.tid);
        match own {
            Culprit::Exited => {
                // Any other that is not gone says more.
                let alive =
                    |thread: &Thread| !matches!(thread.class, Culprit::Exited | Culprit::Unknown);
                assert_eq!(found.tid == main, !others().any(alive));
            }
            Culprit::Sleeping => {
                let again = others()
                    .filter(disk)
                    .any(|thread| known.contains(&thread.tid));
                assert_eq!(found.tid != main, again);
                assert_eq!(found.class == Culprit::Disk, again);
            }
            class => assert_eq!((found.tid, found.class), (main, class)),
        }
        if found.tid != main {
            let class = there.unwrap().class;
            let new = class == Culprit::Disk && !known.contains(&found.tid);
            assert_eq!(found.class, if new { Culprit::Sleeping } else { class });
        }
        before = Some((survey, stuck));
    }
}
