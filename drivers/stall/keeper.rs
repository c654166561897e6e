// SPDX-License-Identifier: GPL-2.0

//! The thread that looks after the hardware watchdog, which may make it wait, and what happens to
//! that at the end of a boot.

use crate::monitor::Monitor;
use kernel::{
    kthread::{Handler, Next},
    reboot::{Action, PanicNotifier, RebootNotifier},
    sync::Arc,
    time::Delta, //
};

/// `SCHED_FIFO` priority: below the sampler.
pub(crate) const PRIORITY: u8 = 78;
/// Of the notifier of a reboot: before those of the watchdogs' core, which stop the devices unless
/// the gate is shut by then.
pub(crate) const REBOOT_PRIORITY: i32 = 1;
/// How often it looks, besides when something has been changed.
const PERIOD: Delta = Delta::from_secs(1);

/// The thread's work.
pub(crate) struct Keeper(pub(crate) Arc<Monitor>);

impl Handler for Keeper {
    fn run(&self) -> Next {
        self.0.keep();
        Next::After(PERIOD)
    }
}

/// Hears of the end of a boot.
pub(crate) struct End(pub(crate) Arc<Monitor>);

impl RebootNotifier for End {
    fn reboot(&self, action: Action) {
        self.0.watchdog.reboot(action, &self.0.tunables);
    }
}

impl PanicNotifier for End {
    fn panic(&self) {
        self.0.watchdog.panic();
    }
}
