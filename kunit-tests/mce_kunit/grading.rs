// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(nullhz_mce_grading)]
mod tests {
    use crate::decode::record::{Record, VAL};
    use crate::decode::severity::Grade;
    use crate::graded;
    use crate::vectors::VECTORS;
    use kernel::prelude::*;

    #[test]
    fn vectors() {
        for vector in VECTORS {
            let got = graded(&vector.record, vector.exception);
            if got.grade != vector.grade || got.severity != vector.severity {
                pr_err!("{}: {}\n", vector.name, got.why);
            }
            assert_eq!(got.grade as u8, vector.grade as u8);
            assert_eq!(got.severity as u8, vector.severity as u8);
        }
    }

    #[test]
    fn vectors_survive_packing() {
        for vector in VECTORS {
            let record = Record::unpack(&vector.record.pack());
            assert!(record == vector.record);
        }
    }

    #[test]
    fn absurd_banks_are_rejected() {
        for bank in 0..=u8::MAX {
            let record = Record {
                status: VAL,
                bank,
                ..Record::default()
            };
            let valid = bank < 64 || bank == 255;
            let rejected = graded(&record, false).grade == Grade::Invalid;
            assert_eq!(rejected, !valid);
        }
    }
}
