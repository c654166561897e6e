// SPDX-License-Identifier: GPL-2.0

//! Where last words are kept across a reset.

use crate::{
    persist::{Damaged, LastWords, STORED_SIZE},
    slots::{Slots, SLOTS},
};
use kernel::{
    acpi::erst,
    prelude::*,
    reserve_mem::ReservedMem,
    sync::atomic::{Atomic, Relaxed}, //
};

/// A place that survives a reset.
trait Store {
    /// Its name in sysfs.
    fn name(&self) -> &'static str;

    /// Keeps a record of `source`. Any context, NMI included.
    fn write(&self, source: u16, record: &[u8; STORED_SIZE]) -> Result;

    /// Hands out all that may be records of ours, and removes what is. Process context.
    fn take(&self, each: &mut dyn FnMut(&[u8]) -> Result) -> Result;

    /// Removes the records that `f` says yes to. Process context.
    fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result;
}

/// Whether `bytes` are a record that `f` says yes to.
fn matches(bytes: &[u8], f: &dyn Fn(&LastWords) -> bool) -> bool {
    matches!(LastWords::decode(bytes), Ok(Some(words)) if f(&words))
}

/// The memory that `reserve_mem=<size>:<align>:nullhz` on the boot line sets aside.
struct Ram {
    area: ReservedMem,
    slots: Slots,
}

/// 64-bit words of a record.
const WORDS: usize = STORED_SIZE / 8;

const _: () = assert!(STORED_SIZE % 8 == 0);

impl Ram {
    fn new() -> Option<Self> {
        let area = ReservedMem::map(c"nullhz").ok()?;
        let room = area.words().len() / WORDS;
        if room == 0 {
            pr_warn!("the memory reserved for nullhz is too small for one record\n");
            return None;
        }
        Some(Self {
            area,
            slots: Slots::new(room),
        })
    }

    fn slots(&self) -> impl Iterator<Item = &[Atomic<u64>]> {
        self.area.words().chunks_exact(WORDS).take(SLOTS)
    }

    fn read(words: &[Atomic<u64>]) -> [u8; STORED_SIZE] {
        let mut record = [0; STORED_SIZE];
        let (bytes, _) = record.as_chunks_mut();
        for (bytes, word) in bytes.iter_mut().zip(words) {
            *bytes = word.load(Relaxed).to_ne_bytes();
        }
        record
    }

    fn erase(&self, slot: usize, words: &[Atomic<u64>]) {
        for word in words {
            word.store(0, Relaxed);
        }
        self.area.write_back(slot.wrapping_mul(WORDS), WORDS);
    }
}

impl Store for Ram {
    fn name(&self) -> &'static str {
        "ram"
    }

    fn write(&self, source: u16, record: &[u8; STORED_SIZE]) -> Result {
        let slot = self.slots.claim(source).ok_or(ENOSPC)?;
        let words = self.slots().nth(slot).ok_or(ENOSPC)?;
        let (bytes, _) = record.as_chunks();
        for (word, bytes) in words.iter().zip(bytes) {
            word.store(u64::from_ne_bytes(*bytes), Relaxed);
        }
        self.area.write_back(slot.wrapping_mul(WORDS), WORDS);
        Ok(())
    }

    fn take(&self, each: &mut dyn FnMut(&[u8]) -> Result) -> Result {
        for (slot, words) in self.slots().enumerate() {
            each(&Self::read(words))?;
            // What was not ours is of no use to anybody either.
            self.erase(slot, words);
        }
        Ok(())
    }

    fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result {
        for (slot, words) in self.slots().enumerate() {
            if matches(&Self::read(words), f) {
                self.erase(slot, words);
                self.slots.release(slot);
            }
        }
        Ok(())
    }
}

/// The firmware's store for error records (ACPI 6.5, 18.5).
struct Erst;

/// Who writes our records.
const CREATOR: erst::Guid = erst::Guid::new(0x9c7a_f3d2, 0x1b0e, 0x4e55, *b"\xa6\x41nullhz");
/// What is in them: [`LastWords`].
const SECTION: erst::Guid = erst::Guid::new(0x5e20_8b4c, 0x77d1, 0x4c3f, *b"\x8d\x19nullhz");

impl Store for Erst {
    fn name(&self) -> &'static str {
        "erst"
    }

    fn write(&self, _source: u16, record: &[u8; STORED_SIZE]) -> Result {
        erst::Record::new(&CREATOR, &SECTION, erst::Severity::Fatal, record).write()
    }

    fn take(&self, each: &mut dyn FnMut(&[u8]) -> Result) -> Result {
        for id in erst::RecordIds::new()? {
            let id = id?;
            let Some(record) = erst::Record::<STORED_SIZE>::read(id, &CREATOR)? else {
                continue;
            };
            each(record.section(&SECTION).unwrap_or_default())?;
            id.clear()?;
        }
        Ok(())
    }

    fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result {
        for id in erst::RecordIds::new()? {
            let id = id?;
            let record = erst::Record::<STORED_SIZE>::read(id, &CREATOR)?;
            let section = record.as_ref().and_then(|record| record.section(&SECTION));
            if matches(section.unwrap_or_default(), f) {
                id.clear()?;
            }
        }
        Ok(())
    }
}

/// The stores that this node has.
pub(crate) struct Stores {
    ram: Option<Ram>,
    erst: Option<Erst>,
}

impl Stores {
    /// Finds them. Process context.
    pub(crate) fn find() -> Self {
        Self {
            ram: Ram::new(),
            erst: erst::available().then_some(Erst),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &dyn Store> {
        let ram = self.ram.as_ref().map(|ram| -> &dyn Store { ram });
        let erst = self.erst.as_ref().map(|erst| -> &dyn Store { erst });
        [ram, erst].into_iter().flatten()
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.iter().map(|store| store.name())
    }

    /// Writes to all of them. Any context, NMI included.
    ///
    /// [`ENODEV`] when there is none, [`EIO`] when all have failed.
    pub(crate) fn write(&self, words: &LastWords) -> Result {
        let record = words.encode();
        let mut result = Err(ENODEV);
        for store in self.iter() {
            match store.write(words.event.source, &record) {
                Ok(()) => result = Ok(()),
                Err(_) if result.is_err() => result = Err(EIO),
                Err(_) => {}
            }
        }
        result
    }

    /// Removes the records that `f` says yes to from all of them; the last error. Process context.
    pub(crate) fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result {
        let mut result = Ok(());
        for store in self.iter() {
            result = store.remove(f).and(result);
        }
        result
    }

    /// Takes what a previous boot has left, each record once however many stores have it.
    pub(crate) fn take(&self) -> KVVec<LastWords> {
        let mut found: KVVec<LastWords> = KVVec::new();
        for store in self.iter() {
            let mut damaged = 0u32;
            let result = store.take(&mut |bytes| {
                match LastWords::decode(bytes) {
                    Ok(Some(words)) if !found.iter().any(|other| other.same_as(&words)) => {
                        found.push(words, GFP_KERNEL)?;
                    }
                    Err(Damaged) => damaged = damaged.saturating_add(1),
                    Ok(_) => {}
                }
                Ok(())
            });
            if damaged != 0 {
                pr_warn!("{}: ignored {damaged} damaged record(s)\n", store.name());
            }
            if let Err(error) = result {
                pr_warn!("{}: cannot be read: {error:?}\n", store.name());
            }
        }
        found
    }
}
