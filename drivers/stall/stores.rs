// SPDX-License-Identifier: GPL-2.0

//! Where the ledger of resets is kept across them: reserved RAM, which is quick and lost with the
//! power, and the firmware's error record store, which is neither.

use crate::budget::{Ledger, STORED_SIZE};
use kernel::{
    acpi::erst,
    pr_warn_once,
    prelude::*,
    reserve_mem::ReservedMem,
    sync::atomic::Relaxed, //
};

/// 64-bit words of a stored ledger.
const WORDS: usize = STORED_SIZE / 8;

const _: () = assert!(STORED_SIZE % 8 == 0);

/// The memory that `reserve_mem=<size>:<align>:nullhz-stall` on the boot line sets aside: two
/// copies, of which a reset in the middle of a write leaves one.
struct Ram(ReservedMem);

impl Ram {
    fn new() -> Option<Self> {
        let area = ReservedMem::map(c"nullhz-stall").ok()?;
        if area.words().len() < 2 * WORDS {
            pr_warn!("the memory reserved for nullhz-stall is too small for two ledgers\n");
            return None;
        }
        Some(Self(area))
    }

    fn read(&self) -> Option<Ledger> {
        let copies = self.0.words().chunks_exact(WORDS).take(2);
        let ledgers = copies.filter_map(|words| {
            let mut stored = [0; STORED_SIZE];
            let (bytes, _) = stored.as_chunks_mut();
            for (bytes, word) in bytes.iter_mut().zip(words) {
                *bytes = word.load(Relaxed).to_ne_bytes();
            }
            Ledger::decode(&stored)
        });
        ledgers.reduce(Ledger::newer)
    }

    fn write(&self, ledger: &Ledger) {
        let first = ledger.copy().wrapping_mul(WORDS);
        let words = self.0.words().iter().skip(first);
        let stored = ledger.encode();
        let (bytes, _) = stored.as_chunks();
        for (word, bytes) in words.zip(bytes) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        self.0.write_back(first, WORDS);
    }
}

/// Who writes our records.
const CREATOR: erst::Guid = erst::Guid::new(0x2f61_0d8e, 0x94c7, 0x4a0b, *b"\xb3\x55nullhz");
/// What is in them: [`Ledger`].
const SECTION: erst::Guid = erst::Guid::new(0xc41b_77e9, 0x3a26, 0x4d98, *b"\x9f\x02nullhz");

/// A ledger as the firmware's store takes it.
fn record(ledger: &Ledger) -> erst::Record<STORED_SIZE> {
    erst::Record::new(
        &CREATOR,
        &SECTION,
        erst::Severity::Informational,
        &ledger.encode(),
    )
}

/// Hands out the ledgers in the firmware's store; the last error.
///
/// A record that cannot be read is probably not ours, and does not hide those that are.
fn for_each_record(mut each: impl FnMut(Ledger, erst::RecordId) -> Result) -> Result {
    let mut result = Ok(());
    for id in erst::RecordIds::new()? {
        let id = id?;
        let done = match erst::Record::<STORED_SIZE>::read(id, &CREATOR) {
            Ok(Some(record)) => {
                match Ledger::decode(record.section(&SECTION).unwrap_or_default()) {
                    Some(ledger) => each(ledger, id),
                    None => {
                        pr_warn!("erst: a damaged ledger is dropped\n");
                        id.clear()
                    }
                }
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        result = done.and(result);
    }
    result
}

/// What was found at load.
pub(crate) struct Found {
    /// The newest ledger of all stores.
    pub(crate) ledger: Option<Ledger>,
    /// Whether reserved RAM was expected to have it, and did not: the power was off, or this boot
    /// has another layout.
    pub(crate) cold: bool,
}

/// The stores that this node has.
pub(crate) struct Stores {
    ram: Option<Ram>,
    erst: bool,
}

impl Stores {
    /// Finds them. Process context.
    pub(crate) fn find() -> Self {
        Self {
            ram: Ram::new(),
            erst: erst::available(),
        }
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        let ram = self.ram.is_some().then_some("ram");
        let erst = self.erst.then_some("erst");
        [ram, erst].into_iter().flatten()
    }

    /// What the boot before has left. Process context.
    pub(crate) fn read(&self) -> Found {
        let from_ram = self.ram.as_ref().and_then(Ram::read);
        let mut ledger = from_ram;
        if self.erst {
            let read = for_each_record(|other, _| {
                ledger = Some(ledger.map_or(other, |ledger| ledger.newer(other)));
                Ok(())
            });
            if let Err(error) = read {
                pr_warn!("erst: not all can be read: {error:?}\n");
            }
        }
        Found {
            ledger,
            cold: self.ram.is_some() && from_ram.is_none(),
        }
    }

    /// Keeps the ledger in reserved RAM. Any context, NMI included.
    pub(crate) fn write_ram(&self, ledger: &Ledger) {
        if let Some(ram) = &self.ram {
            ram.write(ledger);
        }
    }

    /// Keeps the ledger of a kernel that panics, beside the older one in the firmware's store where
    /// there is no reserved RAM. Any context, NMI included.
    pub(crate) fn write_last(&self, ledger: &Ledger) {
        self.write_ram(ledger);
        if self.ram.is_none() && self.erst {
            // Nobody is left to be told of an error; the next boot then counts a reset too many.
            let _ = record(ledger).write();
        }
    }

    /// Keeps the ledger in the firmware's store, in place of older ones. Process context; firmware
    /// takes its time.
    ///
    /// An error says that it is not kept: the store is full, or busy with somebody else's record.
    pub(crate) fn write_firmware(&self, ledger: &Ledger) -> Result {
        if !self.erst {
            return Ok(());
        }
        record(ledger).write()?;
        let cleared = for_each_record(|other, id| match other == *ledger {
            true => Ok(()),
            false => id.clear(),
        });
        if let Err(error) = cleared {
            // The newest one counts: older ones only take room.
            pr_warn_once!("erst: not all older ledgers can be cleared: {error:?}\n");
        }
        Ok(())
    }
}
