// SPDX-License-Identifier: GPL-2.0

//! A secondary TLB.

use crate::attributes;
use crate::deferral::{Deferral, Drainer, Squeezer};
use crate::engine::Engine;
use crate::ffi::{self, Hardware, Module};
use crate::tunables::{Counters, Tunables};
use kernel::{
    faux::AttributeRegistration,
    kthread::RtThread,
    mm::interval::Owner,
    prelude::*,
    shrinker,
    str::CString,
    sync::{new_condvar, new_mutex, Arc, CondVar, Mutex},
    time::{Instant, Monotonic}, //
};

/// `SCHED_FIFO` priority of the thread that ends the windows of deferred unmaps: above ordinary
/// threads, whose time slices are longer than a window, and below all that is really urgent.
const PRIORITY: u8 = 1;

/// What all who have to do with a device share.
#[pin_data]
pub(crate) struct Device {
    name: CString,
    pub(crate) hardware: Hardware,
    pub(crate) pgmap_owner: Option<Owner>,
    pub(crate) tunables: Tunables,
    pub(crate) counters: Counters,
    pub(crate) born: Instant<Monotonic>,
    /// What is broken on purpose, from the module's parameter.
    #[cfg(nullhz_mmu_mutants)]
    pub(crate) mutant: Option<crate::combine::Mutant>,
    #[pin]
    pub(crate) engine: Engine,
    #[pin]
    pub(crate) deferral: Deferral,
    /// How many spaces there are.
    #[pin]
    spaces: Mutex<usize>,
    #[pin]
    left: CondVar,
}

impl Device {
    /// What the driver calls it.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// How many spaces there are.
    pub(crate) fn spaces(&self) -> usize {
        *self.spaces.lock()
    }
}

/// A device that is registered. Fields are dropped from first to last: nobody sees it any more,
/// nobody asks for its memory any more, then the thread goes.
#[pin_data(PinnedDrop)]
pub(crate) struct Registered {
    device: Arc<Device>,
    #[pin]
    attributes: AttributeRegistration<Arc<Device>>,
    #[pin]
    shrinker: shrinker::Registration<Squeezer>,
    thread: RtThread<Drainer>,
    /// The name is free again when all of that is gone.
    _name: ffi::Reserved,
}

impl Registered {
    /// Announces a device. Process context, may sleep; see `nullhz/mmu_batch.h`.
    pub(crate) fn new(
        name: &CStr,
        hardware: Hardware,
        pgmap_owner: Option<Owner>,
    ) -> Result<Pin<KBox<Self>>> {
        let allowed = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        let bytes = name.to_bytes();
        if bytes.is_empty() || bytes.len() >= crate::abi::NAME_SIZE || !bytes.iter().all(allowed) {
            return Err(EINVAL);
        }
        let reserved = ffi::Reserved::new(name)?;
        let deferral = Deferral::new()?;
        let device = Arc::pin_init(
            try_pin_init!(Device {
                name: CString::try_from(name)?,
                hardware,
                pgmap_owner,
                tunables: Tunables::new(),
                counters: Counters::new(),
                born: Instant::now(),
                #[cfg(nullhz_mmu_mutants)]
                mutant: crate::combine::Mutant::from_number(
                    *crate::module_parameters::mutant.value_ref(),
                ),
                engine <- Engine::new(),
                deferral <- deferral,
                spaces <- new_mutex!(0, "nullhz_mmu_batch_spaces"),
                left <- new_condvar!("nullhz_mmu_batch_spaces"),
            }? Error),
            GFP_KERNEL,
        )?;
        let drainer = Arc::new(Drainer(device.clone()), GFP_KERNEL)?;
        let thread = RtThread::new(c"nullhz_mmu", PRIORITY, drainer)?;
        device.deferral.drained_by(thread.waker());
        let folder = CString::try_from_fmt(fmt!("nullhz_mmu_batch.{}", device.name()))?;
        KBox::pin_init(
            try_pin_init!(Self {
                attributes <- AttributeRegistration::new(
                    &folder, attributes::GROUPS, device.clone(),
                ),
                shrinker <- shrinker::Registration::new(&folder, Squeezer(device.clone())),
                device,
                thread,
                _name: reserved,
            }? Error),
            GFP_KERNEL,
        )
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

#[pinned_drop]
impl PinnedDrop for Registered {
    fn drop(self: Pin<&mut Self>) {
        let device = &self.device;
        let mut spaces = device.spaces.lock();
        if *spaces > 0 {
            let name = device.name();
            pr_warn!(
                "{name}: unregistered with {} spaces: waiting for them\n",
                *spaces
            );
        }
        while *spaces > 0 {
            device.left.wait(&mut spaces);
        }
    }
}

/// A space's stay: the driver cannot be unloaded, and the device waits.
pub(crate) struct Visit {
    device: Arc<Device>,
    _driver: Module,
}

impl Visit {
    /// [`ENODEV`] if the driver is being unloaded.
    pub(crate) fn new(device: Arc<Device>) -> Result<Self> {
        let driver = device.hardware.module()?;
        *device.spaces.lock() += 1;
        Ok(Self {
            device,
            _driver: driver,
        })
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut spaces = self.device.spaces.lock();
        *spaces -= 1;
        if *spaces == 0 {
            self.device.left.notify_all();
        }
    }
}
