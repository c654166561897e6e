// SPDX-License-Identifier: GPL-2.0

//! Which memory of its process a context mirrors, and by which notifiers.

use crate::abi::{self, MAX_INTERVALS, PAGE};
use crate::notify::{Notifier, Space};
use crate::shared::Shared;
use crate::table::END;
use core::ops::Range;
use kernel::{mm::MmWithUser, prelude::*, sync::Arc};

/// User addresses, and the lower half of the device's, end here; the aperture begins.
pub(crate) const USER_END: u64 = END / 2;
/// What one notifier of Xe watches: `drm.xe.svm_notifier_size`, 512 MB by default.
const BLOCK: u64 = 512 << 20;

/// A registered range.
struct Registered {
    range: Range<u64>,
    /// Bytes.
    interval: u64,
}

impl Registered {
    fn intervals(&self) -> u64 {
        (self.range.end - self.range.start).div_ceil(self.interval)
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
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
            abi::B1 => (
                range.start / BLOCK * BLOCK,
                BLOCK,
                range.end.next_multiple_of(BLOCK),
            ),
            abi::B2 => (0, USER_END, USER_END),
            _ => (range.start, registered.interval, range.end),
        };
        // The kernel has no notifiers of the last page, which nobody can map.
        let end = end.min(USER_END - PAGE);
        let starts = (0..end.saturating_sub(first).div_ceil(size)).map(move |n| first + n * size);
        starts.map(move |start| start..start.saturating_add(size).min(end))
    }

    /// Adds the notifiers that a range needs and that are not there yet.
    fn watch(
        &mut self,
        registered: &Registered,
        mm: &MmWithUser,
        shared: &Arc<Shared>,
        space: &Arc<Space>,
    ) -> Result {
        let old = self.notifiers.len();
        for range in self.watched(registered) {
            let known = self.notifiers.get(..old).unwrap_or_default();
            if known
                .binary_search_by_key(&range.start, |(range, _)| range.start)
                .is_ok()
            {
                continue;
            }
            let notifier = match self.mode {
                abi::BATCHED => Notifier::batched(range.clone(), space)?,
                mode => Notifier::flushing(mm, range.clone(), shared, mode == abi::B2)?,
            };
            let notifier = Arc::new(notifier, GFP_KERNEL_ACCOUNT)?;
            self.notifiers.push((range, notifier), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
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

    fn sort(&mut self) {
        self.ranges
            .sort_unstable_by_key(|registered| registered.range.start);
        self.notifiers
            .sort_unstable_by_key(|(range, _)| range.start);
    }

    /// Mirrors a range.
    pub(crate) fn register(
        &mut self,
        raw: &abi::Range,
        mm: &MmWithUser,
        shared: &Arc<Shared>,
        space: &Arc<Space>,
    ) -> Result {
        let interval = if raw.interval == 0 {
            raw.length
        } else {
            raw.interval
        };
        let end = raw.start.checked_add(raw.length).ok_or(EOVERFLOW)?;
        if (raw.start | raw.length | interval) % PAGE != 0 || raw.length == 0 {
            return Err(EINVAL);
        }
        if end > USER_END - PAGE {
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
        let added = self.watch(&registered, mm, shared, space);
        if added.is_ok() {
            self.ranges
                .push_within_capacity(registered)
                .map_err(|_| ENOMEM)?;
        } else {
            self.unwatch();
        }
        self.sort();
        added
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
        if self.mode == abi::BATCHED {
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
            self.sort();
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
