// SPDX-License-Identifier: GPL-2.0

//! A standard watchdog, for programs that know nothing of ranks: `/dev/watchdogN`, "nullhz_stall".
//!
//! Who opens it and then stops pinging, as a service manager does when user space has died, is a
//! stall of the node itself: its reason is kept for the next boot and the gate is shut, so that the
//! hardware resets the node a hardware timeout later. The gate does not apply to this device, which
//! would else feed itself.

use crate::abi::{Stall, State, FEEDER, NAME_SIZE};
use crate::ffi;
use crate::monitor::Monitor;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    watchdog::{self, Operations, Options, Registration, Settings}, //
};

const NS_PER_S: u64 = 1_000_000_000;

/// The program that pings the device.
pub(crate) struct Feeder {
    /// `CLOCK_MONOTONIC` of the last ping, ns.
    pinged: Atomic<u64>,
    /// The timeout, ns; 0: stopped.
    timeout: Atomic<u64>,
}

impl Feeder {
    /// There is none.
    pub(crate) const fn new() -> Self {
        Self {
            pinged: Atomic::new(0),
            timeout: Atomic::new(0),
        }
    }

    fn ping(&self, timeout_s: u32) {
        self.pinged.store(ffi::monotonic_ns(), Relaxed);
        let timeout = u64::from(timeout_s.max(1)).saturating_mul(NS_PER_S);
        self.timeout.store(timeout, Relaxed);
    }

    /// The sampler was held up for so long, and the program perhaps as well.
    pub(crate) fn excuse(&self, ns: u64) {
        self.pinged.fetch_add(ns, Relaxed);
    }

    /// Time since the last ping and the timeout, ns, if it is being pinged at all.
    fn times(&self) -> Option<(u64, u64)> {
        let timeout = self.timeout.load(Relaxed);
        let age = ffi::monotonic_ns().saturating_sub(self.pinged.load(Relaxed));
        (timeout != 0).then_some((age, timeout))
    }

    /// Whether its time is up.
    pub(crate) fn is_late(&self) -> bool {
        self.times().is_some_and(|(age, timeout)| age >= timeout)
    }

    /// The part of an event's payload that says who it is.
    pub(crate) fn introduce(&self) -> Stall {
        let (age_ns, deadline_ns) = self.times().unwrap_or_default();
        let mut name = [0; NAME_SIZE];
        for (to, from) in name.iter_mut().zip(b"watchdog feeder") {
            *to = *from;
        }
        Stall {
            rank: FEEDER,
            state: State::Prebite as u32,
            age_ns,
            deadline_ns,
            name,
            ..Stall::ZERO
        }
    }
}

/// The device.
pub(crate) struct Face(Arc<Monitor>);

impl Face {
    /// Registers the device, if there is hardware behind it: without, it would keep no promise, and
    /// be taken for the hardware as the first one, `/dev/watchdog`.
    pub(crate) fn register(
        monitor: &Arc<Monitor>,
    ) -> Result<Option<Pin<KBox<Registration<Self>>>>> {
        if !monitor.watchdog.has_hardware() {
            pr_info!("no hardware watchdog: no standard watchdog of ours\n");
            return Ok(None);
        }
        let bootstatus = match monitor.watchdog.was_ours() {
            true => watchdog::CARD_RESET,
            false => 0,
        };
        let options = Options::new(c"nullhz_stall", 60)
            .timeouts(1, 3600)
            .bootstatus(bootstatus)
            .exempt();
        let face = Registration::new(options, Face(monitor.clone()));
        KBox::pin_init(face, GFP_KERNEL).map(Some)
    }
}

#[vtable]
impl Operations for Face {
    fn start(&self, settings: Settings) -> Result {
        self.0.feeder.ping(settings.timeout);
        Ok(())
    }

    fn stop(&self, _settings: Settings) -> Result {
        self.0.feeder.timeout.store(0, Relaxed);
        Ok(())
    }

    fn ping(&self, settings: Settings) -> Result {
        self.0.feeder.ping(settings.timeout);
        Ok(())
    }

    fn timeleft(&self) -> u32 {
        let (age, timeout) = self.0.feeder.times().unwrap_or_default();
        (timeout.saturating_sub(age) / NS_PER_S) as u32
    }
}
