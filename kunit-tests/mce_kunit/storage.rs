// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mce_slots)]
mod tests {
    use crate::atomic::AtomicU64;
    use crate::slots::{identity, Missed, Ring, Slot};
    use kernel::{
        irq_work::{HardIrqHandler, HardIrqWork},
        prelude::*,
        sync::{
            atomic::{Atomic, Relaxed},
            Arc, //
        },
    };

    type Slots = KVec<Slot<2>>;

    fn ring(slots: usize) -> Result<Ring<Slots, 2>> {
        let mut buffer = KVec::with_capacity(slots, GFP_KERNEL)?;
        for _ in 0..slots {
            buffer.push(Slot::new(), GFP_KERNEL)?;
        }
        Ring::new(buffer).ok_or(EINVAL)
    }

    #[test]
    fn first_in_first_out_until_full() -> Result {
        let ring = ring(4)?;
        for round in 0..10 {
            for n in 0..4 {
                assert!(ring.push(&[round, n]));
            }
            assert!(!ring.push(&[0, 0]));
            for n in 0..4 {
                assert!(ring.pop() == Some([round, n]));
            }
            assert!(ring.pop().is_none());
        }
        assert!(self::ring(1).is_err());
        Ok(())
    }

    /// Pushes from a hard interrupt, which comes between two instructions of whoever pushes too.
    struct Interrupt {
        ring: Arc<Ring<Slots, 2>>,
        next: Atomic<u64>,
        refused: Atomic<u64>,
    }

    impl HardIrqHandler for Interrupt {
        fn run(&self) {
            let n = self.next.fetch_add(1, Relaxed);
            let id = n << 1 | 1;
            if !self.ring.push(&[id, !id]) {
                self.refused.fetch_add(1, Relaxed);
            }
        }
    }

    #[test]
    fn producers_may_interrupt_each_other() -> Result {
        const ROUNDS: u64 = 2000;

        let ring = Arc::new(ring(64)?, GFP_KERNEL)?;
        let interrupt = KBox::pin_init(
            HardIrqWork::new(Interrupt {
                ring: ring.clone(),
                next: Atomic::new(0),
                refused: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        let mut refused = 0;
        let (mut even, mut odd) = (0, 0);
        let mut take = || {
            while let Some([id, check]) = ring.pop() {
                assert_eq!(check, !id);
                match id & 1 {
                    0 => even += 1,
                    _ => odd += 1,
                }
            }
        };
        for n in 0..ROUNDS {
            interrupt.queue();
            let id = n << 1;
            if !ring.push(&[id, !id]) {
                refused += 1;
            }
            if n % 16 == 0 {
                take();
            }
        }
        interrupt.sync();
        take();
        assert_eq!(even, ROUNDS - refused);
        assert_eq!(
            odd,
            interrupt.next.load(Relaxed) - interrupt.refused.load(Relaxed)
        );
        assert!(odd > 0);
        Ok(())
    }

    #[test]
    fn the_missed_are_known_again() -> Result {
        let mut places = KVec::with_capacity(32, GFP_KERNEL)?;
        for _ in 0..32 {
            places.push(AtomicU64::new(0), GFP_KERNEL)?;
        }
        let missed = Missed::new(places);
        let (one, two) = (identity(&[1, 2]), identity(&[2, 1]));
        assert!(one != two);
        assert!(missed.insert(one, 0) && missed.insert(one, 0));
        assert!(!missed.take(two));
        assert!(missed.take(one) && missed.take(one));
        assert!(!missed.take(one));
        Ok(())
    }
}
