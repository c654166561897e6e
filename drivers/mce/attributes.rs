// SPDX-License-Identifier: GPL-2.0

//! /sys/devices/faux/nullhz_mce/; documented in sysfs-nullhz-mce.

use crate::decode::severity::Grade;
use crate::engine::Engine;
use crate::privilege;
use kernel::{
    faux::AttributeRegistration,
    fmt,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
    sysfs::{self, Attribute, AttributeGroup}, //
};

/// The device that the attributes belong to.
pub(crate) type Device = AttributeRegistration<Arc<Engine>>;

/// More errors than this within a window are not a threshold but a way to say "never": that is 0.
const MAX_ERRORS: u32 = 1_000_000;
/// A year; the buckets know no more than the time since the module was loaded anyway.
const MAX_WINDOW_S: u32 = 365 * 24 * 60 * 60;
/// A count that has doubled this often does not fit a bucket.
const MAX_ESCALATE: u32 = 31;

fn show(value: impl fmt::Display, output: &mut sysfs::Output<'_>) -> Result {
    output.emit(fmt!("{value}\n"))
}

fn set(value: &Atomic<u32>, text: &CStr, range: core::ops::RangeInclusive<u32>) -> Result {
    privilege::check()?;
    value.store(sysfs::parse_integer(text, range)?, Relaxed);
    Ok(())
}

macro_rules! tunable {
    ($attribute:ident, $name:literal, $field:ident, $range:expr) => {
        static $attribute: Attribute<Device> = Attribute::rw(
            $name,
            |engine: &Arc<Engine>, output| show(engine.tunables.$field.load(Relaxed), output),
            |engine: &Arc<Engine>, text| set(&engine.tunables.$field, text, $range),
        );
    };
}

tunable!(PAGE, c"page_errors", page, 0..=MAX_ERRORS);
tunable!(DIMM, c"dimm_errors", dimm, 0..=MAX_ERRORS);
tunable!(BANK, c"bank_errors", bank, 0..=MAX_ERRORS);
tunable!(SOCKET, c"socket_errors", socket, 0..=MAX_ERRORS);
tunable!(WINDOW, c"window_s", window_s, 1..=MAX_WINDOW_S);
tunable!(STORM, c"storm_records", storm, 0..=MAX_ERRORS);
tunable!(
    STORM_WINDOW,
    c"storm_window_s",
    storm_window_s,
    1..=MAX_WINDOW_S
);
tunable!(COLUMNS, c"row_columns", columns, 0..=MAX_ERRORS);
tunable!(OVERFLOW, c"overflow_records", overflow, 0..=MAX_ERRORS);
tunable!(PARITY, c"parity_errors", parity, 0..=MAX_ERRORS);
tunable!(ESCALATE, c"escalate_trips", escalate, 0..=MAX_ESCALATE);

static THRESHOLDS: AttributeGroup<Device> = AttributeGroup::named(
    c"thresholds",
    sysfs::list![
        &PAGE,
        &DIMM,
        &BANK,
        &SOCKET,
        &WINDOW,
        &STORM,
        &STORM_WINDOW,
        &COLUMNS,
        &OVERFLOW,
        &PARITY,
        &ESCALATE,
    ],
);

macro_rules! counter {
    ($attribute:ident, $name:literal, $get:expr) => {
        static $attribute: Attribute<Device> =
            Attribute::ro($name, |engine: &Arc<Engine>, output| {
                let get: fn(&Engine) -> u64 = $get;
                show(get(engine), output)
            });
    };
}

counter!(RECORDS, c"records", |e| e.counters.records.get());
counter!(INVALID, c"invalid", |e| e.counters.of(Grade::Invalid));
counter!(CORRECTED, c"corrected", |e| e.counters.of(Grade::Corrected));
counter!(DEFERRED, c"deferred", |e| e.counters.of(Grade::Deferred));
counter!(OPTIONAL, c"action_optional", |e| e
    .counters
    .of(Grade::ActionOptional));
counter!(REQUIRED, c"action_required", |e| e
    .counters
    .of(Grade::ActionRequired));
counter!(FATAL, c"fatal", |e| e.counters.of(Grade::Fatal));
counter!(HIDDEN, c"hidden_uncorrected", |e| e
    .counters
    .of(Grade::HiddenUncorrected));
counter!(SPURIOUS, c"spurious", |e| e.counters.spurious.get());
counter!(BOOT, c"boot", |e| e.counters.boot.get());
counter!(BOOT_LOST, c"boot_lost", |e| e.counters.boot_lost.get());
counter!(SLOTS_FULL, c"slots_full", |e| e.counters.dropped.get());
counter!(REPAIRED, c"repaired", |e| e.counters.repaired.get());
counter!(LOST, c"lost", |e| e.counters.lost());
counter!(EVICTED, c"evicted", |e| e.counters.evicted.get());
counter!(REFUSED, c"refused", |e| e.counters.refused.get());

static COUNTERS: AttributeGroup<Device> = AttributeGroup::named(
    c"counters",
    sysfs::list![
        &RECORDS,
        &INVALID,
        &CORRECTED,
        &DEFERRED,
        &OPTIONAL,
        &REQUIRED,
        &FATAL,
        &HIDDEN,
        &SPURIOUS,
        &BOOT,
        &BOOT_LOST,
        &SLOTS_FULL,
        &REPAIRED,
        &LOST,
        &EVICTED,
        &REFUSED,
    ],
);

/// All attributes.
pub(crate) const GROUPS: sysfs::List<AttributeGroup<Device>> = sysfs::list![&THRESHOLDS, &COUNTERS];
