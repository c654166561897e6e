// SPDX-License-Identifier: GPL-2.0

//! The oracle: which pages user space has stamped, and how old a stamp may be.

use crate::abi::{self, Stamp, PAGE};
use crate::shared::{Charge, Shared};
use crate::table::END;
use core::num::NonZero;
use kernel::{
    page::{PinnedPages, Word},
    prelude::*,
    sync::{
        atomic::Acquire,
        Arc, //
    },
};

/// `PAGE_POISON`, with which the kernel fills free pages if it is told to.
const POISON: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Pages that lie at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Pages {
    start: u64,
    stride: NonZero<u64>,
    count: NonZero<u64>,
}

impl Pages {
    /// [`EINVAL`] unless all of them are pages of the device.
    pub(crate) fn new(raw: &abi::Pages) -> Result<Self> {
        let abi::Pages {
            start,
            stride,
            count,
        } = *raw;
        if (start | stride) % PAGE != 0 {
            return Err(EINVAL);
        }
        let stride = NonZero::new(stride).ok_or(EINVAL)?;
        let count = NonZero::new(count).ok_or(EINVAL)?;
        let length = stride.get().checked_mul(count.get() - 1).ok_or(EINVAL)?;
        if start.checked_add(length).ok_or(EINVAL)? >= END {
            return Err(EINVAL);
        }
        Ok(Self {
            start,
            stride,
            count,
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// The index of a page, from any number.
    pub(crate) fn wrap(&self, number: u64) -> u64 {
        number % self.count
    }

    /// The address of page `index`, which is below their number.
    pub(crate) fn address(&self, index: u64) -> u64 {
        self.start
            .wrapping_add(self.stride.get().wrapping_mul(index))
    }

    fn index(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.start)?;
        let index = offset / self.stride;
        (offset % self.stride == 0 && index < self.count()).then_some(index)
    }
}

/// What the device has seen in a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What should be there.
    Stamped,
    /// A new page.
    Blank,
    /// One of the kinds of violations.
    Violation(u32),
}

/// What a page's stamp must be.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    owner: u64,
    address: u64,
    /// The lowest generation.
    pub(crate) minimum: u64,
}

impl Expected {
    pub(crate) fn judge(&self, stamp: &Stamp) -> Verdict {
        let kind = match stamp.magic {
            0 => return Verdict::Blank,
            POISON => abi::POISON,
            abi::MAGIC if stamp.owner != self.owner => abi::OWNER,
            abi::MAGIC if stamp.address != self.address => abi::ADDRESS,
            abi::MAGIC if stamp.generation < self.minimum => abi::OLD,
            abi::MAGIC => return Verdict::Stamped,
            _ => abi::FOREIGN,
        };
        Verdict::Violation(kind)
    }
}

/// The oracle of a context.
pub(crate) struct Oracle {
    pages: Pages,
    owner: u64,
    generations: PinnedPages,
    _charge: Charge,
}

/// Generations in a page of the table.
const PER_PAGE: u64 = PAGE / 8;

impl Oracle {
    /// Pins the table, memory of the current process. [`ENOSPC`]: it is too large.
    pub(crate) fn new(raw: &abi::Oracle, shared: &Arc<Shared>) -> Result<Self> {
        let pages = Pages::new(&raw.pages)?;
        if raw.table % PAGE != 0 {
            return Err(EINVAL);
        }
        let size = pages.count().div_ceil(PER_PAGE);
        let charge = Charge::new(shared, size)?;
        Ok(Self {
            pages,
            owner: raw.owner,
            generations: PinnedPages::new(raw.table as usize, size as usize)?,
            _charge: charge,
        })
    }

    /// What an access that begins now must see at `address`; [`None`] if that is not judged.
    pub(crate) fn expected(&self, address: u64) -> Option<Expected> {
        let index = self.pages.index(address)?;
        let word = Word::<u64>::at((index % PER_PAGE * 8) as usize)?;
        let generation = self.generations.word((index / PER_PAGE) as usize, word)?;
        Some(Expected {
            owner: self.owner,
            address,
            // ORDERING: `Acquire`: the access comes after this, and user space raised the
            // generation after its call had returned.
            minimum: generation.load(Acquire),
        })
    }
}
