// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::abi::mce as reason;
use crate::buckets::{Bucket, Columns, Filled, Table, Window};
use crate::decode::record::*;

const MINUTE: u64 = 60 * SECOND;

fn corrected(page: u64) -> Record {
    Record {
        status: 0x9c00_0000_0000_0090,
        addr: page << 12,
        misc: 0x8c,
        mcgcap: CAP_SER_P,
        cpuid: 0x206d7,
        bank: 9,
        ..Record::default()
    }
}

/// Thresholds that leave only one bucket on.
fn only(set: impl FnOnce(&mut Thresholds)) -> Thresholds {
    let mut thresholds = Thresholds {
        page: 0,
        dimm: 0,
        bank: 0,
        socket: 0,
        storm: 0,
        columns: 0,
        overflow: 0,
        parity: 0,
        ..Thresholds::DEFAULT
    };
    set(&mut thresholds);
    thresholds
}

#[test]
fn two_errors_of_a_page_in_a_day() {
    let mut node = Node::new();
    assert_eq!(node.level(&corrected(1), 0), Level::Watch);
    assert_eq!(node.level(&corrected(2), MINUTE), Level::Watch);
    let verdict = node.see(&corrected(1), 24 * HOUR - 1);
    assert_eq!(
        (verdict.level, verdict.reason, verdict.page_count),
        (Level::Degrading, reason::R_PAGE, 2)
    );
}

#[test]
fn firmware_tells_the_page_on_every_processor() {
    for cpuvendor in [0, 2, 9] {
        let told = Record {
            status: 0x9c00_0000_0000_009f,
            cpuvendor,
            bank: BANK_NONE,
            ..corrected(1)
        };
        let mut node = Node::new();
        assert_eq!(node.level(&told, 0), Level::Watch);
        let verdict = node.see(&told, MINUTE);
        assert_eq!(
            (verdict.level, verdict.reason, verdict.page_count),
            (Level::Degrading, reason::R_PAGE, 2),
            "vendor {cpuvendor}"
        );
    }
}

#[test]
fn a_node_that_goes_on_has_time_for_a_snapshot() {
    let fatal = Record {
        status: VAL | UC | EN | PCC,
        ..Record::default()
    };
    let verdict = Node::new().see(&fatal, 0);
    assert_eq!(verdict.level, Level::Fatal);
    assert_eq!(verdict.live_level(), Level::Imminent);
    let verdict = Node::new().see(&corrected(1), 0);
    assert_eq!(verdict.live_level(), Level::Watch);
}

#[test]
fn two_errors_of_a_page_in_two_days() {
    let mut node = Node::new();
    assert_eq!(node.level(&corrected(1), 0), Level::Watch);
    let verdict = node.see(&corrected(1), 28 * HOUR);
    assert_eq!((verdict.level, verdict.page_count), (Level::Watch, 1));
}

#[test]
fn ten_errors_of_a_dimm() {
    let mut node = Node::new();
    node.thresholds.bank = 0;
    for n in 0..9 {
        assert_eq!(node.level(&corrected(n), n * HOUR), Level::Watch);
    }
    let verdict = node.see(&corrected(9), 9 * HOUR);
    assert_eq!(
        (verdict.level, verdict.reason, verdict.dimm_count),
        (Level::Degrading, reason::R_DIMM, 10)
    );
    // Another channel is another DIMM.
    let other = Record {
        status: 0x9c00_0000_0000_0091,
        ..corrected(10)
    };
    assert_eq!(node.see(&other, 10 * HOUR).dimm_count, 1);
}

#[test]
fn five_records_within_a_minute_are_a_storm() {
    let mut node = Node::new();
    for n in 0..4 {
        assert_eq!(node.level(&corrected(n), n * SECOND), Level::Watch);
    }
    let verdict = node.see(&corrected(4), 5 * SECOND);
    assert_eq!(
        (verdict.level, verdict.reason),
        (Level::Degrading, reason::R_STORM)
    );
}

#[test]
fn escalation_and_hysteresis() {
    let mut node = Node::new();
    node.thresholds = only(|t| t.page = 2);
    let levels: Vec<_> = (0..20)
        .map(|n| node.level(&corrected(1), n * MINUTE))
        .collect();
    for (n, level) in (1..).zip(levels) {
        let expected = match n {
            2 | 4 => Level::Degrading,
            8 | 16 => Level::Imminent,
            _ => Level::Watch,
        };
        assert_eq!(level, expected, "error {n}");
    }
    // Days later the page is calm again, and starts over.
    assert_eq!(node.level(&corrected(1), 100 * HOUR), Level::Watch);
    assert_eq!(node.level(&corrected(1), 101 * HOUR), Level::Degrading);
}

/// Eight slices of a second.
const EIGHT_SECONDS: Window = Window::from_secs(8);

#[test]
fn an_error_that_comes_late_counts_as_the_last_one() {
    let mut bucket = Bucket::EMPTY;
    bucket.fill(&EIGHT_SECONDS, 10 * SECOND, 1, 0);
    assert_eq!(bucket.fill(&EIGHT_SECONDS, 3 * SECOND, 1, 0).count, 2);
    assert_eq!(bucket.level(&EIGHT_SECONDS, 18 * SECOND), 2);
    assert_eq!(bucket.level(&EIGHT_SECONDS, 19 * SECOND), 0);
}

#[test]
fn a_bucket_starts_over_below_half_of_its_threshold() {
    for (left, trips) in [(1, 1), (2, 0)] {
        let mut bucket = Bucket::EMPTY;
        bucket.fill(&EIGHT_SECONDS, 0, 4 - left, 4);
        assert_eq!(bucket.fill(&EIGHT_SECONDS, 4 * SECOND, left, 4).trips, 1);
        // What came first has leaked.
        let filled = bucket.fill(&EIGHT_SECONDS, 9 * SECOND, 4 - left, 4);
        assert_eq!((filled.count, filled.trips), (4, trips), "{left} left");
    }
}

#[test]
fn a_column_is_remembered_for_the_window() {
    for (later, count) in [(8, 2), (9, 1)] {
        let mut columns = Columns::EMPTY;
        columns.fill(&EIGHT_SECONDS, 0, 1, 0);
        let filled = columns.fill(&EIGHT_SECONDS, later * SECOND, 2, 0);
        assert_eq!(filled.count, count, "{later} s later");
    }
}

#[test]
fn a_row_starts_over_below_half_of_its_threshold() {
    for (leaked, trips) in [(1, 0), (3, 1)] {
        let mut columns = Columns::EMPTY;
        for column in 0..4 {
            let at = if column < leaked { 0 } else { SECOND };
            columns.fill(&EIGHT_SECONDS, at, column, 4);
        }
        // What is left is 3, or 1, of 4.
        let mut filled = Filled::default();
        for column in 10..10 + leaked {
            filled = columns.fill(&EIGHT_SECONDS, 9 * SECOND, column, 4);
        }
        assert_eq!((filled.count, filled.trips), (4, trips), "{leaked} leaked");
    }
}

#[test]
fn escalation_says_so() {
    let mut node = Node::new();
    node.thresholds = only(|t| t.page = 1);
    node.thresholds.escalate = 1;
    let verdict = node.see(&corrected(1), 0);
    assert_eq!(verdict.level, Level::Imminent);
    assert_eq!(verdict.reason, reason::R_PAGE | reason::R_ESCALATED);
    node.thresholds.escalate = 0;
    for n in 0..100 {
        assert!(node.level(&corrected(1), n) < Level::Imminent);
    }
}

#[test]
fn a_record_that_stands_for_many_fills_as_many() {
    let mut node = Node::new();
    node.thresholds = only(|t| t.dimm = 10);
    let record = Record {
        status: corrected(1).status | 12 << 38,
        mcgcap: CAP_CMCI_P,
        ..corrected(1)
    };
    let verdict = node.see(&record, 0);
    assert_eq!((verdict.level, verdict.dimm_count), (Level::Degrading, 12));
}

#[test]
fn overflow_of_a_corrected_error() {
    let record = Record {
        status: corrected(1).status | OVER,
        ..corrected(1)
    };
    let verdict = Node::new().see(&record, 0);
    assert_eq!(
        (verdict.level, verdict.reason),
        (Level::Degrading, reason::R_OVERFLOW)
    );
}

#[test]
fn command_parity() {
    let record = Record {
        status: 0x9c00_0000_0000_00b0,
        ..corrected(1)
    };
    let verdict = Node::new().see(&record, 0);
    assert_eq!(
        (verdict.level, verdict.reason),
        (Level::Degrading, reason::R_PARITY)
    );
}

/// An error in a cell of Ice Lake's memory.
fn cell(row: u64, column: u64) -> Record {
    Record {
        status: 0x8c00_0042_0080_0090,
        misc: row << 19 | column << 9 | 0x86,
        addr: row << 20 | column << 14,
        cpuid: 0x606a6,
        bank: 13,
        ..Record::default()
    }
}

#[test]
fn two_columns_of_one_row() {
    let mut node = Node::new();
    node.thresholds = only(|t| t.columns = 2);
    assert_eq!(node.level(&cell(5, 1), 0), Level::Watch);
    assert_eq!(node.level(&cell(5, 1), 1), Level::Watch);
    assert_eq!(node.level(&cell(6, 2), 2), Level::Watch);
    let verdict = node.see(&cell(5, 2), 3);
    assert_eq!(
        (verdict.level, verdict.reason),
        (Level::Degrading, reason::R_COLUMNS)
    );
    // Two days later the first columns are forgotten.
    assert_eq!(node.level(&cell(5, 3), 48 * HOUR), Level::Watch);
}

#[test]
fn memory_of_amd_has_pages_of_its_own_channel() {
    let record = |channel: u64, addr: u64| Record {
        status: 0x9c20_4000_0000_011b,
        ipid: 0x0000_0096_0005_0f00 | channel << 20,
        addr,
        cpuvendor: 2,
        cpuid: 0xa10f11,
        bank: 17,
        ..Record::default()
    };
    let mut node = Node::new();
    assert_eq!(node.see(&record(0, 0x5000), 0).page_count, 1);
    assert_eq!(node.see(&record(1, 0x5000), 1).page_count, 1);
    assert_eq!(node.see(&record(0, 0x5040), 2).page_count, 2);
}

#[test]
fn what_loses_data_is_imminent_and_counts_nothing() {
    let mut node = Node::new();
    node.see(&corrected(1), 0);
    let deferred = Record {
        status: 0xbc00_0000_0000_0090,
        ..corrected(1)
    };
    let verdict = node.see(&deferred, 1);
    assert_eq!(
        (verdict.level, verdict.reason),
        (Level::Imminent, reason::R_GRADE)
    );
    assert_eq!((verdict.page_count, verdict.socket_count), (1, 1));
}

#[test]
fn a_new_window_counts_from_zero() {
    let mut node = Node::new();
    node.see(&corrected(1), 1000 * HOUR);
    node.thresholds.window_s = 1_000_000;
    assert_eq!(node.see(&corrected(1), 1000 * HOUR).page_count, 1);
    assert_eq!(node.see(&corrected(1), 1000 * HOUR).page_count, 2);
}

#[test]
fn a_full_table_says_whom_it_forgot() {
    let mut node = Node::new();
    node.thresholds = only(|_| ());
    let evicted: u32 = (0..100_000)
        .map(|n| {
            let verdict = node.see(&corrected(n), 0);
            assert_eq!(
                verdict.evicted != 0,
                verdict.reason & reason::R_EVICTED != 0
            );
            verdict.evicted
        })
        .sum();
    // 256 sets of 8 pages.
    assert_eq!(evicted, 100_000 - 2048);
    // What has leaked out is not missed.
    assert_eq!(node.see(&corrected(1 << 30), 100 * HOUR).evicted, 0);
}

#[test]
fn a_forgotten_row_is_told_too() {
    let mut node = Node::new();
    node.thresholds = only(|t| t.columns = 2);
    let in_one_page = |row| Record {
        addr: 0,
        ..cell(row, 1)
    };
    let seen: Vec<_> = (0..1_000)
        .map(|row| node.see(&in_one_page(row), 0))
        .collect();
    let evicted: u32 = seen.iter().map(|verdict| verdict.evicted).sum();
    // 64 sets of 8 rows.
    assert!(evicted >= 1_000 - 512, "{evicted}");
    let told = seen.iter().filter(|v| v.reason & reason::R_EVICTED != 0);
    assert_eq!(told.count() as u32, evicted);
    assert_eq!(node.see(&in_one_page(2_000), 100 * HOUR).evicted, 0);
}

#[test]
fn a_table_keeps_what_was_used_last() {
    let Ok(mut table) = Table::<Heap, u64>::new(1, 0);
    for key in 0..8 {
        let (value, gone) = table.entry([key, 0]).unwrap();
        *value = key;
        assert_eq!(gone, None);
    }
    assert!(table.entry([0, 0]).is_some());
    let (_, gone) = table.entry([100, 0]).unwrap();
    assert_eq!(gone, Some(1));
    assert_eq!(table.get([0, 0]).copied(), Some(0));
    assert_eq!(table.get([1, 0]), None);
    let Ok(mut none) = Table::<Heap, u64>::new(0, 0);
    assert!(none.entry([1, 1]).is_none());
    assert_eq!(none.get([1, 1]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// A bucket holds what fell in within the window, and nothing older than nine eighths of it.
    #[test]
    fn buckets_hold_a_window(gaps in prop::collection::vec(0u64..20 * MINUTE, 1..200)) {
        let window = Window::from_secs(3600);
        let mut bucket = Bucket::EMPTY;
        let mut times = Vec::new();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            times.push(now);
            let count = bucket.fill(&window, now, 1, 0).count as usize;
            let within = |span: u64| times.iter().filter(|t| now - **t < span).count();
            prop_assert!(count >= within(HOUR), "{} < {}", count, within(HOUR));
            prop_assert!(count <= within(HOUR / 8 * 9));
        }
    }

    /// However errors come, a threshold is told once on the way up, then at every doubling.
    #[test]
    fn trips_double(threshold in 1u32..50, errors in prop::collection::vec(1u32..20, 1..100)) {
        let window = Window::from_secs(3600);
        let mut bucket = Bucket::EMPTY;
        let mut before = 0u64;
        for n in errors {
            let Filled { count, trips } = bucket.fill(&window, 0, n, threshold);
            let limits = |count: u64| (0..32).filter(|k| count >= u64::from(threshold) << k).count();
            let (was, is) = (limits(before), limits(u64::from(count)));
            prop_assert_eq!(usize::from(trips), if is > was { is } else { 0 });
            before = u64::from(count);
        }
    }

    /// No record, time or threshold makes the predictor panic, and levels follow grades.
    #[test]
    fn anything_can_be_judged(
        records in prop::collection::vec((any_record(), any::<u64>()), 1..50),
        values in any::<[u32; 11]>(),
    ) {
        let [page, dimm, bank, socket, window_s, storm, storm_window_s, columns, overflow, parity, escalate] = values;
        let mut node = Node::new();
        node.thresholds = Thresholds {
            page, dimm, bank, socket, window_s, storm, storm_window_s, columns, overflow, parity, escalate,
        };
        for (mut record, now) in records {
            record.status |= VAL;
            let verdict = node.see(&record, now);
            use crate::decode::severity::Grade;
            match graded(&record, false).grade {
                Grade::Invalid => prop_assert_eq!(verdict.level, Level::Watch),
                Grade::Corrected => prop_assert!(verdict.level <= Level::Imminent),
                Grade::Fatal => prop_assert_eq!(verdict.level, Level::Fatal),
                Grade::Deferred if record.is_spurious() => {}
                _ => prop_assert_eq!(verdict.level, Level::Imminent),
            }
        }
    }
}
