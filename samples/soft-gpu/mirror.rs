// SPDX-License-Identifier: GPL-2.0

//! Which memory of its process a context mirrors, and by which notifiers.

use crate::abi::{self, MAX_INTERVALS, PAGE};
use crate::notify::{Notifier, Space};
use crate::shared::Shared;
use crate::table::END;
use core::{num::NonZero, ops::Range};
use kernel::{
    alloc::{Allocator, Vec},
    mm::MmWithUser,
    prelude::*,
    sync::Arc, //
};

/// User addresses, and the lower half of the device's, end here; the aperture begins.
pub(crate) const USER_END: u64 = END / 2;
/// What one notifier of Xe watches: `drm.xe.svm_notifier_size`, 512 MB by default.
const BLOCK: NonZero<u64> = NonZero::new(512 << 20).unwrap();
/// The end of what can be mirrored: nobody can map the last page.
const MIRROR_END: u64 = USER_END - PAGE;
const WHOLE: NonZero<u64> = NonZero::new(MIRROR_END).unwrap();

/// A registered range.
struct Registered {
    range: Range<u64>,
    /// Bytes.
    interval: NonZero<u64>,
}

impl Registered {
    fn intervals(&self) -> u64 {
        (self.range.end - self.range.start - 1) / self.interval + 1
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Inserts `new` at `index`, which is not behind the end. If there is no memory, nothing changes.
pub(crate) fn insert_all<T, A: Allocator>(
    list: &mut Vec<T, A>,
    index: usize,
    new: Vec<T, A>,
) -> Result {
    let room = list.len().saturating_add(new.len());
    let mut merged = Vec::with_capacity(room, GFP_KERNEL_ACCOUNT)?;
    let mut old = core::mem::take(list).into_iter();
    // There is room for all.
    let mut push = |item| drop(merged.push_within_capacity(item));
    old.by_ref().take(index).for_each(&mut push);
    new.into_iter().for_each(&mut push);
    old.for_each(&mut push);
    *list = merged;
    Ok(())
}

/// The mirrored memory of a context.
pub(crate) struct Mirror {
    mode: u32,
    /// In order.
    ranges: KVec<Registered>,
    /// In order of what they watch.
    notifiers: KVVec<(Range<u64>, Arc<Notifier>)>,
    /// Runs and calls that may install entries now.
    active: u32,
}

impl Mirror {
    pub(crate) const fn new() -> Self {
        Self {
            mode: abi::BATCHED,
            ranges: KVec::new(),
            notifiers: KVVec::new(),
            active: 0,
        }
    }

    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }

    /// Whether the library does it.
    pub(crate) fn is_batched(&self) -> bool {
        matches!(self.mode, abi::BATCHED | abi::TYPED)
    }

    pub(crate) fn intervals(&self) -> u64 {
        self.ranges.iter().map(Registered::intervals).sum()
    }

    pub(crate) fn notifiers(&self) -> u64 {
        self.notifiers.len() as u64
    }

    /// One more that may install entries.
    pub(crate) fn begin(&mut self) {
        self.active = self.active.saturating_add(1);
    }

    /// One less.
    pub(crate) fn end(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// [`EBUSY`] while anything is active.
    pub(crate) fn check_idle(&self) -> Result {
        if self.active != 0 {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// The notifier of a registered address.
    pub(crate) fn find(&self, address: u64) -> Option<Arc<Notifier>> {
        fn holder<T>(list: &[T], address: u64, range: fn(&T) -> &Range<u64>) -> Option<&T> {
            let after = list.partition_point(|item| range(item).start <= address);
            let item = list.get(after.checked_sub(1)?)?;
            range(item).contains(&address).then_some(item)
        }
        holder(&self.ranges, address, |registered| &registered.range)?;
        holder(&self.notifiers, address, |(range, _)| range).map(|(_, notifier)| notifier.clone())
    }

    /// What the notifiers of a range watch in this mode.
    fn watched(&self, registered: &Registered) -> impl Iterator<Item = Range<u64>> {
        let range = registered.range.clone();
        let (first, size, end) = match self.mode {
            abi::B1 => (range.start / BLOCK * BLOCK.get(), BLOCK, MIRROR_END),
            abi::B2 => (0, WHOLE, MIRROR_END),
            _ => (range.start, registered.interval, range.end),
        };
        let count = (range.end - 1 - first) / size + 1;
        (0..count).map(move |n| {
            let start = first + n * size.get();
            start..start.saturating_add(size.get()).min(end)
        })
    }

    /// Adds the notifiers that a range needs and that are not there yet.
    fn watch(
        &mut self,
        registered: &Registered,
        mm: &MmWithUser,
        shared: &Arc<Shared>,
        space: &Arc<Space>,
    ) -> Result {
        let mut new = KVVec::new();
        for range in self.watched(registered) {
            let start = |(range, _): &(Range<u64>, _)| range.start;
            if self
                .notifiers
                .binary_search_by_key(&range.start, start)
                .is_ok()
            {
                continue;
            }
            let notifier = match self.mode {
                abi::BATCHED => Notifier::batched(range.clone(), space)?,
                abi::TYPED => Notifier::typed(range.clone(), space)?,
                mode => Notifier::flushing(mm, range.clone(), shared, mode == abi::B2)?,
            };
            let notifier = Arc::new(notifier, GFP_KERNEL_ACCOUNT)?;
            new.push((range, notifier), GFP_KERNEL_ACCOUNT)?;
        }
        // What is not there yet of a range has no gaps: other ranges end outside of it, and share
        // its first and last notifier at most.
        let first = new.first().map_or(0, |(range, _)| range.start);
        let index = self
            .notifiers
            .partition_point(|(range, _)| range.start < first);
        insert_all(&mut self.notifiers, index, new)
    }

    /// Removes the notifiers that no range needs.
    fn unwatch(&mut self) {
        let Self {
            mode,
            ranges,
            notifiers,
            ..
        } = self;
        match *mode {
            abi::B2 if ranges.is_empty() => notifiers.clear(),
            abi::B2 => (),
            _ => notifiers.retain(|(watched, _)| {
                let behind = ranges.partition_point(|other| other.range.start < watched.end);
                let last = behind.checked_sub(1).and_then(|last| ranges.get(last));
                last.is_some_and(|registered| overlap(watched, &registered.range))
            }),
        }
    }

    /// Mirrors a range.
    pub(crate) fn register(
        &mut self,
        raw: &abi::Range,
        mm: &MmWithUser,
        shared: &Arc<Shared>,
        space: &Arc<Space>,
    ) -> Result {
        let interval = NonZero::new(raw.interval).or(NonZero::new(raw.length));
        let interval = interval.ok_or(EINVAL)?;
        let end = raw.start.checked_add(raw.length).ok_or(EOVERFLOW)?;
        if (raw.start | raw.length | interval.get()) % PAGE != 0 || raw.length == 0 {
            return Err(EINVAL);
        }
        if end > MIRROR_END {
            return Err(EOVERFLOW);
        }
        let registered = Registered {
            range: raw.start..end,
            interval,
        };
        if self
            .ranges
            .iter()
            .any(|other| overlap(&other.range, &registered.range))
        {
            return Err(EEXIST);
        }
        if self.intervals().saturating_add(registered.intervals()) > MAX_INTERVALS {
            return Err(ENOSPC);
        }
        self.ranges.reserve(1, GFP_KERNEL_ACCOUNT)?;
        self.watch(&registered, mm, shared, space)?;
        let start = registered.range.start;
        let index = self
            .ranges
            .partition_point(|other| other.range.start < start);
        // There is room.
        let _ = self.ranges.insert_within_capacity(index, registered);
        Ok(())
    }

    /// Ends the mirroring of a range.
    pub(crate) fn unregister(
        &mut self,
        raw: &abi::Range,
        shared: &Shared,
        space: &Space,
    ) -> Result {
        if raw.interval != 0 {
            return Err(EINVAL);
        }
        let end = raw.start.checked_add(raw.length).ok_or(EINVAL)?;
        let range = raw.start..end;
        let found = self
            .ranges
            .iter()
            .position(|registered| registered.range == range);
        let index = found.ok_or(ENOENT)?;
        self.check_idle()?;
        self.unmap(range, shared, space);
        self.ranges.remove(index).map_err(|_| ENOENT)?;
        self.unwatch();
        Ok(())
    }

    /// Empties `range` of the page table; nothing of it is in a TLB any more after that.
    fn unmap(&self, range: Range<u64>, shared: &Shared, space: &Space) {
        if self.is_batched() {
            let _shadow = space.lock();
            shared.unmap(range);
        } else {
            let _guard = shared.lock.lock();
            shared.unmap(range);
        }
    }

    /// Mirrors the same ranges in another mode. If that fails, nothing is registered any more.
    pub(crate) fn switch(
        &mut self,
        mode: u32,
        mm: &MmWithUser,
        shared: &Arc<Shared>,
        space: &Arc<Space>,
    ) -> Result {
        self.check_idle()?;
        self.unmap(0..USER_END, shared, space);
        self.notifiers.clear();
        self.mode = mode;
        let ranges = core::mem::take(&mut self.ranges);
        for registered in &ranges {
            if let Err(error) = self.watch(registered, mm, shared, space) {
                self.notifiers.clear();
                return Err(error);
            }
        }
        self.ranges = ranges;
        Ok(())
    }

    /// The end of the context.
    pub(crate) fn close(&mut self, shared: &Shared, space: &Space) {
        self.unmap(0..USER_END, shared, space);
        self.notifiers.clear();
        self.ranges.clear();
    }
}
