// SPDX-License-Identifier: GPL-2.0

//! Buffers: pinned memory of the process at device addresses that the driver gives out.
//!
//! The driver maps and unmaps them by itself, no notifier is concerned. What is unmapped may be
//! flushed later, as long as its pages stay pinned and its addresses are given to nobody: that is
//! what the library's deferral asks for, and its types enforce.

use crate::abi::{self, PAGE};
use crate::mirror::{insert_all, USER_END};
use crate::mmu_batch::{Cause, DriverUnmap, Lease, Live, Pages};
use crate::notify::Space;
use crate::shared::{Charge, Shared};
use crate::table::Pte;
use core::ops::Range;
use kernel::{
    new_mutex,
    page::PinnedPages,
    prelude::*,
    sync::{atomic::Relaxed, Arc, Mutex},
};

/// Device addresses that the driver gives out.
pub(crate) const APERTURE: Range<u64> = USER_END..USER_END + (1 << 40);

/// The memory of a buffer.
struct Pinned {
    pages: PinnedPages,
    _charge: Charge,
}

impl Pages for Pinned {
    fn count(&self) -> u64 {
        self.pages.count() as u64
    }
}

/// Device addresses of which unmaps are pending: the TLBs may still know them.
#[pin_data]
struct Pending {
    #[pin]
    ranges: Mutex<KVVec<Range<u64>>>,
}

impl Pending {
    /// Makes room for so many more.
    fn reserve(&self, room: usize) -> Result {
        Ok(self.ranges.lock().reserve(room, GFP_KERNEL_ACCOUNT)?)
    }

    fn overlaps(&self, range: &Range<u64>) -> bool {
        let ranges = self.ranges.lock();
        ranges
            .iter()
            .any(|other| other.start < range.end && range.start < other.end)
    }
}

/// The device addresses of a buffer. They can be given out again when it is dropped.
struct Addresses {
    range: Range<u64>,
    pending: Arc<Pending>,
}

impl Lease for Addresses {
    fn range(&self) -> Range<u64> {
        self.range.clone()
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        let mut ranges = self.pending.ranges.lock();
        if let Some(index) = ranges.iter().position(|range| *range == self.range) {
            // In any order.
            if let (Some(last), Some(gap)) = (ranges.pop(), ranges.get_mut(index)) {
                *gap = last;
            }
        }
    }
}

/// How a buffer will be unmapped.
enum Unmap {
    /// At once.
    Direct(Pinned),
    /// By the library: all that it takes is allocated.
    Deferred(DriverUnmap<Pinned, Addresses>),
}

/// A bound buffer.
struct Buffer {
    range: Range<u64>,
    unmap: Unmap,
}

/// The buffers of a context.
pub(crate) struct Buffers {
    /// In order of their device addresses.
    bound: KVVec<Option<Buffer>>,
    pending: Arc<Pending>,
}

/// The device addresses of `raw`, and how many bytes of them each buffer has.
fn addresses(raw: &abi::Bind) -> Result<(Range<u64>, u64)> {
    let size = u64::from(raw.pages) * PAGE;
    let length = size.checked_mul(raw.count.into()).ok_or(EINVAL)?;
    let end = raw.device.checked_add(length).ok_or(EINVAL)?;
    if raw.device % PAGE != 0 || length == 0 || raw.device < APERTURE.start || end > APERTURE.end {
        return Err(EINVAL);
    }
    Ok((raw.device..end, size))
}

impl Buffers {
    pub(crate) fn new() -> Result<Self> {
        let pending = Arc::pin_init(
            pin_init!(Pending { ranges <- new_mutex!(KVVec::new(), "nullhz_soft_gpu_pending") }),
            GFP_KERNEL,
        )?;
        Ok(Self {
            bound: KVVec::new(),
            pending,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bound.is_empty()
    }

    /// Index of the first buffer that starts at or after `address`.
    fn position(&self, address: u64) -> usize {
        let start =
            |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.range.start);
        self.bound.partition_point(|buffer| start(buffer) < address)
    }

    /// Pins memory of the current process and maps it.
    pub(crate) fn bind(
        &mut self,
        raw: &abi::Bind,
        batched: bool,
        shared: &Arc<Shared>,
        space: &Space,
    ) -> Result {
        let (all, size) = addresses(raw)?;
        let user_end = raw.user.checked_add(all.end - all.start).ok_or(EFAULT)?;
        if raw.user % PAGE != 0 {
            return Err(EINVAL);
        }
        if user_end > USER_END {
            return Err(EFAULT);
        }
        let behind = self.position(all.end);
        let before = behind
            .checked_sub(1)
            .and_then(|index| self.bound.get(index)?.as_ref());
        if before.is_some_and(|buffer| buffer.range.end > all.start) {
            return Err(EBUSY);
        }
        let charged = Charge::new(shared, u64::from(raw.pages) * u64::from(raw.count))?;
        drop(charged);
        // What is unmapped later finds room there.
        let room = self.bound.len() + raw.count as usize;
        self.pending.reserve(room)?;
        if self.pending.overlaps(&all) {
            space.drain(Cause::Reuse);
        }

        let mut new = KVVec::with_capacity(raw.count as usize, GFP_KERNEL_ACCOUNT)?;
        let mut frames = KVVec::new();
        for n in 0..u64::from(raw.count) {
            let (start, user) = (all.start + n * size, raw.user + n * size);
            let pinned = Pinned {
                _charge: Charge::new(shared, raw.pages.into())?,
                pages: PinnedPages::new(user as usize, raw.pages as usize)?,
            };
            let range = start..start + size;
            for page in 0..raw.pages {
                let address = start + u64::from(page) * PAGE;
                shared.table.prepare(address)?;
                let pfn = pinned.pages.pfn(page as usize).ok_or(EFAULT)?;
                frames.push((address, Pte::new(pfn, true)), GFP_KERNEL_ACCOUNT)?;
            }
            let unmap = if batched {
                let addresses = Addresses {
                    range: range.clone(),
                    pending: self.pending.clone(),
                };
                Unmap::Deferred(DriverUnmap::new(pinned, addresses)?)
            } else {
                Unmap::Direct(pinned)
            };
            new.push(Some(Buffer { range, unmap }), GFP_KERNEL_ACCOUNT)?;
        }

        insert_all(&mut self.bound, behind, new)?;
        let install = |shared: &Shared| {
            for (address, pte) in &frames {
                shared.table.install(*address, *pte);
            }
        };
        if batched {
            install(&space.lock());
        } else {
            let _guard = shared.lock.lock();
            install(shared);
        }
        Ok(())
    }

    /// Unmaps buffers, each by itself.
    pub(crate) fn unbind(&mut self, raw: &abi::Bind, shared: &Shared, space: &Space) -> Result {
        let (all, size) = addresses(raw)?;
        if raw.user != 0 {
            return Err(EINVAL);
        }
        let first = self.position(all.start);
        let buffers = self.bound.get_mut(first..).unwrap_or_default();
        let buffers = buffers.get_mut(..raw.count as usize).ok_or(ENOENT)?;
        let starts = (0..).map(|n| all.start + n * size);
        let fits = |(buffer, start): (&Option<Buffer>, u64)| {
            let range = start..start + size;
            buffer.as_ref().is_some_and(|buffer| buffer.range == range)
        };
        if !buffers.iter().zip(starts).all(fits) {
            return Err(ENOENT);
        }
        for buffer in buffers {
            if let Some(buffer) = buffer.take() {
                unmap(buffer, &self.pending, shared, space);
            }
        }
        self.bound.retain(|buffer| buffer.is_some());
        Ok(())
    }

    /// Unmaps all. Of deferred unmaps, nothing is pending after that.
    pub(crate) fn close(&mut self, shared: &Shared, space: &Space) {
        for buffer in core::mem::take(&mut self.bound).into_iter().flatten() {
            unmap(buffer, &self.pending, shared, space);
        }
        space.drain(Cause::Reuse);
    }
}

fn unmap(buffer: Buffer, pending: &Pending, shared: &Shared, space: &Space) {
    shared.counters.unbinds.add(1, Relaxed);
    match buffer.unmap {
        Unmap::Direct(pinned) => {
            let guard = shared.lock.lock();
            shared.unmap(buffer.range);
            drop(guard);
            drop(pinned);
        }
        Unmap::Deferred(unmap) => {
            // There is room, made when it was bound.
            let _ = pending.ranges.lock().push_within_capacity(buffer.range);
            unmap.defer(space, |shared, _, addresses| {
                let zapped = shared.table.zap(addresses.range());
                shared.counters.zapped.add(zapped, Relaxed);
                Live::when(zapped != 0)
            });
        }
    }
}
