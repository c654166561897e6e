// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_stall_keeping)]
mod tests {
    use crate::abi::Culprit;
    use crate::budget::{Ending, Ledger, Mark, Moment, STORED_SIZE};
    use crate::culprit::{Survey, Thread, STUCK_NS};

    const NOW: u64 = 1_790_000_000;

    fn after(elapsed: u64) -> Moment {
        Moment {
            loaded: NOW,
            elapsed,
        }
    }

    #[test]
    fn a_boot_loop_ends() {
        let mut ledger = Ledger::EMPTY;
        for n in 0..3 {
            assert!(!ledger.exhausted(after(0), 3));
            ledger.set(Mark::Armed);
            let Some(read) = Ledger::decode(&ledger.encode()) else {
                panic!("not read back");
            };
            ledger = read;
            assert!(ledger.boot(NOW + n, Some(true)) == Ending::Reset);
        }
        assert!(ledger.exhausted(after(3), 3));
        ledger.forgive();
        assert_eq!(ledger.resets(after(3)), 0);
    }

    #[test]
    fn damage_is_seen() {
        let stored = Ledger::EMPTY.encode();
        for bit in 0..STORED_SIZE * 8 {
            let mut damaged = stored;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Ledger::decode(&damaged).is_none());
        }
        assert!(Ledger::decode(&stored[..STORED_SIZE - 1]).is_none());
    }

    #[test]
    fn the_thread_that_is_stuck() {
        let look = |now_ns, switches, before: Option<&Survey>| {
            let mut survey = Survey::new(1, now_ns, STUCK_NS);
            for (tid, class) in [(1, Culprit::Sleeping), (2, Culprit::Disk)] {
                let thread = Thread {
                    tid,
                    class,
                    switches,
                };
                survey.add(thread, before);
            }
            survey
        };
        let once = look(0, 7, None);
        assert!(once.culprit().tid == 1 && !once.is_stuck());
        let twice = look(STUCK_NS, 7, Some(&once));
        assert!(twice.culprit().tid == 2 && twice.culprit().class == Culprit::Disk);
        assert!(twice.is_stuck());
        // It has run in between.
        assert!(!look(STUCK_NS, 8, Some(&once)).is_stuck());
    }
}
