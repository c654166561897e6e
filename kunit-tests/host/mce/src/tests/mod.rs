// SPDX-License-Identifier: GPL-2.0

mod decoding;
mod grading;
mod interleaving;
mod prediction;
mod storage;

use crate::abi::Level;
use crate::buckets::Arena;
use crate::decode::record::Record;
use crate::decode::severity::{grade, Context, Features, Graded};
use crate::predict::{Predictor, Thresholds, Verdict};
use proptest::prelude::*;

/// Memory for the tables from the host's allocator.
pub(crate) enum Heap {}

impl Arena for Heap {
    type Buffer<T: Copy> = Vec<T>;
    type Error = std::convert::Infallible;

    fn filled<T: Copy>(len: usize, value: T) -> Result<Vec<T>, Self::Error> {
        Ok(vec![value; len])
    }
}

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const HOUR: u64 = 3600 * SECOND;

/// A node: grading and prediction together.
pub(crate) struct Node {
    predictor: Predictor<Heap>,
    pub(crate) thresholds: Thresholds,
}

impl Node {
    pub(crate) fn new() -> Self {
        let Ok(predictor) = Predictor::new();
        Node {
            predictor,
            thresholds: Thresholds::DEFAULT,
        }
    }

    pub(crate) fn see(&mut self, record: &Record, now_ns: u64) -> Verdict {
        let graded = graded(record, false);
        self.predictor
            .judge(record, &graded, now_ns, &self.thresholds)
    }

    pub(crate) fn level(&mut self, record: &Record, now_ns: u64) -> Level {
        self.see(record, now_ns).level
    }
}

pub(crate) fn graded(record: &Record, exception: bool) -> Graded {
    grade(
        record,
        Context::of(record),
        &Features::assumed(record),
        exception,
    )
}

prop_compose! {
    /// A record of which nothing is known.
    pub(crate) fn any_record()(
        words in any::<[u64; crate::decode::record::WORDS]>(),
        vendor in prop_oneof![Just(0u8), Just(2), Just(9), Just(10), any::<u8>()],
        cpuid in prop_oneof![
            any::<u32>(),
            prop::sample::select(vec![
                0x50657, 0x50653, 0x606a6, 0x606c1, 0x80665, 0x806f8, 0xc06f2, 0xa06d1, 0xa10f11,
                0xa90f01, 0xb40f40, 0x900f11,
            ]),
        ],
        ipid in prop_oneof![any::<u64>(), (0usize..100).prop_map(crate::tests::decoding::some_ipid)],
    ) -> Record {
        let mut record = Record::unpack(&words);
        record.cpuvendor = vendor;
        record.cpuid = cpuid;
        record.ipid = ipid;
        record
    }
}
