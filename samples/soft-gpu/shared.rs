// SPDX-License-Identifier: GPL-2.0

//! What the notifiers, the threads and the open file of a context have in common.

use crate::abi::{self, MAX_DETAILS, MAX_PINNED};
use crate::hardware::{raise, Hardware};
use crate::mmu_batch::Span;
use crate::table::Table;
use core::ops::Range;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
        Mutex, //
    },
};

/// Numbers of contexts: what entries of the TLBs are tagged with.
#[pin_data]
pub(crate) struct Numbers {
    /// Bit n: n is in use.
    #[pin]
    used: Mutex<[u64; 4]>,
}

impl Numbers {
    pub(crate) fn new() -> impl PinInit<Self> {
        // 0 is nobody's.
        pin_init!(Self { used <- new_mutex!([1, 0, 0, 0], "nullhz_soft_gpu_numbers") })
    }
}

/// The number of a context, until it is dropped.
pub(crate) struct Number {
    numbers: Arc<Numbers>,
    number: u32,
}

impl Number {
    /// [`ENOSPC`]: all are in use.
    pub(crate) fn take(numbers: &Arc<Numbers>) -> Result<Self> {
        let mut used = numbers.used.lock();
        for (number, word) in (0u32..).step_by(64).zip(used.iter_mut()) {
            let bit = word.trailing_ones();
            if bit < u64::BITS {
                *word |= 1 << bit;
                return Ok(Self {
                    numbers: numbers.clone(),
                    number: number + bit,
                });
            }
        }
        Err(ENOSPC)
    }

    pub(crate) fn get(&self) -> u32 {
        self.number
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(word) = self.numbers.used.lock().get_mut(self.number as usize / 64) {
            *word &= !(1 << (self.number % 64));
        }
    }
}

/// Declares counters of a context.
macro_rules! counters {
    ($($name:ident,)*) => {
        /// What [`abi::Counters`] says about a context.
        pub(crate) struct Counters {
            $(pub(crate) $name: Atomic<u64>,)*
        }

        impl Counters {
            fn new() -> Self {
                Self { $($name: Atomic::new(0),)* }
            }

            pub(crate) fn count(&self, counters: &mut abi::Counters) {
                $(counters.$name = self.$name.load(Relaxed);)*
            }
        }
    };
}

counters! {
    events,
    elided,
    would_block,
    zapped,
    event_ns,
    event_max_ns,
    faults,
    refused,
    retries,
    unbinds,
    accesses,
    violations,
}

impl Counters {
    /// A call of a notifier, which has zapped so many pages.
    pub(crate) fn zap(&self, zapped: u64) {
        self.events.add(1, Relaxed);
        match zapped {
            0 => self.elided.add(1, Relaxed),
            zapped => self.zapped.add(zapped, Relaxed),
        }
    }

    /// One that took so long, with the flush.
    pub(crate) fn event(&self, zapped: u64, ns: u64) {
        self.zap(zapped);
        self.event_ns.add(ns, Relaxed);
        raise(&self.event_max_ns, ns);
    }

    /// One that could not be dealt with without sleeping.
    pub(crate) fn would_block(&self) {
        self.events.add(1, Relaxed);
        self.would_block.add(1, Relaxed);
    }
}

/// What notifiers, threads and the open file share.
#[pin_data]
pub(crate) struct Shared {
    pub(crate) hardware: Arc<Hardware>,
    pub(crate) table: Table,
    pub(crate) counters: Counters,
    /// Held while entries of the page table change, but with the library, which has the lock of its
    /// space.
    #[pin]
    pub(crate) lock: Mutex<()>,
    #[pin]
    violations: Mutex<KVec<abi::Violation>>,
    /// Pages.
    pinned: Atomic<u64>,
    // Last: nobody else has the number before the rest is gone.
    number: Number,
}

impl Shared {
    pub(crate) fn new(hardware: Arc<Hardware>, number: Number) -> Result<Arc<Self>> {
        let table = Table::new()?;
        let violations = KVec::with_capacity(MAX_DETAILS, GFP_KERNEL_ACCOUNT)?;
        Arc::pin_init(
            pin_init!(Self {
                hardware,
                table,
                counters: Counters::new(),
                lock <- new_mutex!((), "nullhz_soft_gpu_lock"),
                violations <- new_mutex!(violations, "nullhz_soft_gpu_violations"),
                pinned: Atomic::new(0),
                number,
            }),
            GFP_KERNEL,
        )
    }

    /// What entries of the TLBs are tagged with.
    pub(crate) fn number(&self) -> u32 {
        self.number.get()
    }

    pub(crate) fn span(&self, range: Range<u64>) -> Span {
        Span {
            start: range.start,
            end: range.end,
            tag: self.number().into(),
        }
    }

    /// Removes and flushes what the driver itself wants to have gone, with the lock held that is
    /// held while entries change. Process context, may sleep.
    pub(crate) fn unmap(&self, range: Range<u64>) {
        let zapped = self.table.zap(range.clone());
        self.counters.zapped.add(zapped, Relaxed);
        if zapped != 0 {
            self.hardware.flush_surely(Some(&[self.span(range)]));
        }
    }

    /// Counts a violation, and keeps it if it is among the first.
    pub(crate) fn violation(&self, violation: abi::Violation) {
        self.counters.violations.add(1, Relaxed);
        // When it is full, this is the only consequence.
        let _ = self.violations.lock().push_within_capacity(violation);
    }

    /// A violation that was kept.
    pub(crate) fn kept(&self, index: u32) -> Option<abi::Violation> {
        let violations = self.violations.lock();
        let violation = violations.get(index as usize)?;
        Some(abi::Violation {
            index,
            ..*violation
        })
    }
}

/// Pages that count as pinned by a context, until it is dropped.
pub(crate) struct Charge {
    shared: Arc<Shared>,
    pages: u64,
}

impl Charge {
    /// [`ENOSPC`]: they would be too many.
    pub(crate) fn new(shared: &Arc<Shared>, pages: u64) -> Result<Self> {
        let charge = Self {
            shared: shared.clone(),
            pages: pages.min(MAX_PINNED + 1),
        };
        let before = shared.pinned.fetch_add(charge.pages, Relaxed);
        if before.saturating_add(charge.pages) > MAX_PINNED {
            return Err(ENOSPC);
        }
        Ok(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.pinned.fetch_sub(self.pages, Relaxed);
    }
}
