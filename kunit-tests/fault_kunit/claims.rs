// SPDX-License-Identifier: GPL-2.0

//! The suite of the slots for last words.

use crate::{
    abi::source,
    slots::{Slots, SLOTS},
};
use kernel::prelude::*;

/// What other sources than machine checks may use.
const OTHERS: usize = SLOTS - SLOTS / 4;

#[kunit_tests(nullhz_fault_slots)]
mod tests {
    use super::*;

    /// Claims all that `source` can get, which it gets from the first on.
    fn claim_all(slots: &Slots, source: u16) -> usize {
        (0..=SLOTS)
            .take_while(|_| slots.claim(source).is_some())
            .count()
    }

    #[test]
    fn what_is_released_can_be_claimed_again() {
        let slots = Slots::new(SLOTS);
        for _ in 0..3 {
            for _ in 0..3 {
                // Full, and refused twice: that takes no slot from anybody.
                claim_all(&slots, source::STALL);
                assert_eq!(slots.claim(source::STALL), None);
                assert_eq!(slots.claim(source::STALL), None);
            }
            for slot in 0..OTHERS {
                slots.release(slot);
            }
            assert_eq!(claim_all(&slots, source::STALL), OTHERS);
            for slot in (0..OTHERS).rev() {
                slots.release(slot);
            }
        }
        assert_eq!(slots.claim(source::STALL), Some(0));
    }

    #[test]
    fn no_other_source_takes_the_slots_of_machine_checks() {
        let slots = Slots::new(SLOTS);
        for other in source::BUS..=source::MAX {
            if other != source::MCE {
                claim_all(&slots, other);
            }
        }
        assert_eq!(claim_all(&slots, source::MCE), SLOTS - OTHERS);
        assert_eq!(slots.claim(source::MCE), None);
    }

    #[test]
    fn little_room_is_used_to_the_last_slot() {
        for room in 0..=SLOTS + 1 {
            let slots = Slots::new(room);
            let others = claim_all(&slots, source::STALL);
            let all = others + claim_all(&slots, source::MCE);
            assert_eq!(all, room.min(SLOTS));
            assert!(others >= 1 || room == 0);
        }
    }
}
