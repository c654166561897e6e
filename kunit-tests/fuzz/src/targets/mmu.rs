// SPDX-License-Identifier: GPL-2.0

//! Batched invalidation: spans, tickets, deferred unmaps.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeSet, VecDeque};

use crate::input::Input;
use nullhz_mmu_batch_host::combine::{
    is_finished, wait, Caller, Owed, Pending, Platform, Queue, Round, Ticket, Unanswered, Waited,
    Word, Zap,
};
use nullhz_mmu_batch_host::gather::{Cause, Due, Gather, Kept, Limits, Next, Unmap, CAUSES};
use nullhz_mmu_batch_host::spans::{Span, Spans, MAX};

/// Runs of neighbours; a page is an address here.
fn runs(pages: &BTreeSet<(u64, u64)>) -> usize {
    let first = |(tag, page): &&(u64, u64)| {
        page.checked_sub(1)
            .is_none_or(|before| !pages.contains(&(*tag, before)))
    };
    pages.iter().filter(first).count()
}

/// Where the addresses are: at both ends of what there is, and in between.
const BASES: &[u64] = &[0, 1 << 32, u64::MAX - 256];

pub(super) fn spans(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let mut set = Box::new(Spans::EMPTY);
    let mut naive = BTreeSet::new();
    let mut full = false;
    while !input.is_empty() {
        let what = input.u8();
        let tag = input.pick(&[0, 1, u64::MAX]);
        if what == 255 {
            let mut moved = Box::new(Spans::EMPTY);
            moved.add(
                Span {
                    start: 1,
                    end: 2,
                    tag: 9,
                },
                MAX,
            );
            set.move_to(&mut moved);
            assert!(set.list().is_empty());
            // It has taken everything, that it is full too.
            let one = Span {
                start: 3,
                end: 4,
                tag: 2,
            };
            set.add(one, MAX);
            assert_eq!(set.list(), [one]);
            set = moved;
        } else if what == 254 {
            set.fill();
            full = true;
        } else {
            let base = BASES[usize::from(what & 3) % BASES.len()];
            let start = base + u64::from(input.u8());
            let end = start.saturating_add(input.below(40));
            let ceiling = usize::from(what >> 2) + usize::from(what >= 252) * 1000;
            set.add(Span { start, end, tag }, ceiling);
            full = full || start >= end;
            naive.extend((start..end).map(|page| (tag, page)));
            full = full || runs(&naive) > ceiling.clamp(1, MAX) && grew(&naive, &set);
        }
        if full {
            assert!(set.list().is_empty());
            continue;
        }
        let list = set.list();
        assert_eq!(list.len(), runs(&naive));
        assert!(list.len() <= MAX);
        assert!(list.iter().all(|span| span.start < span.end));
        let apart = |pair: &[Span]| (pair[0].tag, pair[0].end) < (pair[1].tag, pair[1].start);
        assert!(list.windows(2).all(apart));
        let pages = list
            .iter()
            .flat_map(|span| (span.start..span.end).map(|page| (span.tag, page)));
        assert!(pages.eq(naive.iter().copied()));
    }
}

/// A lower ceiling makes a set give up only when it would have to grow.
fn grew(naive: &BTreeSet<(u64, u64)>, set: &Spans) -> bool {
    set.list().len() != runs(naive)
}

struct Atomic(Cell<u64>);

impl Word for Atomic {
    fn load_acquire(&self) -> u64 {
        self.0.get()
    }

    fn store_release(&self, value: u64) {
        // What is finished stays finished.
        assert!(value > self.0.get());
        self.0.set(value);
    }

    fn add_full(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }
}

const SPACES: usize = 2;
const PAGES: usize = 48;

/// A device: its page tables, and a TLB that knows when each entry was filled.
struct Device {
    pending: RefCell<Box<Pending>>,
    lead: RefCell<Box<Spans>>,
    finished: Atomic,
    released: Atomic,
    waiting: Atomic,
    hurried: Atomic,
    mapped: RefCell<[[bool; PAGES]; SPACES]>,
    cached: RefCell<[[Option<u64>; PAGES]; SPACES]>,
    now: Cell<u64>,
    ceiling: Cell<usize>,
    window: Cell<u64>,
    deaf: Cell<u32>,
    dead: Cell<u32>,
    rounds: RefCell<Vec<Round>>,
}

impl Device {
    fn new() -> Self {
        Device {
            pending: RefCell::new(Box::new(Pending::NEW)),
            lead: RefCell::new(Box::new(Spans::EMPTY)),
            finished: Atomic(Cell::new(0)),
            released: Atomic(Cell::new(0)),
            waiting: Atomic(Cell::new(0)),
            hurried: Atomic(Cell::new(0)),
            mapped: RefCell::new([[false; PAGES]; SPACES]),
            cached: RefCell::new([[None; PAGES]; SPACES]),
            now: Cell::new(1),
            ceiling: Cell::new(MAX),
            window: Cell::new(0),
            deaf: Cell::new(0),
            dead: Cell::new(0),
            rounds: RefCell::new(Vec::new()),
        }
    }

    fn tick(&self) -> u64 {
        self.now.set(self.now.get() + 1);
        self.now.get()
    }

    fn access(&self, space: usize, page: usize) {
        if self.mapped.borrow()[space][page] {
            self.cached.borrow_mut()[space][page].get_or_insert(self.now.get());
        }
    }
}

/// Counts down; whether it was not at 0.
fn one_of(left: &Cell<u32>) -> bool {
    let some = left.get() > 0;
    left.set(left.get().saturating_sub(1));
    some
}

impl Platform for Device {
    type Word = Atomic;
    type Lead<'a> = Lead<'a>;

    fn pending<R>(&self, f: impl FnOnce(&mut Pending) -> R) -> R {
        f(&mut self.pending.borrow_mut())
    }

    fn finished(&self) -> &Atomic {
        &self.finished
    }

    fn released(&self) -> &Atomic {
        &self.released
    }

    fn waiting(&self) -> &Atomic {
        &self.waiting
    }

    fn hurried(&self) -> &Atomic {
        &self.hurried
    }

    fn lead(&self) -> Lead<'_> {
        Lead(self.lead.borrow_mut())
    }

    fn try_lead(&self) -> Option<Lead<'_>> {
        self.lead.try_borrow_mut().ok().map(Lead)
    }

    fn sleep(&self, _: Queue, until: impl Fn() -> bool) {
        assert!(until(), "nobody else is there");
    }

    fn wake_all(&self, _: Queue) {}

    fn wake_one(&self, _: Queue) {}

    fn flush(&self, spans: &[Span]) -> Result<(), Unanswered> {
        if one_of(&self.deaf) {
            return Err(Unanswered);
        }
        for (space, pages) in self.cached.borrow_mut().iter_mut().enumerate() {
            for (page, entry) in pages.iter_mut().enumerate() {
                let meant = |span: &Span| {
                    span.tag == space as u64 && (span.start..span.end).contains(&(page as u64))
                };
                if spans.is_empty() || spans.iter().any(meant) {
                    *entry = None;
                }
            }
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), Unanswered> {
        if one_of(&self.dead) {
            return Err(Unanswered);
        }
        *self.cached.borrow_mut() = [[None; PAGES]; SPACES];
        Ok(())
    }

    fn back_off(&self, failed: u32) {
        assert!(failed > 0);
    }

    fn flushed(&self, round: &Round) {
        self.rounds.borrow_mut().push(*round);
    }

    fn ceiling(&self) -> usize {
        self.ceiling.get()
    }

    fn window_ns(&self) -> u64 {
        self.window.get()
    }

    fn now_ns(&self) -> u64 {
        self.tick()
    }

    fn pause_ns(&self, ns: u64) {
        self.now.set(self.now.get() + ns);
    }
}

struct Lead<'a>(RefMut<'a, Box<Spans>>);

impl std::ops::Deref for Lead<'_> {
    type Target = Spans;

    fn deref(&self) -> &Spans {
        &self.0
    }
}

impl std::ops::DerefMut for Lead<'_> {
    fn deref_mut(&mut self) -> &mut Spans {
        &mut self.0
    }
}

/// What was zapped, and when.
struct Zapped {
    space: usize,
    pages: std::ops::Range<usize>,
    at: u64,
    ticket: Option<Ticket>,
}

impl Zapped {
    /// Nothing of it that was cached before may be left.
    fn check(&self, device: &Device) {
        let cached = device.cached.borrow();
        for entry in cached[self.space][self.pages.clone()].iter().flatten() {
            assert!(*entry > self.at, "the device still sees what was zapped");
        }
    }
}

pub(super) fn combine(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let device = Device::new();
    let mut last = [Ticket::FINISHED; SPACES];
    let mut zapped: Vec<Zapped> = Vec::new();
    let mut tickets = 0u64;
    let mut waits = [0u64; 3];
    while !input.is_empty() {
        let what = input.u8();
        let space = usize::from(what & 1);
        let first = input.below(PAGES as u16) as usize;
        let pages = first..PAGES.min(first + 1 + input.below(12) as usize);
        device.tick();
        match what >> 1 & 7 {
            0 | 1 => {
                for page in pages {
                    device.mapped.borrow_mut()[space][page] = true;
                    if what & 16 != 0 {
                        device.access(space, page);
                    }
                }
            }
            2 => pages.for_each(|page| device.access(space, page)),
            3 | 4 => {
                let span = Span {
                    start: pages.start as u64,
                    end: pages.end as u64,
                    tag: space as u64,
                };
                let zap = Zap::begin(&device, span);
                let mut mapped = device.mapped.borrow_mut();
                let live = mapped[space][pages.clone()].iter().any(|mapped| *mapped);
                mapped[space][pages.clone()].fill(false);
                drop(mapped);
                tickets += u64::from(live);
                let at_once = what & 32 != 0;
                let at = device.now.get();
                let owed = match at_once {
                    true => zap.done_at_once(&device, span, &mut last[space], live),
                    false => zap
                        .done(&device, span, &mut last[space], live)
                        .map_or(Owed::Nothing, Owed::Ticket),
                };
                let ticket = match owed {
                    Owed::Nothing => None,
                    Owed::Ticket(ticket) => Some(ticket),
                    Owed::Flush(closed) => {
                        assert!(at_once && live && device.window.get() == 0);
                        assert!(!is_finished(&device, last[space]));
                        closed.flush();
                        waits[Waited::Led as usize] += 1;
                        Some(last[space])
                    }
                };
                let zap = Zapped {
                    space,
                    pages,
                    at,
                    ticket,
                };
                if ticket.is_none() {
                    zap.check(&device);
                }
                zapped.push(zap);
            }
            5 => {
                device.ceiling.set(input.u8().into());
                device.window.set(input.u8().into());
            }
            6 => {
                device.deaf.set(input.below(3) as u32);
                device.dead.set(input.below(4) as u32);
            }
            _ => {
                let caller = input.pick(&[Caller::Patient, Caller::Reclaiming, Caller::RealTime]);
                if let Some(zap) = zapped.get(first) {
                    if let Some(ticket) = zap.ticket {
                        let before = is_finished(&device, ticket);
                        let waited = wait(&device, ticket, || caller);
                        assert_eq!(waited, if before { Waited::Not } else { Waited::Led });
                        assert!(is_finished(&device, ticket));
                        waits[waited as usize] += 1;
                    }
                }
            }
        }
        for zap in &zapped {
            if zap.ticket.is_none_or(|ticket| is_finished(&device, ticket)) {
                zap.check(&device);
            }
        }
    }
    let rounds = device.rounds.borrow();
    assert_eq!(rounds.len() as u64, waits[Waited::Led as usize]);
    assert!(rounds
        .iter()
        .zip(1..)
        .all(|(round, n)| round.generation == n));
    assert!(rounds.iter().map(|round| round.tickets).sum::<u64>() <= tickets);
}

pub(super) fn gather(bytes: &[u8]) {
    let input = &mut Input::new(bytes);
    let places = 1 + input.below(12) as usize;
    let free: Vec<Option<Kept<u64>>> = (0..places).map(|_| None).collect();
    let mut gather = Gather::new(free).unwrap();
    // Ticket, pages, what is held, deadline.
    let mut list: VecDeque<(u64, u64, u64, u64)> = VecDeque::new();
    let (mut deferred, mut drains) = ((0u64, 0u64), [0; CAUSES]);
    let mut ticket = 1;
    while !input.is_empty() {
        let now = input.extreme();
        match input.below(6) {
            0..3 => {
                let limits = Limits {
                    window_ns: input.extreme(),
                    unmaps: input.u8().into(),
                    pages: input.extreme(),
                };
                let (pages, held) = (input.extreme(), input.u64());
                ticket += input.below(2);
                let unmap = Unmap {
                    pages,
                    ticket: Ticket::from_raw(ticket),
                    held,
                };
                deferred = (deferred.0 + 1, deferred.1.saturating_add(pages));
                match gather.push(unmap, now, &limits) {
                    Err(back) => {
                        assert_eq!(list.len(), places);
                        assert_eq!(back.held, held);
                    }
                    Ok(next) => {
                        let deadline = now.saturating_add(limits.window_ns);
                        list.push_back((ticket, pages, held, deadline));
                        let many = list.len() >= limits.unmaps.min(places);
                        let all = gather.pages() >= limits.pages;
                        let expected = match (list.len(), limits.window_ns) {
                            _ if many || all => Next::Drain(Cause::Size),
                            (_, 0) => Next::Drain(Cause::Time),
                            (1, _) => Next::WakeAt(deadline),
                            _ => Next::Kept,
                        };
                        assert_eq!(next, expected);
                    }
                }
            }
            3 => {
                let finished = ticket.saturating_sub(input.below(3));
                let popped = gather.pop(Ticket::from_raw(finished));
                let first = list.pop_front_if(|(ticket, ..)| *ticket <= finished);
                let told = popped.map(|unmap| (unmap.ticket.into_raw(), unmap.pages, unmap.held));
                assert_eq!(
                    told,
                    first.map(|(ticket, pages, held, _)| (ticket, pages, held))
                );
            }
            4 => {
                let cause = input.pick(&[
                    Cause::Submit,
                    Cause::Reuse,
                    Cause::Size,
                    Cause::Time,
                    Cause::Shrinker,
                    Cause::Release,
                ]);
                gather.count(cause);
                drains[cause as usize] += 1;
            }
            _ => {
                let expected = match (list.front(), list.back()) {
                    (Some((.., deadline)), _) if now < *deadline => Due::At(*deadline),
                    (_, Some((ticket, ..))) => Due::Now(Ticket::from_raw(*ticket)),
                    _ => Due::Never,
                };
                assert_eq!(gather.due(now), expected);
            }
        }
        assert_eq!(
            (gather.len(), gather.is_empty()),
            (list.len(), list.is_empty())
        );
        assert_eq!(gather.deferred(), deferred);
        assert_eq!(gather.drains(), &drains);
        let last = list.back().map(|(ticket, ..)| Ticket::from_raw(*ticket));
        assert_eq!(gather.last_ticket(), last);
        let sum = list
            .iter()
            .try_fold(0u64, |sum, (_, pages, ..)| sum.checked_add(*pages));
        match sum {
            Some(sum) => assert_eq!(gather.pages(), sum),
            // It has said that there is much; what is left is counted low, not high.
            None => return,
        }
    }
}
