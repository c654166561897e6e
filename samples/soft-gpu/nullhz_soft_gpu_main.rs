// SPDX-License-Identifier: GPL-2.0

//! nullhz_soft_gpu: a GPU in software, to prove drivers' invalidations with.
//!
//! Its device threads reach memory only through per-CPU TLBs and a page table that mirrors the
//! memory of processes. The driver part keeps those in step with the memory management in one of
//! four ways, three as drivers do it today, one with nullhz_mmu_batch, and an oracle tells whether
//! an access ever went to a page that had been taken back:
//!
//! ```text
//!   munmap(), reclaim, ... --> notify (B0 B1 B2 | nullhz_mmu_batch) --> table: zap
//!                                        |                                ^ walk, install
//!                                        v                                |
//!                              hardware: flush --broadcast--> tlb <-- engine <-- run (threads)
//!                                                                       |
//!                                             oracle <-- stamp <-- page of the process
//! ```
//!
//! A sample and a test bench: each flush interrupts all CPUs, isolated ones too.

use kernel::{
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::Arc, //
};

mod abi;
mod buffers;
mod context;
mod device;
mod engine;
mod ffi;
mod hardware;
mod mirror;
#[path = "../../drivers/include/nullhz/mmu_batch.rs"]
mod mmu_batch;
mod notify;
mod oracle;
mod run;
mod shared;
mod table;
mod tlb;

use device::Handle;
use hardware::Hardware;
use mmu_batch::{DeviceOps, Flush};
use shared::Numbers;

#[cfg(all(nullhz_mmu_mutants, not(CONFIG_KUNIT)))]
compile_error!("mutants are for test kernels only");

module! {
    type: SoftGpuModule,
    name: "nullhz_soft_gpu",
    authors: ["nullhz"],
    description: "Software GPU with an oracle, a sample of nullhz_mmu_batch",
    license: "GPL",
}

/// How the library reaches the device.
pub(crate) struct Port(Arc<Hardware>);

impl DeviceOps for Port {
    fn flush(&self, spans: Flush<'_>) -> Result {
        match spans {
            Flush::All => self.0.flush(None),
            Flush::Spans(spans) => self.0.flush(Some(spans)),
        }
    }

    fn reset(&self) -> Result {
        pr_warn!("a flush was not acknowledged, the device is reset\n");
        self.0.reset()
    }
}

/// The device and its driver.
pub(crate) struct Gpu {
    numbers: Arc<Numbers>,
    hardware: Arc<Hardware>,
    port: Arc<mmu_batch::Device<Port>>,
}

#[pin_data]
struct SoftGpuModule {
    #[pin]
    device: MiscDeviceRegistration<Handle>,
}

impl kernel::InPlaceModule for SoftGpuModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let hardware = Arc::pin_init(Hardware::new()?, GFP_KERNEL)?;
            let port = Port(hardware.clone());
            let gpu = Gpu {
                numbers: Arc::pin_init(Numbers::new(), GFP_KERNEL)?,
                hardware,
                port: mmu_batch::Device::register(c"soft-gpu", module, port, None)?,
            };
            let options = MiscDeviceOptions::new(c"nullhz-soft-gpu").mode(0o660);
            Ok(try_pin_init!(Self {
                device <- MiscDeviceRegistration::register(options, gpu),
            }? Error))
        })
    }
}
