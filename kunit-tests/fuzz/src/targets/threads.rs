// SPDX-License-Identifier: GPL-2.0

//! Who is to blame in a stalled process.

use crate::input::Input;
use nullhz_stall_host::abi::Culprit;
use nullhz_stall_host::culprit::{Survey, Thread, STUCK_NS};

/// A thread in D state: which one, how often it has run, and since when.
type Blocked = (i32, u64, u64);

pub(super) fn threads(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let main = input.u8().into();
    let mut now = 0;
    let mut before: Option<(Survey, Vec<Blocked>)> = None;
    while !input.is_empty() {
        let count = input.u8();
        now += u64::from(count >> 5) * (STUCK_NS / 4);
        let mut survey = Survey::new(main, now, STUCK_NS);
        let mut seen: Vec<Thread> = Vec::new();
        for _ in 0..count % 24 {
            let (tid, what) = (i32::from(input.u8()) + 1, usize::from(input.u8()));
            if seen.iter().all(|thread| thread.tid != tid) {
                let thread = Thread {
                    tid,
                    class: Culprit::ALL[what % Culprit::COUNT],
                    switches: u64::from(what / Culprit::COUNT > 20),
                };
                seen.push(thread);
                survey.add(thread, before.as_ref().map(|(survey, _)| survey));
            }
        }
        let known = before.map_or(Vec::new(), |(_, blocked)| blocked);
        let since = |thread: &Thread| {
            let same = |known: &&Blocked| (known.0, known.1) == (thread.tid, thread.switches);
            known.iter().find(same).map_or(now, |known| known.2)
        };
        let stuck =
            |thread: &Thread| thread.class == Culprit::Disk && now - since(thread) >= STUCK_NS;
        let own = seen.iter().find(|thread| thread.tid == main);
        let class = own.map_or(Culprit::Exited, |thread| thread.class);
        let others = || seen.iter().filter(|thread| thread.tid != main);

        let found = survey.culprit();
        let there = seen.iter().find(|thread| thread.tid == found.tid);
        match class {
            Culprit::Exited => {
                // Any other that is not gone says more.
                let alive =
                    |thread: &Thread| !matches!(thread.class, Culprit::Exited | Culprit::Unknown);
                assert_eq!(found.tid == main, !others().any(alive));
            }
            Culprit::Sleeping => {
                let another = others().any(stuck);
                assert_eq!(found.tid != main, another);
                assert_eq!(found.class == Culprit::Disk, another);
            }
            class => assert_eq!((found.tid, found.class), (main, class)),
        }
        if found.tid != main {
            let there = there.unwrap();
            let new = there.class == Culprit::Disk && !stuck(there);
            assert_eq!(
                found.class,
                if new { Culprit::Sleeping } else { there.class }
            );
        }
        assert_eq!(survey.is_stuck(), there.is_some_and(stuck));

        // Besides the loop's own thread only the first few are remembered.
        let disk = |thread: &&Thread| thread.class == Culprit::Disk;
        let kept = others().filter(disk).take(8).chain(own.filter(disk));
        let blocked = kept.map(|thread| (thread.tid, thread.switches, since(thread)));
        before = Some((survey, blocked.collect()));
    }
}
