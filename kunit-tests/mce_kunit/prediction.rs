// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mce_prediction)]
mod tests {
    use crate::abi::{mce as reason, Level};
    use crate::predict::{Predictor, Thresholds, Verdict};
    use crate::vectors::VECTORS;
    use crate::{corrected, graded, Memory};
    use kernel::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * SECOND;

    struct Node {
        predictor: Predictor<Memory>,
        thresholds: Thresholds,
    }

    impl Node {
        fn new() -> Result<Self> {
            Ok(Node {
                predictor: Predictor::new()?,
                thresholds: Thresholds::DEFAULT,
            })
        }

        fn see(&mut self, record: &crate::decode::record::Record, now: u64) -> Verdict {
            self.predictor
                .judge(record, &graded(record, false), now, &self.thresholds)
        }
    }

    #[test]
    fn vectors() -> Result {
        for vector in VECTORS {
            let mut node = Node::new()?;
            let graded = graded(&vector.record, vector.exception);
            let verdict = node
                .predictor
                .judge(&vector.record, &graded, SECOND, &node.thresholds);
            assert_eq!(verdict.level as u8, vector.level as u8);
            // Where the node goes on, there is time for a snapshot.
            let live = vector.level.min(Level::Imminent);
            assert_eq!(verdict.live_level() as u8, live as u8);
        }
        Ok(())
    }

    #[test]
    fn two_errors_of_a_page_in_a_day() -> Result {
        let mut node = Node::new()?;
        assert_eq!(node.see(&corrected(1), 0).level as u8, Level::Watch as u8);
        let verdict = node.see(&corrected(1), 24 * HOUR - 1);
        assert_eq!(verdict.level as u8, Level::Degrading as u8);
        assert_eq!(verdict.reason, reason::R_PAGE);
        assert_eq!(verdict.page_count, 2);
        Ok(())
    }

    #[test]
    fn a_page_that_goes_on_escalates() -> Result {
        let mut node = Node::new()?;
        node.thresholds.storm = 0;
        for n in 1..=8 {
            let verdict = node.see(&corrected(1), n * HOUR);
            let expected = match n {
                2 | 4 => Level::Degrading,
                8 => Level::Imminent,
                _ => Level::Watch,
            };
            assert_eq!(verdict.level as u8, expected as u8);
        }
        Ok(())
    }

    #[test]
    fn a_storm() -> Result {
        let mut node = Node::new()?;
        let mut reasons = 0;
        for n in 0..5 {
            reasons |= node.see(&corrected(n), n * SECOND).reason;
        }
        assert_eq!(reasons, reason::R_STORM);
        Ok(())
    }

    #[test]
    fn the_tables_are_bounded() -> Result {
        let mut node = Node::new()?;
        let mut evicted = 0;
        for n in 0..10_000 {
            evicted += node.see(&corrected(n), 0).evicted;
        }
        assert_eq!(evicted, 10_000 - 2048);
        Ok(())
    }
}
