// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mmu_batch_merging)]
mod tests {
    use crate::spans::{Span, Spans, MAX};
    use kernel::prelude::*;

    const MB: u64 = 1 << 20;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end, tag: 7 }
    }

    fn set() -> Result<KBox<Spans>> {
        Ok(KBox::new(Spans::EMPTY, GFP_KERNEL)?)
    }

    #[test]
    fn neighbours_are_one_span() -> Result {
        let mut set = set()?;
        // 40 GB in intervals of 2 MB, the even ones first.
        for n in (0..20_480).step_by(2).take(MAX) {
            set.add(span(n * 2 * MB, (n + 1) * 2 * MB), MAX);
        }
        assert_eq!(set.list().len(), MAX);
        for n in (1..20_480).step_by(2).take(MAX) {
            set.add(span(n * 2 * MB, (n + 1) * 2 * MB), MAX);
        }
        assert_eq!(set.list(), [span(0, 4 * MB * MAX as u64)]);
        Ok(())
    }

    #[test]
    fn one_too_many_is_everything() -> Result {
        for ceiling in [1, 16, MAX] {
            let mut set = set()?;
            for n in (0..ceiling as u64).rev() {
                set.add(span(2 * n, 2 * n + 1), ceiling);
            }
            assert_eq!(set.list().len(), ceiling);
            set.add(span(1000, 1001), ceiling);
            assert!(set.list().is_empty());
            set.add(span(0, 1), ceiling);
            assert!(set.list().is_empty());
        }
        Ok(())
    }

    #[test]
    fn moved_with_nothing_left() -> Result {
        let (mut from, mut to) = (set()?, set()?);
        from.add(span(5, 6), 16);
        to.fill();
        from.move_to(&mut to);
        assert!(from.list().is_empty());
        assert_eq!(to.list(), [span(5, 6)]);
        from.move_to(&mut to);
        to.add(span(7, 8), 16);
        assert_eq!(to.list(), [span(7, 8)]);
        Ok(())
    }
}
