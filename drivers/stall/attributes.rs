// SPDX-License-Identifier: GPL-2.0

//! `/sys/class/misc/nullhz-stall/`; `sysfs-nullhz-stall` beside this file documents it.

use crate::abi::Held;
use crate::budget;
use crate::device::Handle;
use crate::monitor::{wake, Monitor};
use crate::privilege;
use crate::tunables::{Policy, Tunables, ALL_EVIDENCE};
use crate::witness::STACKS;
use core::ops::RangeInclusive;
use kernel::{
    miscdevice::MiscDeviceRegistration,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    sysfs::{self, Attribute, AttributeGroup, List, Output}, //
};

type Device = MiscDeviceRegistration<Handle>;

const HOUR_MS: u32 = 3_600_000;
const DAY_MS: u32 = 24 * HOUR_MS;

/// A value of the detector's rules.
macro_rules! rule {
    ($attribute:ident: $name:literal, $field:ident, $range:expr) => {
        static $attribute: Attribute<Device> = Attribute::rw(
            $name,
            |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
                out.emit(fmt!("{}\n", monitor.tunables.rules.$field.load(Relaxed)))
            },
            |monitor: &Arc<Monitor>, text| {
                privilege::check()?;
                let rules = &monitor.tunables.rules;
                rules.set(&rules.$field, sysfs::parse_integer(text, $range)?);
                Ok(())
            },
        );
    };
}

rule!(SUSPECT_PERCENT: c"suspect_percent", suspect_percent, 10..=100);
rule!(NO_ACK_MS: c"no_ack_ms", no_ack_ms, 0..=HOUR_MS);
rule!(BITE_MS: c"bite_ms", bite_ms, 0..=HOUR_MS);
rule!(FLOOR_MS: c"floor_ms", floor_ms, 50..=HOUR_MS);
rule!(PAUSE_FLOOR_MS: c"pause_floor_ms", pause_floor_ms, 50..=HOUR_MS);
rule!(WAIT_FLOOR_MS: c"wait_floor_ms", wait_floor_ms, 50..=HOUR_MS);
rule!(DEFAULT_MS: c"default_ms", default_ms, 1000..=DAY_MS);
rule!(SLACK: c"slack", slack, 1..=1000);
rule!(WARMUP: c"warmup", warmup, 0..=1_000_000);

/// Any other number.
macro_rules! tunable {
    ($attribute:ident: $name:literal, $field:ident, $range:expr) => {
        static $attribute: Attribute<Device> = Attribute::rw(
            $name,
            |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
                out.emit(fmt!("{}\n", monitor.tunables.$field.load(Relaxed)))
            },
            |monitor: &Arc<Monitor>, text| set(monitor, |all| &all.$field, text, $range),
        );
    };
}

fn set(
    monitor: &Monitor,
    which: fn(&Tunables) -> &Atomic<u32>,
    text: &CStr,
    range: RangeInclusive<u32>,
) -> Result {
    privilege::check()?;
    which(&monitor.tunables).store(sysfs::parse_integer(text, range)?, Relaxed);
    // Some of them are about the hardware.
    wake(&monitor.keeper);
    Ok(())
}

tunable!(MAX_GRACE_MS: c"max_grace_ms", max_grace_ms, 0..=DAY_MS);
tunable!(PERMIT_MS: c"permit_ms", permit_ms, 100..=60_000);
tunable!(RESET: c"reset", reset, 0..=1);
tunable!(FEED: c"feed", feed, 0..=1);
tunable!(FEED_TIMEOUT_S: c"feed_timeout_s", feed_timeout_s, 0..=3600);
tunable!(REBOOT_S: c"reboot_s", reboot_s, 0..=3600);
tunable!(EVIDENCE: c"evidence", evidence, 0..=ALL_EVIDENCE);
tunable!(BUDGET: c"budget", budget, 0..=budget::REMEMBERED as u32);
tunable!(STACK_THREADS: c"stack_threads", stack_threads, 0..=STACKS as u32);
tunable!(STACKS_PER_MINUTE: c"stacks_per_minute", stacks_per_minute, 0..=1000);
tunable!(BACKTRACE: c"backtrace", backtrace, 0..=1);

static SIGNAL: Attribute<Device> = Attribute::rw(
    c"signal",
    |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
        let set = monitor.tunables.policy();
        let mut names = Policy::ALL.iter().filter(|(policy, _)| *policy == set);
        names.try_for_each(|(_, name)| out.emit(fmt!("{name}\n")))
    },
    |monitor: &Arc<Monitor>, text| {
        privilege::check()?;
        let text = text.to_bytes().trim_ascii();
        let mut names = Policy::ALL.iter();
        let index = names.position(|(_, name)| name.as_bytes() == text);
        let index = index.ok_or(EINVAL)? as u32;
        monitor.tunables.policy.store(index, Relaxed);
        Ok(())
    },
);

static TUNABLES: AttributeGroup<Device> = AttributeGroup::named(
    c"tunables",
    sysfs::list![
        &SUSPECT_PERCENT,
        &NO_ACK_MS,
        &BITE_MS,
        &FLOOR_MS,
        &PAUSE_FLOOR_MS,
        &WAIT_FLOOR_MS,
        &DEFAULT_MS,
        &SLACK,
        &WARMUP,
        &MAX_GRACE_MS,
        &PERMIT_MS,
        &RESET,
        &FEED,
        &FEED_TIMEOUT_S,
        &REBOOT_S,
        &EVIDENCE,
        &BUDGET,
        &SIGNAL,
        &STACK_THREADS,
        &STACKS_PER_MINUTE,
        &BACKTRACE,
    ],
);

/// A number that only the module changes.
macro_rules! number {
    ($($attribute:ident: $name:literal, $get:expr;)*) => {
        $(
            static $attribute: Attribute<Device> =
                Attribute::ro($name, |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
                    let get: fn(&Monitor) -> u64 = $get;
                    out.emit(fmt!("{}\n", get(monitor)))
                });
        )*
    };
}

number! {
    REGISTERED: c"registered", |m| m.counters.registered.get();
    LEFT: c"left", |m| m.counters.left.get();
    CRASHED: c"crashed", |m| m.counters.crashed.get();
    SUSPECT: c"suspect", |m| m.counters.suspect.get();
    STALLED: c"stalled", |m| m.counters.stalled.get();
    NO_ACK: c"no_ack", |m| m.counters.no_ack.get();
    PREBITE: c"prebite", |m| m.counters.prebite.get();
    RECOVERED: c"recovered", |m| m.counters.recovered.get();
    HELD: c"held", |m| m.counters.held.get();
    BAD_PAGE: c"bad_page", |m| m.counters.bad_page.get();
    LATE: c"late", |m| m.counters.late.get();
    TAKEOVERS: c"takeovers", |m| m.counters.takeovers.get();
    PASSES: c"passes", |m| m.counters.passes.get();
    PASS_NS: c"pass_ns", |m| m.counters.pass_ns.get();
    PASS_MAX_NS: c"pass_max_ns", |m| m.counters.pass_max_ns.get();
    SHOWN: c"stacks", |m| m.counters.stacks.get();
    SKIPPED: c"stacks_skipped", |m| m.counters.stacks_skipped.get();
    SIGNALS: c"signals", |m| m.counters.signals.get();
    REFUSED: c"refused", |m| m.counters.refused.get();
}

static COUNTERS: AttributeGroup<Device> = AttributeGroup::named(
    c"counters",
    sysfs::list![
        &REGISTERED,
        &LEFT,
        &CRASHED,
        &SUSPECT,
        &STALLED,
        &NO_ACK,
        &PREBITE,
        &RECOVERED,
        &HELD,
        &BAD_PAGE,
        &LATE,
        &TAKEOVERS,
        &PASSES,
        &PASS_NS,
        &PASS_MAX_NS,
        &SHOWN,
        &SKIPPED,
        &SIGNALS,
        &REFUSED,
    ],
);

number! {
    RANKS: c"ranks", |m| m.table.lock().len().into();
    STALLED_NOW: c"stalled", |m| m.table.lock().stalled.into();
    RESETS: c"resets", |m| m.watchdog.resets().into();
    TIMEOUT_MS: c"watchdog_timeout_ms", |m| m.watchdog.timeout_ms().into();
    ARMED: c"armed", |m| u64::from(m.watchdog.held() == Held::Not);
}

static HELD_NOW: Attribute<Device> =
    Attribute::ro(c"held", |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
        out.emit(fmt!("{}\n", monitor.watchdog.held().name()))
    });

static REARM: Attribute<Device> = Attribute::wo(c"rearm", |monitor: &Arc<Monitor>, text| {
    privilege::check()?;
    sysfs::parse_integer(text, 1..=1u32)?;
    monitor.watchdog.rearm();
    wake(&monitor.keeper);
    Ok(())
});

static STORES: Attribute<Device> =
    Attribute::ro(c"stores", |monitor: &Arc<Monitor>, out: &mut Output<'_>| {
        for name in monitor.watchdog.stores.names() {
            out.emit(fmt!("{name}\n"))?;
        }
        Ok(())
    });

static STATE: AttributeGroup<Device> = AttributeGroup::new(sysfs::list![
    &RANKS,
    &STALLED_NOW,
    &RESETS,
    &TIMEOUT_MS,
    &ARMED,
    &HELD_NOW,
    &REARM,
    &STORES,
]);

/// All attributes.
pub(crate) const GROUPS: List<AttributeGroup<Device>> = sysfs::list![&STATE, &TUNABLES, &COUNTERS];
