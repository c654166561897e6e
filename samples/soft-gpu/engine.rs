// SPDX-License-Identifier: GPL-2.0

//! Accesses of the device: translate, fault if need be, touch the page, judge what is there.

use crate::abi::{self, Mark, Stamp};
use crate::context::Context;
use crate::ffi;
use crate::hardware::Hardware;
use crate::oracle::{Oracle, Verdict};
use crate::table::Pte;
use crate::tlb::{Access, Tag, Tlb};
use kernel::{
    mm::{
        hmm::{self, Frame},
        MmWithUser, //
    },
    prelude::*,
    processor::cpu_relax,
    sync::atomic::Relaxed,
    time::{delay::fsleep, Delta}, //
};

/// Faults for one access, or events during one fault, after which it is given up.
const ATTEMPTS: u32 = 100;
/// What the memory management may take to come to rest.
const PATIENCE: Delta = Delta::from_secs(1);
const SPINS: u32 = 1000;
const NAP: Delta = Delta::from_micros(20);

/// What came of an access.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// [`abi::STAMPED`] to [`abi::VIOLATION`].
    pub(crate) outcome: u32,
    /// Of the violation.
    pub(crate) kind: u32,
    /// Translated by the TLB.
    pub(crate) hit: bool,
    /// Whether the mark was written.
    pub(crate) written: bool,
    /// Pages faulted in.
    pub(crate) faults: u32,
    pub(crate) stamp: Stamp,
}

impl Tlb {
    /// Begins an access when the one in flight has ended. May sleep.
    fn enter(&self) -> Access<'_> {
        let mut spins = 0;
        loop {
            if let Some(access) = self.begin() {
                return access;
            }
            if spins < SPINS {
                spins += 1;
                cpu_relax();
            } else {
                // Its thread was preempted.
                fsleep(NAP);
            }
        }
    }
}

/// What translates an address: the entry, and whether the TLB had it.
fn translate(
    hardware: &Hardware,
    context: &Context,
    access: &Access<'_>,
    address: u64,
    write: bool,
) -> Option<(Pte, bool)> {
    let fits = |pte: &Pte| pte.is_writable() || !write;
    let tag = Tag::new(context.shared.number().into(), address);
    if let Some(pte) = access.lookup(tag).and_then(Pte::from_raw).filter(fits) {
        return Some((pte, true));
    }
    let pte = context.shared.table.walk(address);
    hardware.walk_delay();
    let pte = pte.filter(fits)?;
    access.fill(tag, pte.as_raw());
    Some((pte, false))
}

impl Context {
    /// An access to the page at `address` by the TLB of `cpu`; `write` is the number of a write.
    ///
    /// Process context, may sleep.
    pub(crate) fn access(
        &self,
        oracle: Option<&Oracle>,
        cpu: u32,
        tlb: &Tlb,
        address: u64,
        write: Option<u64>,
    ) -> Seen {
        let hardware = &*self.shared.hardware;
        let mut seen = Seen {
            outcome: abi::REFUSED,
            kind: 0,
            hit: false,
            written: false,
            faults: 0,
            stamp: Stamp::ZERO,
        };
        for _ in 0..ATTEMPTS {
            // Before the access begins.
            let expected = oracle.and_then(|oracle| oracle.expected(address));
            let access = tlb.enter();
            let translation = translate(hardware, self, &access, address, write.is_some());
            let Some((pte, hit)) = translation else {
                drop(access);
                seen.hit = false;
                if self.fault(address, write.is_some()).is_err() {
                    return seen;
                }
                seen.faults += 1;
                continue;
            };
            seen.hit = hit;
            let Some(stamp) = ffi::read(&access, pte) else {
                return seen;
            };
            seen.stamp = stamp;
            let Some(expected) = expected else {
                seen.outcome = abi::UNJUDGED;
                return seen;
            };
            match expected.judge(&stamp) {
                Verdict::Stamped => seen.outcome = abi::STAMPED,
                Verdict::Blank => seen.outcome = abi::BLANK,
                Verdict::Violation(kind) => {
                    drop(access);
                    seen.outcome = abi::VIOLATION;
                    seen.kind = kind;
                    self.shared.violation(abi::Violation {
                        index: 0,
                        kind,
                        cpu,
                        hit: hit.into(),
                        mono_ns: ffi::monotonic_ns(),
                        address,
                        minimum: expected.minimum,
                        pfn: pte.pfn() as u64,
                        seen: stamp,
                    });
                    return seen;
                }
            }
            if let Some(writes) = write {
                if seen.outcome == abi::STAMPED && !hardware.is_mutant() {
                    let mark = Mark {
                        owner: stamp.owner,
                        address,
                        generation: stamp.generation,
                        writes,
                    };
                    // SAFETY: `translate()` gave the entry for this access, as one that may be
                    // written. An access that begins, as this one, before a mutant is turned on,
                    // has ended before the first flush that does not wait for it.
                    unsafe { ffi::write(&access, pte, &mark) };
                    seen.written = true;
                }
            }
            return seen;
        }
        seen
    }

    /// Faults the page at `address` in. Process context, may sleep.
    ///
    /// [`EFAULT`]: it is not registered, not mapped, or may not be written; [`EBUSY`]: events kept
    /// coming; [`ESRCH`]: the process has gone; [`EINTR`], [`ENOMEM`], [`ENOSPC`].
    pub(crate) fn fault(&self, address: u64, write: bool) -> Result {
        let counters = &self.shared.counters;
        let result = self.try_fault(address, write);
        match result {
            Ok(()) => counters.faults.add(1, Relaxed),
            Err(_) => counters.refused.add(1, Relaxed),
        }
        result
    }

    fn try_fault(&self, address: u64, write: bool) -> Result {
        let notifier = self.mirror.lock().find(address).ok_or(EFAULT)?;
        while let Err(error) = self.shared.table.prepare(address) {
            if error != EAGAIN {
                return Err(error);
            }
            cpu_relax();
        }
        // The last user of the memory tears it down, which takes long and takes our locks: not
        // here.
        let mm = MmWithUser::into_mmput_async(self.mm.mmget_not_zero().ok_or(ESRCH)?);
        let kind = if write {
            hmm::Access::Write
        } else {
            hmm::Access::Read
        };
        for _ in 0..ATTEMPTS {
            let mut frames = [Frame::default()];
            let sequence = hmm::fault(
                &mm,
                notifier.kernel(),
                address as usize,
                kind,
                &mut frames,
                PATIENCE,
            )?;
            let [frame] = frames;
            let pfn = frame.pfn().ok_or(EFAULT)?;
            if write && !frame.is_writable() {
                return Err(EFAULT);
            }
            let pte = Pte::new(pfn, write);
            let installed = notifier.install(sequence, |shared| {
                if write {
                    // SAFETY: No event came since the page was found mapped, and one that comes
                    // now waits for the lock that is held here before the page is unmapped.
                    unsafe { ffi::mark_dirty(pte) };
                }
                shared.table.install(address, pte);
            });
            if installed.is_some() {
                return Ok(());
            }
            self.shared.counters.retries.add(1, Relaxed);
        }
        Err(EBUSY)
    }
}
