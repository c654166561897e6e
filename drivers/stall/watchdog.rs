// SPDX-License-Identifier: GPL-2.0

//! The hardware watchdog's side: the permit, the ledger of resets, and whether there is anything
//! that would reset the node.
//!
//! While a rank's stall, or a stop of the sampler, is to reset the node it is *armed*: then the
//! gate lets pings through only as long as the sampler has extended its permit. Otherwise the
//! permit never ends.

use crate::abi::Held;
use crate::budget::{Ending, Ledger, Mark, Moment};
use crate::ffi;
use crate::ladder::Node;
use crate::stores::Stores;
use crate::timeout::set_longest;
use crate::tunables::Tunables;
use kernel::{
    pr_warn_once,
    prelude::*,
    reboot::Action,
    sync::{
        atomic::{Atomic, AtomicFlag, Relaxed},
        new_mutex,
        raw::{new_raw_spinlock, RawSpinLock},
        Mutex,
    },
    time::{BootTime, Delta, Instant},
    watchdog::gate::{Device, Gate}, //
};

/// Longer than any machine runs: about a century.
const FOREVER: Delta = Delta::from_secs(100 * 365 * 24 * 3600);

const NS_PER_S: u64 = 1_000_000_000;

/// Who may open the gate, and how far.
struct Mode {
    armed: bool,
    /// Shut by a bite, or for a reboot.
    shut: bool,
    /// The machine is going down: what is open stays so, and what is shut too.
    down: bool,
}

/// What the firmware's store has.
struct Kept {
    ledger: Option<Ledger>,
    /// The last write has failed, which was told.
    failing: bool,
}

impl Kept {
    const NOTHING: Self = Self {
        ledger: None,
        failing: false,
    };

    /// Brings the store up to date, or leaves that to the next call.
    fn update(&mut self, stores: &Stores, ledger: &Ledger) {
        if self.ledger.as_ref() == Some(ledger) {
            return;
        }
        match stores.write_firmware(ledger) {
            Ok(()) => {
                self.ledger = Some(*ledger);
                self.failing = false;
            }
            Err(error) => {
                if !core::mem::replace(&mut self.failing, true) {
                    pr_warn!("erst: cannot be written, tried again each second: {error:?}\n");
                }
            }
        }
    }
}

/// The hardware watchdog's side.
#[pin_data]
pub(crate) struct Watchdog {
    /// [`None`]: somebody else has a gate.
    gate: Option<Gate>,
    pub(crate) stores: Stores,
    #[pin]
    ledger: RawSpinLock<Ledger>,
    /// When the module was loaded, seconds since 1970 as the clock was then.
    loaded_s: u64,
    /// The same on a clock that nobody sets, and that goes on during suspend.
    loaded: Instant<BootTime>,
    #[pin]
    kept: Mutex<Kept>,
    #[pin]
    mode: Mutex<Mode>,
    /// Held by who starts, feeds or stops devices, which waits for drivers: the sampler never does.
    /// Before [`Mode`]'s lock.
    #[pin]
    tending: Mutex<()>,
    armed: AtomicFlag,
    exhausted: AtomicFlag,
    resets: Atomic<u32>,
    /// The timeout that was asked for last.
    fed_s: Atomic<u32>,
    /// Devices that are fed although no reset is wanted; a bit each.
    appeased: Atomic<u32>,
    timeout_ms: Atomic<u32>,
    /// How the boot before ended, as far as was known at load.
    pub(crate) ending: Ending,
    /// There was no hardware yet that could have told, and it matters.
    unasked: AtomicFlag,
}

/// The permit that a whole pass gives.
fn permit(tunables: &Tunables) -> Delta {
    Delta::from_millis(tunables.permit_ms.load(Relaxed).into())
}

/// Devices that can reset the node: not our own face.
fn devices(gate: &Gate) -> impl Iterator<Item = Device> + '_ {
    gate.devices().filter(|device| !device.exempt())
}

impl Watchdog {
    /// Installs the gate, wide open, and finds out how the boot before ended. Process context.
    pub(crate) fn new(limit: u32) -> impl PinInit<Self> {
        let gate = Gate::install(FOREVER)
            .inspect_err(|error| pr_warn!("no reset will be held back or caused: {error:?}\n"))
            .ok();
        let stores = Stores::find();
        let found = stores.read();
        let hardware = gate.iter().flat_map(devices);
        let asked = hardware.map(|device| device.card_reset());
        let asked = asked.reduce(|one, other| one | other);
        let reset = asked == Some(true);
        let watchdog = match (reset, found.cold) {
            (true, _) => Some(true),
            // Reserved RAM has lost what it had: so the power was off.
            (false, true) => Some(false),
            (false, false) => None,
        };
        let mut ledger = found.ledger.unwrap_or(Ledger::EMPTY);
        let told = ledger.mark() == Mark::Unloaded;
        let loaded_s = ffi::real_ns() / NS_PER_S;
        let ending = ledger.boot(loaded_s, watchdog);
        let known = matches!(ending, Ending::Reset | Ending::Bitten);
        stores.write_ram(&ledger);
        let mut kept = Kept::NOTHING;
        kept.update(&stores, &ledger);
        let now = Moment {
            loaded: loaded_s,
            elapsed: 0,
        };
        let (resets, exhausted) = (ledger.resets(now), ledger.exhausted(now, limit));
        pin_init!(Self {
            loaded_s,
            loaded: Instant::now(),
            gate,
            stores,
            kept <- new_mutex!(kept, "nullhz_stall_kept"),
            ledger <- new_raw_spinlock!(ledger, "nullhz_stall_ledger"),
            mode <- new_mutex!(
                Mode {
                    armed: false,
                    shut: false,
                    down: false,
                },
                "nullhz_stall_mode"
            ),
            tending <- new_mutex!((), "nullhz_stall_tending"),
            armed: AtomicFlag::new(false),
            exhausted: AtomicFlag::new(exhausted),
            resets: Atomic::new(resets),
            fed_s: Atomic::new(0),
            appeased: Atomic::new(0),
            timeout_ms: Atomic::new(0),
            ending,
            unasked: AtomicFlag::new(asked.is_none() && !told && !known),
        })
    }

    fn now(&self) -> Moment {
        let elapsed_ns = self.loaded.elapsed().as_nanos();
        Moment {
            loaded: self.loaded_s,
            elapsed: u64::try_from(elapsed_ns).unwrap_or(0) / NS_PER_S,
        }
    }

    /// Whether there is any hardware.
    pub(crate) fn has_hardware(&self) -> bool {
        self.gate.iter().flat_map(devices).next().is_some()
    }

    /// Whether a watchdog has ended the boot before.
    pub(crate) fn was_ours(&self) -> bool {
        matches!(self.ending, Ending::Reset | Ending::Bitten)
    }

    /// Asks hardware whose driver came late whether it has reset the node; true once, if it has.
    pub(crate) fn was_reset(&self) -> bool {
        let Some(gate) = self.gate.as_ref().filter(|_| self.unasked.load(Relaxed)) else {
            return false;
        };
        let asked = devices(gate).map(|device| device.card_reset());
        let Some(reset) = asked.reduce(|one, other| one | other) else {
            return false;
        };
        self.unasked.store(false, Relaxed);
        if reset {
            self.change(|ledger| {
                ledger.boot(self.loaded_s, Some(true));
            });
        }
        reset
    }

    /// What the node allows.
    pub(crate) fn node(&self, tunables: &Tunables) -> Node {
        Node {
            armed: self.armed.load(Relaxed),
            exhausted: self.exhausted.load(Relaxed),
            counts: tunables.evidence.load(Relaxed),
        }
    }

    /// Why the node would not be reset, whatever happens.
    pub(crate) fn held(&self) -> Held {
        match (self.exhausted.load(Relaxed), self.armed.load(Relaxed)) {
            (true, _) => Held::Budget,
            (false, false) => Held::Disarmed,
            (false, true) => Held::Not,
        }
    }

    /// Watchdog resets within the budget's window.
    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Relaxed)
    }

    /// Timeout of the hardware watchdog, ms; 0: none runs.
    pub(crate) fn timeout_ms(&self) -> u32 {
        self.timeout_ms.load(Relaxed)
    }

    /// After a whole pass: permits pings for a while. Tells whether they are permitted.
    pub(crate) fn extend(&self, tunables: &Tunables) -> bool {
        match &self.gate {
            Some(gate) => gate.extend(permit(tunables)),
            None => true,
        }
    }

    /// Lets the node be reset: no ping any more. Any rank's reason has been kept by now.
    pub(crate) fn shut(&self) {
        let mut mode = self.mode.lock();
        if mode.down {
            return;
        }
        mode.shut = true;
        if let Some(gate) = &self.gate {
            gate.shut();
        }
        self.mark(&mode, Mark::Shut);
    }

    /// The reason to reset the node is gone.
    pub(crate) fn reopen(&self, tunables: &Tunables) {
        let mut mode = self.mode.lock();
        if mode.down {
            return;
        }
        mode.shut = false;
        self.open(&mode, tunables);
        let open = if mode.armed { Mark::Armed } else { Mark::Clean };
        self.mark(&mode, open);
    }

    fn open(&self, mode: &Mode, tunables: &Tunables) {
        if let Some(gate) = &self.gate {
            gate.open(if mode.armed {
                permit(tunables)
            } else {
                FOREVER
            });
        }
    }

    /// Changes the ledger, in reserved RAM too, where an older one never replaces a newer one.
    fn change(&self, change: impl FnOnce(&mut Ledger)) {
        self.ledger.with(|ledger| {
            change(ledger);
            self.stores.write_ram(ledger);
        });
    }

    /// Marks how this boot is doing. With the mode's lock held, so that the last mark is of what
    /// happened last.
    fn mark(&self, _mode: &Mode, mark: Mark) {
        self.change(|ledger| {
            if ledger.mark() != mark {
                ledger.set(mark);
            }
        });
    }

    /// Looks after the hardware: starts and feeds watchdogs if nobody feeds one, and arms or
    /// disarms the node. May wait for a driver: never called by the sampler.
    pub(crate) fn tend(&self, tunables: &Tunables) {
        let limit = tunables.budget.load(Relaxed);
        let now = self.now();
        let ledger = self.ledger.with(|ledger| *ledger);
        let (resets, exhausted) = (ledger.resets(now), ledger.exhausted(now, limit));
        self.resets.store(resets, Relaxed);
        self.exhausted.store(exhausted, Relaxed);

        // The sampler has left this to us.
        self.keep_in_firmware();

        let Some(gate) = &self.gate else {
            return;
        };
        let _tending = self.tending.lock();
        let (shut, down) = {
            let mode = self.mode.lock();
            (mode.shut, mode.down)
        };
        if down {
            return;
        }
        let wanted = tunables.reset.load(Relaxed) != 0 && !exhausted;
        if !shut {
            match (tunables.feed.load(Relaxed) != 0, wanted) {
                (true, true) => self.feed_devices(gate, tunables.feed_timeout_s.load(Relaxed)),
                (appease, _) => self.leave_devices(gate, appease),
            }
        }
        let running = devices(gate).filter(|device| device.running());
        let timeout_s = running.map(|device| device.timeout()).min();
        let timeout_ms = timeout_s.map_or(0, |s| s.saturating_mul(1000).max(1));
        self.timeout_ms.store(timeout_ms, Relaxed);
        self.arm(wanted && timeout_ms != 0, tunables);
    }

    fn feed_devices(&self, gate: &Gate, timeout_s: u32) {
        self.appeased.store(0, Relaxed);
        // Which of them really resets the machine nobody can tell, not even one that runs since
        // the firmware has started it: so it is all of them, unless user space has made its choice.
        if devices(gate).any(|device| device.active()) {
            return;
        }
        let changed = self.fed_s.xchg(timeout_s, Relaxed) != timeout_s;
        for device in devices(gate).filter(|device| changed || !device.fed()) {
            // One that does not know this timeout keeps its own.
            let id = device.id();
            let fed = match gate.feed(id, timeout_s) {
                Err(error) if error == EINVAL => gate.feed(id, 0),
                result => result,
            };
            match fed {
                Ok(()) => pr_info!("watchdog{id}: fed while nobody else does\n"),
                Err(error) => pr_warn_once!("watchdog{id}: cannot be fed: {error:?}\n"),
            }
        }
    }

    /// Stops feeding. With `appease`: a device that nobody has open and that runs all the same, as
    /// the firmware or the boot before has left it, would then reset a node that is not to be
    /// reset: it is fed.
    fn leave_devices(&self, gate: &Gate, appease: bool) {
        // The next choice of a timeout is news to all of them.
        self.fed_s.store(u32::MAX, Relaxed);
        let mut appeased = match appease {
            true => self.appeased.load(Relaxed),
            false => 0,
        };
        let bit = |device: &Device| 1u32.checked_shl(device.id()).unwrap_or(0);
        for device in devices(gate).filter(|device| device.fed() && appeased & bit(device) == 0) {
            if let Err(error) = gate.unfeed(device.id()) {
                pr_warn!("watchdog{}: cannot be left: {error:?}\n", device.id());
            }
        }
        let wild = |device: &Device| device.running() && !device.active() && !device.fed();
        for device in devices(gate).filter(|device| appease && wild(device)) {
            match gate.feed(device.id(), 0) {
                Ok(()) => {
                    pr_info!("watchdog{}: runs, and is fed for that\n", device.id());
                    appeased |= bit(&device);
                }
                Err(error) => pr_warn_once!("watchdog{}: cannot be fed: {error:?}\n", device.id()),
            }
        }
        self.appeased.store(appeased, Relaxed);
    }

    fn arm(&self, armed: bool, tunables: &Tunables) {
        let mut mode = self.mode.lock();
        if mode.down || mode.armed == armed {
            return;
        }
        mode.armed = armed;
        self.armed.store(armed, Relaxed);
        if !mode.shut {
            self.open(&mode, tunables);
        }
        let mark = match (armed, mode.shut) {
            (_, true) => Mark::Shut,
            (true, false) => Mark::Armed,
            (false, false) => Mark::Clean,
        };
        self.mark(&mode, mark);
        drop(mode);
        pr_info!("{}\n", if armed { "armed" } else { "disarmed" });
        self.keep_in_firmware();
    }

    /// Brings the firmware's store up to date. Process context; firmware takes its time.
    fn keep_in_firmware(&self) {
        let mut kept = self.kept.lock();
        let ledger = self.ledger.with(|ledger| *ledger);
        kept.update(&self.stores, &ledger);
    }

    /// Forgets all resets.
    pub(crate) fn rearm(&self) {
        self.change(Ledger::forgive);
        self.keep_in_firmware();
    }

    /// The machine goes down on purpose. A restart that hangs is ended by the watchdog if it is
    /// us who feed it; who feeds it in user space has his own way.
    pub(crate) fn reboot(&self, action: Action, tunables: &Tunables) {
        let mut mode = self.mode.lock();
        mode.down = true;
        let armed = mode.armed;
        drop(mode);
        // A feed that is under way ends before the core's notifiers stop the devices. Who comes
        // later sees that the machine goes down, and does not start them again.
        let _tending = self.tending.lock();
        self.mark(&self.mode.lock(), Mark::Clean);
        self.keep_in_firmware();
        let Some(gate) = &self.gate else {
            return;
        };
        // Without a permit a device could be neither stopped nor given another timeout.
        gate.open(FOREVER);
        let limit_s = tunables.reboot_s.load(Relaxed);
        let watched = action == Action::Restart && armed && limit_s != 0;
        if watched
            && !devices(gate).any(|device| device.active())
            && devices(gate)
                .filter(|device| device.fed())
                .all(|device| Self::limit_restart(gate, &device, limit_s))
        {
            gate.shut();
        } else {
            // Nothing resets the node any more: a rank that stalls now has no last words to keep.
            self.armed.store(false, Relaxed);
            Self::release_devices(gate);
        }
    }

    /// Gives the device `limit_s`, or as much of it as it can do; whether it does not cut the
    /// restart any shorter.
    fn limit_restart(gate: &Gate, device: &Device, limit_s: u32) -> bool {
        let id = device.id();
        let given = set_longest(limit_s, device.timeout(), |s| match gate.feed(id, s) {
            Ok(()) => Ok(true),
            Err(error) if error == EINVAL => Ok(false),
            Err(error) => Err(error),
        });
        // Not every driver can set timeouts, or one to the second.
        let has = gate.device(id).map_or(0, |device| device.timeout());
        match given {
            Ok(Some(_)) if has < limit_s => {
                pr_warn!("watchdog{id}: a restart may take {has} s, and not {limit_s}\n");
            }
            Ok(Some(_)) => {}
            error => pr_warn!("watchdog{id}: cannot watch the restart: {error:?}\n"),
        }
        matches!(given, Ok(Some(_)))
    }

    /// Stops what runs only because we feed it: its driver may not be one whose devices the core's
    /// notifiers stop, and nobody feeds it when the CPUs have halted.
    fn release_devices(gate: &Gate) {
        for device in devices(gate).filter(|device| device.fed()) {
            let id = device.id();
            let left = gate.unfeed(id).and_then(|()| {
                let ran_before = |device: &Device| device.running() && !device.active();
                match gate.device(id).filter(ran_before) {
                    // What a notifier stops stays stopped only if it is fed.
                    Some(_) => gate.feed(id, 0),
                    None => Ok(()),
                }
            });
            if let Err(error) = left {
                pr_warn!("watchdog{id}: cannot be left: {error:?}\n");
            }
        }
    }

    /// The kernel panics. Any context.
    pub(crate) fn panic(&self) {
        let marked = self.ledger.try_with(|ledger| {
            ledger.set(Mark::Panic);
            *ledger
        });
        if let Some(ledger) = marked {
            self.stores.write_last(&ledger);
        }
    }

    /// The module is unloaded: what the hardware tells of this boot's beginning is no news to the
    /// next load.
    pub(crate) fn unload(&self) {
        self.mark(&self.mode.lock(), Mark::Unloaded);
        self.keep_in_firmware();
    }
}
