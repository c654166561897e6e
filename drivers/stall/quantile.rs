// SPDX-License-Identifier: GPL-2.0

//! How long a rank's intervals are: two quantiles of the last few thousand, and the longest of the
//! last week. Pure logic, fixed size, no allocation.

/// Sub-bins of an octave: a bin's upper edge is at most 1/16 above any value in it.
const SUB: u32 = 16;
/// Values are counted in units of 2^20 ns, about a millisecond; the sampler sees ten of them.
const UNIT: u32 = 20;
/// Octaves above the first [`SUB`] units, which have a bin each: up to 2^42 ns, 73 minutes.
const OCTAVES: u32 = 18;
const BINS: usize = (SUB + OCTAVES * SUB) as usize;

/// So many values halve all counts: what counts is the last 4,096 to 8,192.
pub const WINDOW: u32 = 8192;

/// The bin of `ns`.
fn bin(ns: u64) -> usize {
    let units = ns >> UNIT;
    let octave = match units.checked_ilog2() {
        Some(log) => log.saturating_sub(SUB.ilog2()),
        None => 0,
    };
    // From SUB up to below 2 * SUB in every octave but the first, which begins at 0.
    let sub = units >> octave;
    let index = u64::from(octave * SUB) + sub;
    (index as usize).min(BINS - 1)
}

/// The smallest value above all those in bin `index`, ns.
fn edge(index: usize) -> u64 {
    let next = index.min(BINS - 1) as u64 + 1;
    let octave = (next / u64::from(SUB)).saturating_sub(1);
    let sub = next - octave * u64::from(SUB);
    sub << (u64::from(UNIT) + octave)
}

/// Where a quantile is.
///
/// # Invariants
///
/// `below` is the number of values in bins below `bin`.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    bin: usize,
    below: u32,
}

impl Cursor {
    const START: Self = Cursor { bin: 0, below: 0 };

    /// Moves to the bin that holds value number `rank` (1, 2, ...) of `counts`, smallest first.
    fn seek(&mut self, counts: &[u16; BINS], rank: u32) {
        let of = |bin: usize| counts.get(bin).map_or(0, |count| u32::from(*count));
        while self.below >= rank && self.bin > 0 {
            self.bin -= 1;
            self.below = self.below.saturating_sub(of(self.bin));
        }
        while self.below.saturating_add(of(self.bin)) < rank && self.bin < BINS - 1 {
            self.below = self.below.saturating_add(of(self.bin));
            self.bin += 1;
        }
    }

    /// Takes note of one more value in `bin`.
    fn added(&mut self, bin: usize) {
        if bin < self.bin {
            self.below = self.below.saturating_add(1);
        }
    }
}

/// The 90th and the 99.9th percentile of the last few thousand values.
///
/// A histogram with bins of equal ratio and two cursors in it; when it is full, every count is
/// halved, so that it follows a drift. Amortised cost of a value: a few steps of a cursor.
#[derive(Clone)]
pub struct Quantiles {
    counts: [u16; BINS],
    total: u32,
    typical: Cursor,
    rare: Cursor,
}

impl Quantiles {
    /// Nothing yet.
    pub const EMPTY: Self = Quantiles {
        counts: [0; BINS],
        total: 0,
        typical: Cursor::START,
        rare: Cursor::START,
    };

    /// Adds a value.
    pub fn add(&mut self, ns: u64) {
        let bin = bin(ns);
        if let Some(count) = self.counts.get_mut(bin) {
            *count = count.saturating_add(1);
        }
        self.total = self.total.saturating_add(1);
        self.typical.added(bin);
        self.rare.added(bin);
        if self.total >= WINDOW {
            self.halve();
        }
        self.typical
            .seek(&self.counts, self.total - self.total / 10);
        self.rare.seek(&self.counts, self.total - self.total / 1000);
    }

    fn halve(&mut self) {
        let mut total = 0u32;
        for count in &mut self.counts {
            *count >>= 1;
            total = total.saturating_add(u32::from(*count));
        }
        self.total = total;
        self.typical = Cursor::START;
        self.rare = Cursor::START;
    }

    /// The 90th percentile, ns: at least the exact one, and at most a sixteenth (and 2 ms) more.
    pub fn typical(&self) -> u64 {
        edge(self.typical.bin)
    }

    /// The 99.9th percentile, ns, as exact as the other one.
    pub fn rare(&self) -> u64 {
        edge(self.rare.bin)
    }
}

/// Slices that [`Longest`] remembers, of a day each.
const SLICES: usize = 8;
const SLICE_NS: u64 = 24 * 3600 * 1_000_000_000;

/// The longest value of the last week, exactly: it counts for at least seven days and at most
/// eight.
#[derive(Clone, Copy, Debug)]
pub struct Longest {
    /// The newest slice first.
    slices: [u64; SLICES],
    newest: u64,
}

impl Longest {
    /// Nothing yet.
    pub const EMPTY: Self = Longest {
        slices: [0; SLICES],
        newest: 0,
    };

    /// Adds a value at `now`, ns.
    pub fn add(&mut self, now: u64, ns: u64) {
        self.forget(now);
        if let Some(newest) = self.slices.first_mut() {
            *newest = ns.max(*newest);
        }
    }

    fn forget(&mut self, now: u64) {
        let slice = now / SLICE_NS;
        let gone = slice.saturating_sub(self.newest).min(SLICES as u64) as usize;
        self.slices.rotate_right(gone);
        for value in self.slices.iter_mut().take(gone) {
            *value = 0;
        }
        self.newest = self.newest.max(slice);
    }

    /// The longest as of the last [`Longest::add`], 0: nothing yet.
    pub fn get(&self) -> u64 {
        self.slices.iter().fold(0, |longest, ns| longest.max(*ns))
    }
}
