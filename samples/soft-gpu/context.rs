// SPDX-License-Identifier: GPL-2.0

//! A context of the device: what an open file is.

use crate::abi;
use crate::buffers::{Buffers, APERTURE};
use crate::mirror::Mirror;
use crate::mmu_batch::{self, Cause};
use crate::notify::Space;
use crate::oracle::{Oracle, Pages};
use crate::run::Run;
use crate::shared::{Number, Shared};
use crate::table::END;
use crate::tlb::ENTRIES;
use crate::{Gpu, Port};
use kernel::{
    mm::{Mm, MmWithUser},
    new_mutex,
    prelude::*,
    sync::{aref::ARef, atomic::Relaxed, Arc, Mutex},
    task::CurrentTask,
};

/// What can be done with the device.
const FEATURES: u32 = abi::feature::BIND
    | abi::feature::FAULTS
    | abi::feature::WRITE
    | abi::feature::MORE
    | if cfg!(nullhz_mmu_mutants) {
        abi::feature::MUTANTS
    } else {
        0
    };

/// The runs of a context.
struct Runs {
    all: KVec<Run>,
    last_id: u32,
}

/// A context.
///
/// Locks are taken in the order of these fields; none of them is taken by notifiers.
#[pin_data]
pub(crate) struct Context {
    pub(crate) mm: ARef<Mm>,
    pub(crate) shared: Arc<Shared>,
    space: Arc<Space>,
    #[pin]
    runs: Mutex<Runs>,
    #[pin]
    buffers: Mutex<Buffers>,
    #[pin]
    oracle: Mutex<Option<Arc<Oracle>>>,
    #[pin]
    pub(crate) mirror: Mutex<Mirror>,
}

/// The mirror does not shrink while it exists.
struct Active<'a>(&'a Context);

impl<'a> Active<'a> {
    fn new(context: &'a Context) -> Self {
        context.mirror.lock().begin();
        Self(context)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.mirror.lock().end();
    }
}

fn check_flags(flags: u32, known: u32) -> Result {
    if flags & !known != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

impl Context {
    /// Of the current process.
    pub(crate) fn new(gpu: &Gpu) -> Result<Arc<Self>> {
        let task = current!();
        let mm = task.mm().ok_or(EINVAL)?;
        let number = Number::take(&gpu.numbers)?;
        let tag = number.get().into();
        let shared = Shared::new(gpu.hardware.clone(), number)?;
        let space = mmu_batch::Space::new::<Port>(gpu.port.clone(), mm, tag, shared.clone())?;
        let buffers = Buffers::new()?;
        let runs = Runs {
            all: KVec::new(),
            last_id: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                mm: ARef::from(&**mm),
                shared,
                space,
                runs <- new_mutex!(runs, "nullhz_soft_gpu_runs"),
                buffers <- new_mutex!(buffers, "nullhz_soft_gpu_buffers"),
                oracle <- new_mutex!(None, "nullhz_soft_gpu_oracle"),
                mirror <- new_mutex!(Mirror::new(), "nullhz_soft_gpu_mirror"),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn info(&self) -> abi::Info {
        abi::Info {
            abi_version: abi::ABI_VERSION,
            modes: (1 << abi::MODES) - 1,
            features: FEATURES,
            mode: self.mirror.lock().mode(),
            cpus: self.shared.hardware.cpus(),
            tlb_entries: ENTRIES as u32,
            context: self.shared.number(),
            pad: 0,
            aperture: APERTURE.start,
            aperture_size: APERTURE.end - APERTURE.start,
        }
    }

    fn is_batched(&self) -> bool {
        self.mirror.lock().is_batched()
    }

    pub(crate) fn mode(&self, raw: &abi::Mode, mm: &MmWithUser) -> Result {
        if raw.pad != 0 || raw.mode >= abi::MODES {
            return Err(EINVAL);
        }
        let buffers = self.buffers.lock();
        if !buffers.is_empty() {
            return Err(EBUSY);
        }
        self.space.drain(Cause::Submit);
        let mut mirror = self.mirror.lock();
        mirror.switch(raw.mode, mm, &self.shared, &self.space)
    }

    pub(crate) fn register(&self, raw: &abi::Range, mm: &MmWithUser) -> Result {
        let mut mirror = self.mirror.lock();
        mirror.register(raw, mm, &self.shared, &self.space)
    }

    pub(crate) fn unregister(&self, raw: &abi::Range) -> Result {
        let mut mirror = self.mirror.lock();
        mirror.unregister(raw, &self.shared, &self.space)
    }

    pub(crate) fn prefetch(&self, raw: &abi::Prefetch) -> Result<abi::Prefetch> {
        check_flags(raw.flags, abi::WRITE)?;
        if raw.pad != 0 {
            return Err(EINVAL);
        }
        let pages = Pages::new(&raw.pages)?;
        let _active = Active::new(self);
        let mut out = *raw;
        (out.filled, out.refused) = (0, 0);
        for page in 0..pages.count() {
            if current!().signal_pending() {
                return Err(EINTR);
            }
            let filled = self
                .fault(pages.address(page), raw.flags & abi::WRITE != 0)
                .is_ok();
            *if filled {
                &mut out.filled
            } else {
                &mut out.refused
            } += 1;
        }
        Ok(out)
    }

    pub(crate) fn judge(&self, raw: &abi::Oracle) -> Result {
        let runs = self.runs.lock();
        if !runs.all.is_empty() {
            return Err(EBUSY);
        }
        // The old one's pages do not count any more.
        *self.oracle.lock() = None;
        if raw.pages.count != 0 {
            let oracle = Arc::new(Oracle::new(raw, &self.shared)?, GFP_KERNEL_ACCOUNT)?;
            *self.oracle.lock() = Some(oracle);
        }
        Ok(())
    }

    /// [`EPERM`]: a write, while flushes do not wait for it.
    fn check_write(&self, flags: u32) -> Result {
        if flags & abi::WRITE != 0 && self.shared.hardware.is_mutant() {
            return Err(EPERM);
        }
        Ok(())
    }

    pub(crate) fn run(context: &Arc<Self>, raw: &abi::Run) -> Result<abi::Run> {
        check_flags(raw.flags, abi::WRITE | abi::RANDOM)?;
        if raw.pad != 0 {
            return Err(EINVAL);
        }
        context.check_write(raw.flags)?;
        context.submit();
        let oracle = context.oracle.lock().clone();
        let mut runs = context.runs.lock();
        if runs.all.len() >= abi::MAX_RUNS {
            return Err(ENOSPC);
        }
        runs.all.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let id = runs.last_id % (u32::MAX / 2) + 1;
        let active = Active::new(context);
        let run = Run::start(context, oracle, raw, id)?;
        // Active until it is stopped.
        core::mem::forget(active);
        runs.last_id = id;
        // There is room.
        let _ = runs.all.push_within_capacity(run);
        Ok(abi::Run { run: id, ..*raw })
    }

    fn end(&self, run: Run) -> abi::Stop {
        let report = run.stop();
        self.mirror.lock().end();
        report
    }

    pub(crate) fn stop(&self, raw: &abi::Stop) -> Result<abi::Stop> {
        check_flags(raw.flags, abi::WAIT)?;
        let find = |runs: &Runs| runs.all.iter().position(|run| run.id() == raw.run);
        if raw.flags & abi::WAIT != 0 {
            let runs = self.runs.lock();
            let run = find(&runs).and_then(|index| runs.all.get(index));
            let worker = run.ok_or(ENOENT)?.worker();
            drop(runs);
            worker.wait()?;
        }
        let mut runs = self.runs.lock();
        // Somebody else may have been faster.
        let index = find(&runs).ok_or(ENOENT)?;
        let run = runs.all.remove(index).map_err(|_| ENOENT)?;
        drop(runs);
        Ok(abi::Stop {
            run: raw.run,
            flags: raw.flags,
            ..self.end(run)
        })
    }

    pub(crate) fn access_once(&self, raw: &abi::Access) -> Result<abi::Access> {
        check_flags(raw.flags, abi::WRITE)?;
        let tlb = self.shared.hardware.tlb(raw.cpu).ok_or(EINVAL)?;
        if raw.address % abi::PAGE != 0 || raw.address >= END {
            return Err(EINVAL);
        }
        self.check_write(raw.flags)?;
        let _active = Active::new(self);
        let oracle = self.oracle.lock().clone();
        let write = (raw.flags & abi::WRITE != 0).then_some(1);
        let seen = self.access(oracle.as_deref(), raw.cpu, tlb, raw.address, write);
        self.shared.counters.accesses.add(1, Relaxed);
        Ok(abi::Access {
            outcome: seen.outcome,
            kind: seen.kind,
            hit: seen.hit.into(),
            faults: seen.faults,
            stamp: seen.stamp,
            ..*raw
        })
    }

    pub(crate) fn bind(&self, raw: &abi::Bind) -> Result {
        let mut buffers = self.buffers.lock();
        buffers.bind(raw, self.is_batched(), &self.shared, &self.space)
    }

    pub(crate) fn unbind(&self, raw: &abi::Bind) -> Result {
        let mut buffers = self.buffers.lock();
        buffers.unbind(raw, &self.shared, &self.space)
    }

    /// The device is about to be given work, which must not see what was unmapped.
    pub(crate) fn submit(&self) {
        if self.is_batched() {
            self.space.drain(Cause::Submit);
        }
    }

    pub(crate) fn counters(&self) -> abi::Counters {
        let mut counters = abi::Counters::ZERO;
        self.shared.counters.count(&mut counters);
        counters.tables = self.shared.table.tables();
        self.shared.hardware.count(&mut counters);
        let mirror = self.mirror.lock();
        counters.intervals = mirror.intervals();
        counters.notifiers = mirror.notifiers();
        counters
    }

    /// The end of the open file: nobody calls anything any more but notifiers.
    pub(crate) fn close(&self) {
        let runs = core::mem::take(&mut self.runs.lock().all);
        for run in runs {
            self.end(run);
        }
        self.buffers.lock().close(&self.shared, &self.space);
        self.mirror.lock().close(&self.shared, &self.space);
    }

    /// The memory of `task`. [`EPERM`] unless it is the context's.
    pub(crate) fn check_mm<'a>(&self, task: &'a CurrentTask) -> Result<&'a MmWithUser> {
        let mm = task.mm().ok_or(EPERM)?;
        if mm.as_raw() != self.mm.as_raw() {
            return Err(EPERM);
        }
        Ok(mm)
    }
}
