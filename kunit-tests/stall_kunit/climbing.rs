// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_stall_climbing)]
mod tests {
    use crate::abi::{evidence, Held, Phase, State};
    use crate::ladder::{Node, Verdict};
    use crate::rank::Change;
    use crate::{Bench, MS, PERIOD, SECOND};
    use kernel::prelude::*;

    const FREE: Node = Node {
        armed: true,
        exhausted: false,
        counts: u32::MAX,
    };

    /// A rank that promises to tell its waits, in `phase`, with a deadline of a second, after
    /// `rungs` rungs.
    fn quiet(phase: Phase, rungs: u32) -> Result<Bench> {
        let mut bench = Bench::promising(true, [1_000; 5])?;
        bench.sight.phase = phase as u32;
        bench.look_after(PERIOD);
        for _ in 0..rungs {
            bench.next_change().ok_or(EINVAL)?;
        }
        Ok(bench)
    }

    #[test]
    fn rung_by_rung() -> Result {
        let mut bench = quiet(Phase::Step, 0)?;
        let expected = [
            (750, Change::Suspect),
            (250, Change::Stalled),
            (10_000, Change::NoAck),
            (50_000, Change::Due),
        ];
        for (ms, change) in expected {
            assert!(bench.next_change() == Some((ms * MS, change)));
        }
        assert!(bench.rank.judge(0, &FREE) == Some(Verdict::Bite));
        assert!(bench.rank.state() == State::Prebite);
        Ok(())
    }

    #[test]
    fn back_from_every_rung() -> Result {
        for rungs in 0..=4 {
            let mut bench = quiet(Phase::Eval, rungs)?;
            if rungs == 4 {
                bench.rank.judge(0, &FREE);
            }
            let from = bench.rank.state();
            assert_eq!(from as u32, rungs);
            bench.sight.progress = u64::MAX;
            match bench.look_after(PERIOD) {
                Some(Change::Recovered { from: was, .. }) => assert!(was == from),
                other => assert!(rungs == 0 && other.is_none()),
            }
            assert!(bench.rank.state() == State::Ok);
        }
        Ok(())
    }

    #[test]
    fn who_waits_for_a_peer_resets_nothing() -> Result {
        let mut bench = quiet(Phase::CommWait, 4)?;
        let everything = evidence::PHASE | evidence::DISK | evidence::HOUSEKEEPING;
        let verdict = bench.rank.judge(everything | evidence::AGENT, &FREE);
        assert!(verdict == Some(Verdict::Held(Held::NoEvidence)));
        assert!(bench.rank.judge(0, &FREE).is_none());
        assert!(bench.rank.state() == State::NoAck);
        Ok(())
    }

    #[test]
    fn who_promises_nothing_needs_other_evidence() -> Result {
        let mut bench = Bench::new([1_000; 5])?;
        // That it tells one of its waits is no promise.
        for phase in [Phase::CommWait, Phase::Step] {
            bench.sight.phase = phase as u32;
            bench.look_after(PERIOD);
        }
        for _ in 0..4 {
            bench.next_change().ok_or(EINVAL)?;
        }
        let held = Some(Verdict::Held(Held::NoEvidence));
        assert!(bench.rank.judge(0, &FREE) == held);
        assert!(bench.rank.judge(evidence::DISK, &FREE) == Some(Verdict::Bite));
        Ok(())
    }

    #[test]
    fn a_gap_is_nobodys_stall() -> Result {
        let mut bench = quiet(Phase::Step, 0)?;
        for _ in 0..10 {
            assert!(bench.look_after(3_600 * SECOND).is_none());
        }
        assert!(bench.rank.state() == State::Ok);
        // Ten periods were counted, and half of one before.
        assert!(bench.next_change() == Some((650 * MS, Change::Suspect)));
        Ok(())
    }

    #[test]
    fn grace() -> Result {
        let mut bench = quiet(Phase::Step, 2)?;
        bench.rank.grace(bench.clock.at(bench.now), 5_000);
        let change = bench.look_after(PERIOD);
        assert!(matches!(change, Some(Change::Recovered { .. })));
        let again = bench.next_change();
        assert!(again == Some((5_740 * MS, Change::Suspect)));
        Ok(())
    }
}
