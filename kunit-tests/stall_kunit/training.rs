// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_stall_training)]
mod tests {
    use crate::abi::Culprit;
    use crate::quantile::{Longest, Quantiles};
    use crate::rank::{Change, Sight};
    use crate::{Bench, Random, MS, PERIOD, SECOND};
    use kernel::prelude::*;

    /// Steps of a second, give or take a tenth; one in 200 is ten times as long.
    fn train(bench: &mut Bench, random: &mut Random, steps: u32) -> u32 {
        let mut alarms = 0;
        for _ in 0..steps {
            let ns = 900 * MS + random.below(200 * MS);
            let slow = random.below(200) == 0;
            alarms += u32::from(bench.step(if slow { 10 * ns } else { ns }));
        }
        alarms
    }

    #[test]
    fn an_hour_without_false_alarms() -> Result {
        let mut random = Random(1);
        for thread in [Culprit::Sleeping, Culprit::Stopped] {
            let mut bench = Bench::new([0; 5])?;
            assert_eq!(train(&mut bench, &mut random, 3_600), 0);
            // And then a stall.
            bench.thread = thread;
            let deadline = bench.rank.deadline_ns();
            assert!(matches!(bench.next_change(), Some((_, Change::Suspect))));
            let begun = bench.rank.age_ns(bench.clock.at(bench.now));
            let Some((rest, Change::Stalled)) = bench.next_change() else {
                return Err(EINVAL);
            };
            assert!(begun + rest <= deadline + 15 * MS);
            assert!(bench.step(SECOND) || bench.rank.stalls() == 1);
            assert_eq!(train(&mut bench, &mut random, 600), 0);
        }
        Ok(())
    }

    #[test]
    fn a_stopped_rank_is_found_early() -> Result {
        let mut bench = Bench::new([0; 5])?;
        for _ in 0..2_000 {
            assert!(!bench.step(SECOND));
        }
        bench.thread = Culprit::Stopped;
        let begin = bench.now;
        while bench.rank.stalls() == 0 {
            bench.look_after(PERIOD);
        }
        let took = (bench.now - begin) / MS;
        assert!((1_490..1_650).contains(&took));
        Ok(())
    }

    #[test]
    fn any_page_will_do() -> Result {
        let mut random = Random(7);
        let mut bench = Bench::new([0; 5])?;
        for _ in 0..200_000 {
            bench.sight = Sight {
                step: random.next(),
                progress: random.below(2),
                phase: random.next() as u32,
                thread: Culprit::Unknown,
            };
            let change = bench.look_after(random.below(200 * MS));
            assert!(change.is_none());
        }
        assert!(bench.rank.take_bad_page());
        assert!(!bench.rank.take_bad_page());
        Ok(())
    }

    #[test]
    fn quantiles() -> Result {
        let mut random = Random(3);
        let mut values = KVVec::new();
        let mut quantiles = KBox::new(Quantiles::EMPTY, GFP_KERNEL)?;
        let mut longest = Longest::EMPTY;
        for _ in 0..5_000 {
            // All orders of magnitude.
            let bits = random.below(41);
            let ns = random.below((2 << bits) + MS);
            values.push(ns, GFP_KERNEL)?;
            quantiles.add(ns);
            longest.add(0, ns);
        }
        values.sort_unstable();
        let close = |estimate: u64, place: usize| {
            let exact = values.get(place).copied().unwrap_or(0);
            (exact..=exact + exact / 16 + 2 * MS).contains(&estimate)
        };
        assert!(close(quantiles.typical(), 4_499));
        assert!(close(quantiles.rare(), 4_994));
        assert_eq!(Some(&longest.get()), values.last());
        Ok(())
    }
}
