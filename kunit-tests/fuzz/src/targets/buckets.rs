// SPDX-License-Identifier: GPL-2.0

//! Leaky buckets against lists of what fell in.

use crate::input::Input;
use crate::mce::buckets::{Arena, Bucket, Columns, Leaky, Table, Window};

/// Memory from the host's allocator.
pub(super) enum Heap {}

impl Arena for Heap {
    type Buffer<T: Copy> = Vec<T>;
    type Error = std::convert::Infallible;

    fn filled<T: Copy>(len: usize, value: T) -> Result<Vec<T>, Self::Error> {
        Ok(vec![value; len])
    }
}

/// A bucket that keeps everything.
#[derive(Default)]
pub(super) struct Exact {
    /// When, and how many.
    errors: Vec<(u64, u32)>,
    now: u64,
    trips: u8,
}

/// Slices of a window.
const SLICES: u64 = 8;

/// The slice of a window that a time is in. What the window's length is, only its `Debug` tells.
fn slice(window: &Window, ns: u64) -> u64 {
    let text = format!("{window:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    ns / digits.parse::<u64>().unwrap()
}

impl Exact {
    pub(super) fn level(&mut self, window: &Window, now: u64) -> u32 {
        // A clock that goes back stands still.
        self.now = self.now.max(now);
        let oldest = slice(window, self.now).saturating_sub(SLICES);
        let counts = |&&(time, _): &&(u64, u32)| slice(window, time) >= oldest;
        let sum: u64 = self
            .errors
            .iter()
            .filter(counts)
            .map(|&(_, count)| u64::from(count))
            .sum();
        sum.try_into().unwrap_or(u32::MAX)
    }

    pub(super) fn fill(
        &mut self,
        window: &Window,
        now: u64,
        errors: u32,
        threshold: u32,
    ) -> (u32, u8) {
        let before = self.level(window, now);
        if before == 0 || u64::from(before) * 2 < u64::from(threshold) {
            self.trips = 0;
        }
        self.errors.push((self.now, errors));
        let count = self.level(window, now);
        let limits = (0..32).filter(|n| u64::from(count) >= u64::from(threshold) << n);
        let reached = if threshold == 0 {
            0
        } else {
            limits.count() as u8
        };
        let news = reached > self.trips;
        self.trips = self.trips.max(reached);
        (count, if news { reached } else { 0 })
    }
}

fn one_bucket(input: &mut Input<'_>) {
    let seconds = input.extreme32();
    let window = Window::from_secs(seconds);
    let length = u64::from(seconds.max(1)) * 1_000_000_000;
    let (mut bucket, mut exact) = (Bucket::EMPTY, Exact::default());
    let (mut now, mut latest) = (0u64, 0);
    let mut all = Vec::new();
    while !input.is_empty() && all.len() < 64 {
        now = match input.below(4) {
            0 => now.saturating_add(length / 8 * input.below(10)),
            1 => now.saturating_sub(input.u32().into()),
            2 => input.extreme(),
            _ => now.saturating_add(input.u32().into()),
        };
        latest = now.max(latest);
        if input.below(4) == 0 {
            assert_eq!(bucket.level(&window, now), exact.level(&window, now));
            assert_eq!(bucket.is_dry(&window, now), exact.level(&window, now) == 0);
            continue;
        }
        let (errors, threshold) = (input.extreme32(), input.extreme32());
        let filled = bucket.fill(&window, now, errors, threshold);
        assert_eq!(
            (filled.count, filled.trips),
            exact.fill(&window, now, errors, threshold)
        );
        // The promise: for a window, and not for longer than an eighth more.
        all.push((latest, u64::from(errors)));
        let within = |span: u64| -> u64 {
            let counts = |&&(time, _): &&(u64, u64)| latest - time < span;
            all.iter().filter(counts).map(|&(_, count)| count).sum()
        };
        assert!(u64::from(filled.count) >= within(length).min(u32::MAX.into()));
        assert!(u64::from(filled.count) <= within(length.saturating_add(length / 8)));
    }
}

fn columns(input: &mut Input<'_>) {
    let window = Window::from_secs(input.u8().into());
    let mut columns = Columns::EMPTY;
    // The columns that have a place, and when each was seen last.
    let mut seen: Vec<(u32, u64)> = Vec::new();
    let mut now = 0u64;
    let mut trips = 0u8;
    while !input.is_empty() {
        now = now.saturating_add(input.extreme() % (1 << 40));
        let (column, threshold) = (input.below(12) as u32, u32::from(input.u8()));
        let oldest = slice(&window, now).saturating_sub(SLICES);
        seen.retain(|(_, time)| slice(&window, *time) >= oldest);
        if seen.len() as u64 * 2 < u64::from(threshold) || seen.is_empty() {
            trips = 0;
        }
        if let Some(known) = seen.iter_mut().find(|(known, _)| *known == column) {
            known.1 = now;
        } else if seen.len() < 8 {
            seen.push((column, now));
        }
        let filled = columns.fill(&window, now, column, threshold);
        assert_eq!(filled.count as usize, seen.len());
        let limits = (0..32).filter(|n| seen.len() as u64 >= u64::from(threshold) << n);
        let reached = if threshold == 0 {
            0
        } else {
            limits.count() as u8
        };
        assert_eq!(filled.trips, if reached > trips { reached } else { 0 });
        trips = trips.max(reached);
    }
}

/// One set of a table: the eight used last are there.
fn table(input: &mut Input<'_>) {
    let Ok(mut table) = Table::<Heap, u32>::new(1, 7);
    // The least recently used first.
    let mut model: Vec<(u64, u32)> = Vec::new();
    while !input.is_empty() {
        let (what, key, value) = (input.below(16), input.below(24), input.u8().into());
        let known = model.iter().position(|(known, _)| *known == key);
        match what {
            0 => {
                table.clear();
                model.clear();
            }
            1..6 => {
                let found = table.get([key, 0]).copied();
                assert_eq!(found, known.map(|at| model[at].1));
            }
            _ => {
                let expected = known.map(|at| model.remove(at).1);
                let gone = (model.len() == 8).then(|| model.remove(0).1);
                let (there, evicted) = table.entry([key, 0]).unwrap();
                assert_eq!((*there, evicted), (expected.unwrap_or(7), gone));
                *there = value;
                model.push((key, value));
            }
        }
    }
}

pub(super) fn buckets(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    match input.below(3) {
        0 => one_bucket(input),
        1 => columns(input),
        _ => table(input),
    }
}
