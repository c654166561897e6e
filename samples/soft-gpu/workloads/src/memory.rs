// SPDX-License-Identifier: GPL-2.0

//! Memory that the device has translations of, and the ways in which it is taken away.
//!
//! Nothing in this program holds a reference into such memory: its words are stored one by one,
//! and the pages below them come and go.

#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::fs::File;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of a page.
pub const PAGE: usize = 4096;

/// Of `<linux/mempolicy.h>`: pages of this process only.
const MPOL_MF_MOVE: u64 = 1 << 1;
const ACCESS: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// A mapping; it goes with the value.
///
/// # Invariants
///
/// The `length` bytes at `start` are mapped for reading and writing, by this value alone, and no
/// reference leads into them but for the time of a store.
pub struct Area {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: An address and a length; the memory belongs to no thread.
unsafe impl Send for Area {}
// SAFETY: What takes `&self` stores atomically, or changes what is below the addresses, which
// stay mapped.
unsafe impl Sync for Area {}

/// The addresses of an [`Area`] that was unmapped.
pub struct Hole {
    start: NonNull<u8>,
    length: usize,
}

/// A mapping of which nothing has been touched yet.
fn map_anywhere(length: usize) -> Result<Area> {
    // SAFETY: The kernel chooses addresses that nobody has.
    let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), length, ACCESS, PRIVATE)? };
    let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
    // INVARIANT: Just mapped.
    Ok(Area { start, length })
}

impl Area {
    /// Maps anonymous memory, without a promise that there is that much. Its start is aligned to
    /// `alignment`, which is a power of two.
    pub fn anonymous(length: usize, alignment: usize) -> Result<Self> {
        let room = length + alignment;
        let mut whole = map_anywhere(room)?;
        let before = whole.address(0).wrapping_neg() as usize & (alignment - 1);
        whole.trim(0..before)?;
        // SAFETY: `before` is below `alignment`, hence within the mapping.
        whole.start = unsafe { whole.start.add(before) };
        whole.length = room - before;
        whole.trim(length..room - before)?;
        whole.length = length;
        Ok(whole)
    }

    /// Maps a file, shared, from its start on.
    pub fn file(file: &File, length: usize) -> Result<Self> {
        // SAFETY: The kernel chooses addresses that nobody has.
        let start =
            unsafe { mm::mmap(ptr::null_mut(), length, ACCESS, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        // INVARIANT: Just mapped.
        Ok(Self { start, length })
    }

    /// Unmaps a part; the caller makes the area forget it.
    fn trim(&mut self, part: Range<usize>) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        // SAFETY: A part of the mapping, which is this value's, and no reference leads into it.
        unsafe { mm::munmap(self.at(&part), part.len()) }
    }

    fn at(&self, part: &Range<usize>) -> *mut core::ffi::c_void {
        assert!(
            part.start <= part.end && part.end <= self.length,
            "{part:?} of {}",
            self.length
        );
        // SAFETY: Within the mapping, as just seen.
        unsafe { self.start.as_ptr().add(part.start).cast() }
    }

    /// The address of a byte.
    pub fn address(&self, offset: usize) -> u64 {
        self.start.as_ptr().addr() as u64 + offset as u64
    }

    /// Size in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The whole of it.
    pub fn all(&self) -> Range<usize> {
        0..self.length
    }

    /// Stores a word; `offset` is a multiple of 8.
    pub fn store(&self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8));
        let word = self.at(&(offset..offset + 8));
        // SAFETY: Mapped and aligned; all accesses of this program are atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }.store(value, Ordering::Release);
    }

    /// Loads a word; `offset` is a multiple of 8.
    pub fn load(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8));
        let word = self.at(&(offset..offset + 8));
        // SAFETY: Mapped and aligned; all accesses of this program are atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }.load(Ordering::Acquire)
    }

    fn advise(&self, part: Range<usize>, advice: Advice) -> Result<()> {
        // SAFETY: A part of the mapping; it may lose its content, but stays mapped.
        unsafe { mm::madvise(self.at(&part), part.len(), advice) }
    }

    /// Gives pages back; they read as zeros then, or as the file.
    pub fn discard(&self, part: Range<usize>) -> Result<()> {
        self.advise(part, Advice::LinuxDontNeed)
    }

    /// Has pages reclaimed now: of a file, those that are clean.
    pub fn page_out(&self, part: Range<usize>) -> Result<()> {
        self.advise(part, Advice::LinuxPageOut)
    }

    /// Has pages moved to other frames; those where they were are not used any more.
    pub fn take_offline(&self, part: Range<usize>) -> Result<()> {
        self.advise(part, Advice::LinuxSoftOffline)
    }

    /// Moves the pages at these offsets to another NUMA node; returns how many did move.
    pub fn migrate(&self, offsets: &[usize], node: i32) -> Result<usize> {
        let mut pages: Vec<_> = offsets
            .iter()
            .map(|&at| self.at(&(at..at + PAGE)))
            .collect();
        let nodes = vec![node; pages.len()];
        let mut status = vec![-1; pages.len()];
        // SAFETY: Three arrays of that length; the pages stay mapped, with their content.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                pages.len(),
                pages.as_mut_ptr(),
                nodes.as_ptr(),
                status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        };
        if answer < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(status.iter().filter(|&&now| now == node).count())
    }

    /// Maps something new over it, of which nothing has been touched.
    pub fn replace(&mut self) -> Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: Exactly the addresses of this value, and no reference leads into them.
        unsafe { mm::mmap_anonymous(start, self.length, ACCESS, PRIVATE | MapFlags::FIXED)? };
        Ok(())
    }

    /// Unmaps all of it in one call.
    pub fn unmap(self) -> Result<Hole> {
        let hole = Hole {
            start: self.start,
            length: self.length,
        };
        std::mem::forget(self);
        // SAFETY: This was the area's mapping, and no reference leads into it.
        unsafe { mm::munmap(hole.start.as_ptr().cast(), hole.length)? };
        Ok(hole)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: It is this value's mapping, and no reference leads into it. It can only fail
        // where there is no memory for splitting mappings, and then it stays, unused.
        let _ = unsafe { mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

impl Hole {
    /// Maps anonymous memory there again; fails if something else is there by now.
    pub fn map(self) -> Result<Area> {
        let start = self.start.as_ptr().cast();
        let flags = PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: The kernel refuses addresses that somebody has.
        unsafe { mm::mmap_anonymous(start, self.length, ACCESS, flags)? };
        // INVARIANT: Just mapped.
        Ok(Area {
            start: self.start,
            length: self.length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_and_size() {
        let area = Area::anonymous(5 * PAGE, 1 << 21).unwrap();
        assert_eq!((area.address(0) % (1 << 21), area.length()), (0, 5 * PAGE));
        area.store(4 * PAGE + 8, 7);
        assert_eq!((area.load(4 * PAGE + 8), area.load(0)), (7, 0));
    }

    #[test]
    fn what_is_given_back_is_zero() {
        let mut area = Area::anonymous(2 * PAGE, PAGE).unwrap();
        area.store(0, 1);
        area.store(PAGE, 2);
        area.discard(0..PAGE).unwrap();
        assert_eq!((area.load(0), area.load(PAGE)), (0, 2));
        area.replace().unwrap();
        assert_eq!(area.load(PAGE), 0);
    }

    #[test]
    fn the_same_addresses_again() {
        let area = Area::anonymous(PAGE, PAGE).unwrap();
        let address = area.address(0);
        area.store(0, 1);
        let area = area.unmap().unwrap().map().unwrap();
        assert_eq!((area.address(0), area.load(0)), (address, 0));
    }

    #[test]
    #[should_panic(expected = "of 4096")]
    fn beyond_its_end() {
        Area::anonymous(PAGE, PAGE).unwrap().store(PAGE, 0);
    }
}
