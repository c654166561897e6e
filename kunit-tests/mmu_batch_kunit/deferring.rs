// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mmu_batch_deferring)]
mod tests {
    use crate::combine::Ticket;
    use crate::gather::{Cause, Due, Gather, Kept, Limits, Next, Unmap};
    use kernel::prelude::*;

    const LIMITS: Limits = Limits {
        window_ns: 100_000,
        unmaps: 100,
        pages: 1_000,
    };

    type Ring = Gather<KVec<Option<Kept<KBox<u64>>>>>;

    fn ring(places: usize) -> Result<Ring> {
        let mut ring = KVec::with_capacity(places, GFP_KERNEL)?;
        for _ in 0..places {
            ring.push(None, GFP_KERNEL)?;
        }
        Gather::new(ring).ok_or(EINVAL)
    }

    fn unmap(ticket: u64, pages: u64, id: u64) -> Result<Unmap<KBox<u64>>> {
        Ok(Unmap {
            pages,
            ticket: Ticket::from_raw(ticket),
            held: KBox::new(id, GFP_KERNEL)?,
        })
    }

    #[test]
    fn a_hundred_unmaps_one_flush() -> Result {
        let mut ring = ring(128)?;
        let first = ring
            .push(unmap(1, 1, 0)?, 50, &LIMITS)
            .map_err(|_| ENOSPC)?;
        assert_eq!(first, Next::WakeAt(100_050));
        for id in 1..99 {
            let next = ring
                .push(unmap(1, 1, id)?, 60, &LIMITS)
                .map_err(|_| ENOSPC)?;
            assert_eq!(next, Next::Kept);
        }
        let last = ring
            .push(unmap(1, 1, 99)?, 70, &LIMITS)
            .map_err(|_| ENOSPC)?;
        assert_eq!(last, Next::Drain(Cause::Size));
        assert!(ring.pop(Ticket::FINISHED).is_none());
        for id in 0..100 {
            let unmap = ring.pop(Ticket::from_raw(1)).ok_or(ENOENT)?;
            assert_eq!(*unmap.held, id);
        }
        assert_eq!(ring.due(u64::MAX), Due::Never);
        Ok(())
    }

    #[test]
    fn due_when_the_first_is() -> Result {
        let mut ring = ring(4)?;
        for (ticket, now) in [(1, 0), (2, 60_000)] {
            ring.push(unmap(ticket, 1, now)?, now, &LIMITS)
                .map_err(|_| ENOSPC)?;
        }
        assert_eq!(ring.due(99_999), Due::At(100_000));
        assert_eq!(ring.due(100_000), Due::Now(Ticket::from_raw(2)));
        ring.pop(Ticket::from_raw(1)).ok_or(ENOENT)?;
        assert_eq!(ring.due(100_000), Due::At(160_000));
        Ok(())
    }

    #[test]
    fn what_has_no_place_comes_back() -> Result {
        let mut ring = ring(1)?;
        let next = ring.push(unmap(1, 5, 1)?, 0, &LIMITS).map_err(|_| ENOSPC)?;
        assert_eq!(next, Next::Drain(Cause::Size));
        match ring.push(unmap(1, 5, 2)?, 0, &LIMITS) {
            Ok(_) => return Err(EEXIST),
            Err(back) => assert_eq!(*back.held, 2),
        }
        assert_eq!(ring.pages(), 5);
        // Released by its caller, it has been deferred as well.
        assert_eq!(ring.deferred(), (2, 10));
        Ok(())
    }
}
