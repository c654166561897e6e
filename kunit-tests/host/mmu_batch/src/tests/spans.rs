// SPDX-License-Identifier: GPL-2.0

//! The set of spans against a set of pages.

use crate::spans::{Span, Spans, MAX};
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec::Vec;

const PAGE: u64 = 4096;
const PAGES: u64 = 200;

fn pages(span: &Span) -> impl Iterator<Item = (u64, u64)> + '_ {
    (span.start / PAGE..span.end.div_ceil(PAGE)).map(|page| (span.tag, page))
}

/// The number of runs of neighbours in the same space.
fn runs(pages: &BTreeSet<(u64, u64)>) -> usize {
    pages
        .iter()
        .filter(|(tag, page)| *page == 0 || !pages.contains(&(*tag, page - 1)))
        .count()
}

prop_compose! {
    fn any_span()(tag in 0u64..3, start in 0..PAGES, len in 1u64..12) -> Span {
        Span { start: start * PAGE, end: (start + len) * PAGE, tag }
    }
}

/// Whether `set`, which was given something, stands for everything.
fn is_full(set: &Spans) -> bool {
    set.list().is_empty()
}

/// Checks `set` against what was put into it.
fn check(set: &Spans, naive: &BTreeSet<(u64, u64)>) {
    let listed: Vec<_> = set.list().iter().flat_map(pages).collect();
    assert!(
        listed.windows(2).all(|pair| pair[0] < pair[1]),
        "unsorted, or twice"
    );
    assert_eq!(listed.len(), naive.len());
    assert!(listed.iter().all(|page| naive.contains(page)));
    assert_eq!(set.list().len(), runs(naive), "not joined");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_page_is_lost(
        spans in prop::collection::vec(any_span(), 1..150),
        ceiling in 0..MAX + 20,
    ) {
        let mut set = Box::new(Spans::EMPTY);
        let mut naive = BTreeSet::new();
        let mut full = false;
        for span in spans {
            set.add(span, ceiling);
            naive.extend(pages(&span));
            full = full || runs(&naive) > ceiling.clamp(1, MAX);
            prop_assert_eq!(is_full(&set), full);
            if full {
                prop_assert!(set.list().is_empty());
            } else {
                check(&set, &naive);
            }
        }
    }

    #[test]
    fn order_does_not_matter(spans in prop::collection::vec(any_span(), 1..40), seed: u64) {
        let (mut one, mut other) = (Box::new(Spans::EMPTY), Box::new(Spans::EMPTY));
        for span in &spans {
            one.add(*span, MAX);
        }
        let mut spans = spans;
        spans.sort_by_key(|span| (span.start ^ seed).wrapping_mul(seed | 1));
        for span in &spans {
            other.add(*span, MAX);
        }
        if !is_full(&one) && !is_full(&other) {
            prop_assert_eq!(one.list(), other.list());
        }
    }

    #[test]
    fn all_is_moved(spans in prop::collection::vec(any_span(), 0..30), ceiling in 1..MAX) {
        let (mut set, mut same, mut to) =
            (Box::new(Spans::EMPTY), Box::new(Spans::EMPTY), Box::new(Spans::EMPTY));
        to.add(Span { start: 7, end: 8, tag: 9 }, 1);
        for span in &spans {
            set.add(*span, ceiling);
            same.add(*span, ceiling);
        }
        set.move_to(&mut to);
        prop_assert_eq!(to.list(), same.list());
        prop_assert!(set.list().is_empty());
        // It was everything if there is no room for anything else.
        let one = Span { start: 0, end: 1, tag: 0 };
        for set in [&mut set, &mut to, &mut same] {
            set.add(one, MAX);
        }
        prop_assert_eq!(set.list(), [one]);
        prop_assert_eq!(to.list(), same.list());
    }
}

#[test]
fn twenty_thousand_neighbours_are_one_span() {
    let mut set = Spans::EMPTY;
    for n in 0..20_480 {
        let start = n << 21;
        set.add(
            Span {
                start,
                end: start + (2 << 20),
                tag: 5,
            },
            1,
        );
    }
    let all = Span {
        start: 0,
        end: 40 << 30,
        tag: 5,
    };
    assert_eq!(set.list(), [all]);
}

#[test]
fn one_alone_replaces_all() {
    let span = |start, tag| Span {
        start,
        end: start + PAGE,
        tag,
    };
    for before in [&[span(0, 1), span(0, 2)][..], &[span(PAGE, 0)], &[]] {
        let mut set = Spans::EMPTY;
        for span in before {
            set.add(*span, 1);
        }
        set.set(span(5 * PAGE, 3));
        assert_eq!(set.list(), [span(5 * PAGE, 3)]);
        set.add(span(6 * PAGE, 3), 1);
        assert_eq!(set.list().len(), 1);
    }
}

#[test]
fn spaces_are_kept_apart() {
    let mut set = Spans::EMPTY;
    let span = |tag| Span {
        start: 0,
        end: PAGE,
        tag,
    };
    for tag in [2, 1, 3, 2] {
        set.add(span(tag), MAX);
    }
    assert_eq!(set.list(), [span(1), span(2), span(3)]);
}

#[test]
fn what_makes_no_sense_is_everything() {
    for (start, end) in [(PAGE, PAGE), (2 * PAGE, PAGE), (u64::MAX, 0)] {
        let mut set = Spans::EMPTY;
        set.add(Span { start, end, tag: 0 }, MAX);
        assert!(is_full(&set));
        let mut set = Spans::EMPTY;
        set.set(Span { start, end, tag: 0 });
        assert!(is_full(&set));
    }
    let mut set = Spans::EMPTY;
    set.add(
        Span {
            start: 0,
            end: u64::MAX,
            tag: u64::MAX,
        },
        1,
    );
    set.add(
        Span {
            start: u64::MAX - 1,
            end: u64::MAX,
            tag: u64::MAX,
        },
        1,
    );
    assert_eq!(set.list().len(), 1);
}
