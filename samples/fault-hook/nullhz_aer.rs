// SPDX-License-Identifier: GPL-2.0

//! nullhz_aer: errors of PCI Express devices as events on the fault bus, before the kernel starts
//! to recover the device. nullhz_aer_c is the same in C.
//!
//! | error | level | why |
//! |---|---|---|
//! | fatal | IMMINENT | the link is going to be reset, and what the device was doing is lost |
//! | non-fatal | DEGRADING | a transaction has failed; its driver may recover |
//! | correctable | WATCH | the hardware has helped itself |
//! | correctable, each 60th of a device in a minute | DEGRADING | the link is getting worse |

use kernel::{
    new_mutex,
    pci::{
        self,
        aer::{Notifier, Registration, Report, Severity}, //
    },
    prelude::*,
    sync::Mutex,
    time::{Delta, Instant, Monotonic}, //
};

#[path = "../../drivers/include/nullhz/fault.rs"]
mod fault;
use fault::abi::{aer, source, Aer, Level};

module! {
    type: AerModule,
    name: "nullhz_aer",
    authors: ["nullhz"],
    description: "PCI Express errors for the fault bus",
    license: "GPL",
}

/// So many correctable errors of a device in [`WINDOW`] are too many.
const LIMIT: u32 = 60;
const WINDOW: Delta = Delta::from_secs(60);
/// How many devices are told apart; if there are more, old ones are forgotten.
const DEVICES: usize = 64;

/// Correctable errors of a device.
#[derive(Clone, Copy)]
struct Counts {
    /// Domain, and bus, device and function.
    device: Option<(i32, u16)>,
    /// When the window began.
    since: Instant<Monotonic>,
    in_window: u32,
    total: u32,
}

impl Counts {
    fn new(device: Option<(i32, u16)>) -> Self {
        Self {
            device,
            since: Instant::now(),
            in_window: 0,
            total: 0,
        }
    }
}

#[pin_data]
struct Hook {
    bus: fault::Source,
    #[pin]
    counts: Mutex<[Counts; DEVICES]>,
}

impl Hook {
    /// Counts a correctable error; returns how many there were, and whether they are too many.
    fn count(&self, device: &pci::Device) -> (u32, bool) {
        let id = Some((device.domain(), device.dev_id()));
        let mut counts = self.counts.lock();
        // Its own entry, or else the oldest.
        let order = |entry: &&mut Counts| (entry.device == id, entry.since.elapsed());
        let Some(entry) = counts.iter_mut().max_by_key(order) else {
            return (0, false);
        };
        if entry.device != id {
            *entry = Counts::new(id);
        } else if entry.since.elapsed() >= WINDOW {
            (entry.since, entry.in_window) = (Instant::now(), 0);
        }
        entry.in_window += 1;
        entry.total = entry.total.saturating_add(1);
        (entry.total, entry.in_window.is_multiple_of(LIMIT))
    }
}

impl Notifier for Hook {
    fn notify(&self, report: &Report) {
        let device = report.device();
        let [bus, devfn] = device.dev_id().to_be_bytes();
        let (kind, level, corrected) = match report.severity() {
            Severity::Fatal => (aer::FATAL, Level::Imminent, 0),
            Severity::NonFatal => (aer::NONFATAL, Level::Degrading, 0),
            Severity::Correctable => match self.count(device) {
                (total, true) => (aer::CORRECTABLE, Level::Degrading, total),
                (total, false) => (aer::CORRECTABLE, Level::Watch, total),
            },
        };
        let payload = Aer {
            status: report.status(),
            advisory: report.advisory_status(),
            tlp: report.tlp_header().unwrap_or_default(),
            corrected,
            domain: device.domain() as u32,
            vendor: device.vendor_id().as_raw(),
            device: device.device_id(),
            bus,
            devfn,
            has_tlp: report.tlp_header().is_some().into(),
            pad: 0,
        };
        let event = fault::Report {
            kind,
            payload: &payload.to_bytes(),
            ..fault::Report::new(level)
        };
        if let Err(error) = self.bus.report(&event) {
            dev_err!(device, "not on the fault bus: {error:?}\n");
        }
    }
}

#[pin_data]
struct AerModule {
    #[pin]
    registration: Registration<Hook>,
}

impl kernel::InPlaceModule for AerModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let hook = try_pin_init!(Hook {
            bus: fault::Source::register(source::PCIE_AER, c"pcie_aer")?,
            counts <- new_mutex!([Counts::new(None); DEVICES]),
        }? Error);
        try_pin_init!(Self { registration <- Registration::new(0, hook) }? Error)
    }
}
