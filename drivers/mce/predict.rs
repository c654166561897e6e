// SPDX-License-Identifier: GPL-2.0

//! From single errors to a verdict on the node.
//!
//! Uncorrected errors speak for themselves. Corrected ones are put into leaky buckets (of their
//! page, their DIMM, their bank, their socket, of a storm) and only a bucket that fills says
//! something. The defaults are common practice: mcelog's 10 per DIMM and 100 per socket in 24
//! hours, two in one page of studies of DRAM in the field, five of the kernel's CMCI storm.
//!
//! The crate that includes this file has the fault ABI as `crate::abi`.

use super::buckets::{Arena, Bucket, Columns, Filled, Key, Leaky, Table, Window};
use super::decode::intel;
use super::decode::location::{is_memory_error, locate, Location};
use super::decode::mcacod::{Code, MemoryOperation};
use super::decode::record::{Record, ADDRV, OVER};
use super::decode::severity::{Grade, Graded};
use super::decode::smca;
use crate::abi::{mce as reason, Level};

/// When corrected errors mean something. A threshold of 0 switches its bucket off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Corrected errors of one page within the window.
    pub(crate) page: u32,
    /// Of one DIMM, or the smallest part that the records tell apart, within the window.
    pub(crate) dimm: u32,
    /// Of one bank within the window.
    pub(crate) bank: u32,
    /// Of one socket within the window.
    pub(crate) socket: u32,
    /// The window, seconds.
    pub(crate) window_s: u32,
    /// Records of one bank within the storm window.
    pub(crate) storm: u32,
    /// The storm window, seconds.
    pub(crate) storm_window_s: u32,
    /// Different columns of one row within the window.
    pub(crate) columns: u32,
    /// Corrected errors of one bank that overwrote others, within the window.
    pub(crate) overflow: u32,
    /// Command or address parity errors of one bank within the window.
    pub(crate) parity: u32,
    /// Times that one bucket reaches a limit (its threshold, then twice as much, and so on) until
    /// the node counts as about to fail.
    pub(crate) escalate: u32,
}

impl Thresholds {
    /// The defaults.
    pub(crate) const DEFAULT: Self = Thresholds {
        page: 2,
        dimm: 10,
        bank: 20,
        socket: 100,
        window_s: 24 * 60 * 60,
        storm: 5,
        storm_window_s: 64,
        columns: 2,
        overflow: 1,
        parity: 1,
        escalate: 3,
    };
}

/// What a record means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How bad.
    pub(crate) level: Level,
    /// Why: `NULLHZ_MCE_R_*`.
    pub(crate) reason: u32,
    /// Corrected errors of the page in its bucket.
    pub(crate) page_count: u32,
    /// Of the DIMM.
    pub(crate) dimm_count: u32,
    /// Of the bank.
    pub(crate) bank_count: u32,
    /// Of the socket.
    pub(crate) socket_count: u32,
    /// Buckets that still held something and had to go.
    pub(crate) evicted: u32,
}

impl Verdict {
    const QUIET: Self = Verdict {
        level: Level::Watch,
        reason: 0,
        page_count: 0,
        dimm_count: 0,
        bank_count: 0,
        socket_count: 0,
        evicted: 0,
    };

    /// The level of an event of a node that went on after the record.
    ///
    /// Whatever the record says, there is still time for a snapshot, which only IMMINENT asks for.
    pub(crate) fn live_level(&self) -> Level {
        self.level.min(Level::Imminent)
    }

    fn raise(&mut self, level: Level, reason: u32) {
        self.level = self.level.max(level);
        self.reason |= reason;
    }

    /// Takes in what had to go for another bucket, if it still held something.
    fn evict(&mut self, gone: Option<impl Leaky>, window: &Window, now_ns: u64) {
        if gone.is_some_and(|gone| !gone.is_dry(window, now_ns)) {
            self.evicted += 1;
            self.reason |= reason::R_EVICTED;
        }
    }

    /// Takes in what an error did to one bucket.
    fn take(&mut self, filled: Filled, reason: u32, thresholds: &Thresholds) -> u32 {
        if filled.trips != 0 {
            if thresholds.escalate != 0 && u32::from(filled.trips) >= thresholds.escalate {
                self.raise(Level::Imminent, reason | reason::R_ESCALATED);
            } else {
                self.raise(Level::Degrading, reason);
            }
        }
        filled.count
    }
}

/// The buckets of a node.
pub(crate) struct Predictor<A: Arena> {
    pages: Table<A, Bucket>,
    dimms: Table<A, Bucket>,
    banks: Table<A, Bucket>,
    sockets: Table<A, Bucket>,
    storms: Table<A, Bucket>,
    overflows: Table<A, Bucket>,
    parities: Table<A, Bucket>,
    rows: Table<A, Columns>,
    window: Window,
    storm_window: Window,
}

/// Sets of eight entries.
const PAGE_SETS: usize = 256;
const PART_SETS: usize = 32;
const ROW_SETS: usize = 64;

impl<A: Arena> Predictor<A> {
    /// Empty buckets.
    pub(crate) fn new() -> Result<Self, A::Error> {
        Ok(Predictor {
            pages: Table::new(PAGE_SETS, Bucket::EMPTY)?,
            dimms: Table::new(PART_SETS, Bucket::EMPTY)?,
            banks: Table::new(PART_SETS, Bucket::EMPTY)?,
            sockets: Table::new(PART_SETS, Bucket::EMPTY)?,
            storms: Table::new(PART_SETS, Bucket::EMPTY)?,
            overflows: Table::new(PART_SETS, Bucket::EMPTY)?,
            parities: Table::new(PART_SETS, Bucket::EMPTY)?,
            rows: Table::new(ROW_SETS, Columns::EMPTY)?,
            window: Window::from_secs(Thresholds::DEFAULT.window_s),
            storm_window: Window::from_secs(Thresholds::DEFAULT.storm_window_s),
        })
    }

    /// Counts from 0 where a window has changed: the slices of another window mean other times.
    fn follow(&mut self, thresholds: &Thresholds) {
        let window = Window::from_secs(thresholds.window_s);
        if self.window != window {
            self.window = window;
            for table in [
                &mut self.pages,
                &mut self.dimms,
                &mut self.banks,
                &mut self.sockets,
                &mut self.overflows,
                &mut self.parities,
            ] {
                table.clear();
            }
            self.rows.clear();
        }
        let storm_window = Window::from_secs(thresholds.storm_window_s);
        if self.storm_window != storm_window {
            self.storm_window = storm_window;
            self.storms.clear();
        }
    }

    /// Judges a record that was graded as `graded`. `now_ns` is of one clock that does not jump.
    pub(crate) fn judge(
        &mut self,
        record: &Record,
        graded: &Graded,
        now_ns: u64,
        thresholds: &Thresholds,
    ) -> Verdict {
        self.follow(thresholds);
        let mut verdict = Verdict::QUIET;
        let place = Place::of(record);
        match graded.grade {
            Grade::Invalid => return verdict,
            Grade::Corrected => self.count(record, &place, now_ns, thresholds, &mut verdict),
            // Not the corrected errors' business, but they belong to the picture.
            _ => self.look(&place, now_ns, &mut verdict),
        }
        match graded.grade {
            Grade::Invalid | Grade::Corrected => {}
            Grade::Deferred if record.is_spurious() => {}
            Grade::Deferred | Grade::ActionOptional | Grade::ActionRequired => {
                verdict.raise(Level::Imminent, reason::R_GRADE);
            }
            Grade::HiddenUncorrected => {
                verdict.raise(Level::Imminent, reason::R_GRADE | reason::R_HIDDEN_UC);
            }
            Grade::Fatal => verdict.raise(Level::Fatal, reason::R_GRADE),
        }
        verdict
    }

    /// Puts a corrected error into its buckets.
    fn count(
        &mut self,
        record: &Record,
        place: &Place,
        now_ns: u64,
        thresholds: &Thresholds,
        verdict: &mut Verdict,
    ) {
        let errors = record.corrected_count();
        let (window, storm_window) = (self.window, self.storm_window);
        let fill = |table: &mut Table<A, Bucket>,
                    verdict: &mut Verdict,
                    window: &Window,
                    key: Key,
                    errors: u32,
                    threshold: u32,
                    why: u32| {
            let Some((bucket, gone)) = table.entry(key) else {
                return 0;
            };
            let filled = bucket.fill(window, now_ns, errors, threshold);
            verdict.evict(gone, window, now_ns);
            verdict.take(filled, why, thresholds)
        };

        if let Some(key) = place.page {
            verdict.page_count = fill(
                &mut self.pages,
                verdict,
                &window,
                key,
                errors,
                thresholds.page,
                reason::R_PAGE,
            );
        }
        if let Some(key) = place.dimm {
            verdict.dimm_count = fill(
                &mut self.dimms,
                verdict,
                &window,
                key,
                errors,
                thresholds.dimm,
                reason::R_DIMM,
            );
        }
        verdict.bank_count = fill(
            &mut self.banks,
            verdict,
            &window,
            place.bank,
            errors,
            thresholds.bank,
            reason::R_BANK,
        );
        verdict.socket_count = fill(
            &mut self.sockets,
            verdict,
            &window,
            place.socket,
            errors,
            thresholds.socket,
            reason::R_SOCKET,
        );
        // A storm is one of reports, whatever number of errors each one stands for.
        fill(
            &mut self.storms,
            verdict,
            &storm_window,
            place.bank,
            1,
            thresholds.storm,
            reason::R_STORM,
        );
        if record.has(OVER) {
            fill(
                &mut self.overflows,
                verdict,
                &window,
                place.bank,
                1,
                thresholds.overflow,
                reason::R_OVERFLOW,
            );
        }
        if is_command_parity(record) {
            fill(
                &mut self.parities,
                verdict,
                &window,
                place.bank,
                errors,
                thresholds.parity,
                reason::R_PARITY,
            );
        }
        if let Some((key, column)) = place.cell {
            if let Some((columns, gone)) = self.rows.entry(key) {
                let filled = columns.fill(&window, now_ns, column, thresholds.columns);
                verdict.evict(gone, &window, now_ns);
                verdict.take(filled, reason::R_COLUMNS, thresholds);
            }
        }
    }

    /// Reads the buckets without putting anything in.
    fn look(&mut self, place: &Place, now_ns: u64, verdict: &mut Verdict) {
        let window = self.window;
        let level = |table: &mut Table<A, Bucket>, key: Option<Key>| {
            key.and_then(|key| table.get(key))
                .map_or(0, |bucket| bucket.level(&window, now_ns))
        };
        verdict.page_count = level(&mut self.pages, place.page);
        verdict.dimm_count = level(&mut self.dimms, place.dimm);
        verdict.bank_count = level(&mut self.banks, Some(place.bank));
        verdict.socket_count = level(&mut self.sockets, Some(place.socket));
    }
}

/// Whether an address or a command, not data, was damaged on its way to memory.
fn is_command_parity(record: &Record) -> bool {
    if record.format().is_amd() {
        return smca::is_command_parity(record);
    }
    matches!(
        Code::decode(record.mcacod(), record.format()),
        Code::Memory(MemoryOperation::AddressCommand, _)
            | Code::ExtendedMemory(MemoryOperation::AddressCommand, _)
    ) || intel::is_command_parity(record)
}

/// The buckets that a record belongs to.
struct Place {
    page: Option<Key>,
    dimm: Option<Key>,
    bank: Key,
    socket: Key,
    /// The row, and the column in it.
    cell: Option<(Key, u32)>,
}

impl Place {
    fn of(record: &Record) -> Self {
        const PAGE_SHIFT: u32 = 12;
        /// Not an address of the system; no page number has this bit.
        const LOCAL: u64 = 1 << 63;

        let socket = u64::from(record.socketid);
        let location = locate(record).filter(|location| *location != Location::default());
        let part = location.map(|location| location.part_key(record.socketid, record.bank));
        let page = match record.physical_address() {
            Some((address, _)) => Some([address >> PAGE_SHIFT, 0]),
            // AMD's memory controllers give an address of their own.
            None if record.format().is_amd() && is_memory_error(record) && record.has(ADDRV) => {
                part.map(|part| [LOCAL | record.addr >> PAGE_SHIFT, part])
            }
            None => None,
        };
        let cell = location.zip(part).and_then(|(location, part)| {
            let row = location.row_key()?;
            Some(([row, part], location.column?))
        });
        Place {
            page,
            dimm: part.map(|part| [part, 0]),
            bank: [socket, u64::from(record.bank)],
            socket: [socket, 0],
            cell,
        }
    }
}
