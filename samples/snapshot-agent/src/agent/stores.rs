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

    /// Hands out all that may be records of ours; the last error. Process context.
    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result;

    /// Removes all that [`read`](Store::read) hands out; the last error. Process context.
    fn clear(&self) -> Result;

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

    fn load(words: &[Atomic<u64>]) -> [u8; STORED_SIZE] {
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

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result {
        self.slots().for_each(|words| each(&Self::load(words)));
        Ok(())
    }

    fn clear(&self) -> Result {
        for (slot, words) in self.slots().enumerate() {
            // What was not ours is of no use to anybody either.
            self.erase(slot, words);
        }
        Ok(())
    }

    fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result {
        for (slot, words) in self.slots().enumerate() {
            if matches(&Self::load(words), f) {
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

impl Erst {
    /// Calls `f` with each record of ours; the last error.
    ///
    /// One that cannot be read is probably not ours, and does not hide those that are.
    fn for_each(mut f: impl FnMut(erst::RecordId, &[u8]) -> Result) -> Result {
        let mut result = Ok(());
        for id in erst::RecordIds::new()? {
            let id = id?;
            let done = match erst::Record::<STORED_SIZE>::read(id, &CREATOR) {
                Ok(Some(record)) => f(id, record.section(&SECTION).unwrap_or_default()),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            result = done.and(result);
        }
        result
    }
}

impl Store for Erst {
    fn name(&self) -> &'static str {
        "erst"
    }

    fn write(&self, _source: u16, record: &[u8; STORED_SIZE]) -> Result {
        erst::Record::new(&CREATOR, &SECTION, erst::Severity::Fatal, record).write()
    }

    fn read(&self, each: &mut dyn FnMut(&[u8])) -> Result {
        Self::for_each(|_, section| {
            each(section);
            Ok(())
        })
    }

    fn clear(&self) -> Result {
        Self::for_each(|id, _| id.clear())
    }

    fn remove(&self, f: &dyn Fn(&LastWords) -> bool) -> Result {
        Self::for_each(|id, section| match matches(section, f) {
            true => id.clear(),
            false => Ok(()),
        })
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

    /// Reads what a previous boot has left, each record once however many stores have it.
    ///
    /// Process context. [`ENOMEM`].
    pub(crate) fn read(&self) -> Result<KVVec<LastWords>> {
        let mut found: KVVec<LastWords> = KVVec::new();
        for store in self.iter() {
            let mut damaged = 0u32;
            let mut room = Ok(());
            let result = store.read(&mut |bytes| match LastWords::decode(bytes) {
                Ok(Some(words)) if !found.iter().any(|other| other.same_as(&words)) => {
                    room = room.and_then(|()| found.push(words, GFP_KERNEL));
                }
                Err(Damaged) => damaged = damaged.saturating_add(1),
                Ok(_) => {}
            });
            room?;
            if damaged != 0 {
                pr_warn!("{}: ignored {damaged} damaged record(s)\n", store.name());
            }
            if let Err(error) = result {
                pr_warn!("{}: not all can be read: {error:?}\n", store.name());
            }
        }
        Ok(found)
    }

    /// Removes what [`read`](Stores::read) has found, before anything is written. Process context.
    pub(crate) fn clear(&self) {
        for store in self.iter() {
            if let Err(error) = store.clear() {
                pr_warn!("{}: not all can be removed: {error:?}\n", store.name());
            }
        }
    }
}
