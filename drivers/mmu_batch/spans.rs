// SPDX-License-Identifier: GPL-2.0

//! What a flush has to throw out of a TLB. Pure logic.

/// The most spans that a set can hold.
pub const MAX: usize = 64;

/// Addresses of one space: `struct nullhz_mmu_batch_span`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// Byte behind the last one.
    pub end: u64,
    /// What the driver has called the space.
    pub tag: u64,
}

impl Span {
    const UNUSED: Span = Span {
        start: 0,
        end: 0,
        tag: 0,
    };

    /// Lies before `other`, and does not touch it.
    fn is_before(&self, other: &Span) -> bool {
        (self.tag, self.end) < (other.tag, other.start)
    }
}

/// A set of addresses that never forgets one: when it has no room for a further span, or is given
/// one that makes no sense, it stands for all addresses of all spaces.
///
/// # Invariants
///
/// - `len <= MAX`; the first `len` of `spans` are not empty, sorted, and do not touch each other.
/// - If `full`, then `len` is 0.
pub struct Spans {
    spans: [Span; MAX],
    len: usize,
    full: bool,
}

impl Spans {
    /// The empty set.
    pub const EMPTY: Spans = Spans {
        spans: [Span::UNUSED; MAX],
        len: 0,
        full: false,
    };

    /// Adds `span`, joined with what it overlaps or touches. More than `ceiling` spans, of which
    /// at least 1 and at most [`MAX`] count, make the set stand for everything.
    pub fn add(&mut self, span: Span, ceiling: usize) {
        if self.full {
            return;
        }
        if span.start >= span.end {
            return self.fill();
        }
        if self.extend(&span) {
            return;
        }
        // The spans at first..behind are joined with the new one.
        let known = self.list();
        let first = known.partition_point(|other| other.is_before(&span));
        let behind = known.partition_point(|other| !span.is_before(other));
        let mut joined = span;
        for other in known.get(first..behind).unwrap_or_default() {
            joined.start = joined.start.min(other.start);
            joined.end = joined.end.max(other.end);
        }
        let len = match behind.saturating_sub(first) {
            0 if self.len >= ceiling.clamp(1, MAX) => return self.fill(),
            // Makes room: everything from `first` on goes up by one.
            0 => {
                let len = self.len.saturating_add(1);
                if let Some(tail) = self.spans.get_mut(first..len) {
                    tail.rotate_right(1);
                }
                len
            }
            // One of those that are joined stays, what is behind them comes down.
            parts => {
                let gone = parts.saturating_sub(1);
                if let Some(tail) = self.spans.get_mut(first..self.len) {
                    tail.rotate_left(gone);
                }
                self.len.saturating_sub(gone)
            }
        };
        if let Some(place) = self.spans.get_mut(first) {
            *place = joined;
        }
        // INVARIANT: sorted, since `joined` is at the place of what it was joined with, or between
        // those before and behind it; it touches none of the others.
        self.len = len;
    }

    /// The simple cases of [`add()`](Self::add): the first span, or one that starts in the last one
    /// or right behind it, as those of an event's intervals do. Returns whether it was one.
    fn extend(&mut self, span: &Span) -> bool {
        let Some(last) = self.len.checked_sub(1) else {
            self.set(*span);
            return true;
        };
        let Some(last) = self.spans.get_mut(last) else {
            return false;
        };
        let joins = last.tag == span.tag && last.start <= span.start && span.start <= last.end;
        if joins {
            // INVARIANT: there is none behind the last one that it could touch now.
            last.end = last.end.max(span.end);
        }
        joins
    }

    /// Makes the set that of `span` alone.
    pub fn set(&mut self, span: Span) {
        if span.start >= span.end {
            return self.fill();
        }
        let [first, ..] = &mut self.spans;
        *first = span;
        // INVARIANT: one, which is not empty.
        self.len = 1;
        self.full = false;
    }

    /// Makes the set stand for everything.
    pub fn fill(&mut self) {
        // INVARIANT: a full set has no spans.
        self.len = 0;
        self.full = true;
    }

    /// Moves everything to `to`, whose former content is lost, and is empty then.
    pub fn move_to(&mut self, to: &mut Spans) {
        let [to_first, to_rest @ ..] = &mut to.spans;
        if let [first, rest @ ..] = self.list() {
            *to_first = *first;
            // Mostly there is one, which is not worth a call of memcpy().
            if !rest.is_empty() {
                for (to, from) in to_rest.iter_mut().zip(rest) {
                    *to = *from;
                }
            }
        }
        // INVARIANT: those of `self`.
        to.len = self.len;
        to.full = self.full;
        // INVARIANT: none.
        self.len = 0;
        self.full = false;
    }

    /// The spans, sorted by tag and start; none touches another. None also for everything: who
    /// flushes has at least one ticket, and so at least one span.
    pub fn list(&self) -> &[Span] {
        self.spans.get(..self.len).unwrap_or_default()
    }
}
