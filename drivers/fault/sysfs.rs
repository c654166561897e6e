// SPDX-License-Identifier: GPL-2.0

//! `/sys/class/misc/nullhz-fault/`; `sysfs-nullhz-fault` beside this file documents it.

use crate::{abi::Level, bus::Bus, device::Reader, incident::Times, privilege};
use core::ops::RangeInclusive;
use kernel::{
    miscdevice::MiscDeviceRegistration,
    prelude::*,
    str::CString,
    sync::Arc,
    sysfs::{self, Attribute, AttributeGroup, List, Output}, //
};

type Device = MiscDeviceRegistration<Reader>;

/// A day: longer than anybody would want to go without a snapshot.
const COOLDOWN_MS: RangeInclusive<u32> = 0..=86_400_000;
/// An hour: longer than any snapshot takes.
const DEADLINE_MS: RangeInclusive<u32> = 1..=3_600_000;
const NS_PER_MS: u64 = 1_000_000;

/// A number that the hub knows.
macro_rules! number {
    ($name:ident: $file:literal, $hub:ident => $number:expr) => {
        static $name: Attribute<Device> = Attribute::ro($file, |bus: &Arc<Bus>, out| {
            let number: u64 = bus.with_hub(|$hub| $number);
            out.emit(fmt!("{number}\n"))
        });
    };
}

number!(EVENTS_WATCH: c"events_watch", hub => hub.occurrences(Level::Watch));
number!(EVENTS_DEGRADING: c"events_degrading", hub => hub.occurrences(Level::Degrading));
number!(EVENTS_IMMINENT: c"events_imminent", hub => hub.occurrences(Level::Imminent));
number!(EVENTS_FATAL: c"events_fatal", hub => hub.occurrences(Level::Fatal));
number!(LOST: c"lost", hub => hub.lost());
number!(OPEN_INCIDENTS: c"open_incidents", hub => hub.incidents().unacked().into());
number!(LAST_INCIDENT: c"last_incident", hub => hub.incidents().last());
number!(LAST_SNAPSHOT_ID: c"last_snapshot_id", hub => hub.incidents().last_snapshot());

/// A time that can be changed.
macro_rules! time {
    ($name:ident: $file:literal, $field:ident, $range:expr) => {
        static $name: Attribute<Device> = Attribute::rw(
            $file,
            |bus: &Arc<Bus>, out| {
                let ns = bus.with_hub(|hub| hub.incidents().times().$field);
                out.emit(fmt!("{}\n", ns / NS_PER_MS))
            },
            |bus: &Arc<Bus>, text| {
                privilege::check()?;
                let ms = sysfs::parse_integer(text, $range)?;
                let change = |times: &mut Times| times.$field = u64::from(ms) * NS_PER_MS;
                bus.with_hub(|hub| hub.set_times(change));
                Ok(())
            },
        );
    };
}

time!(COOLDOWN: c"incident_cooldown_ms", cooldown, COOLDOWN_MS);
time!(DEADLINE: c"incident_deadline_ms", deadline, DEADLINE_MS);

static SOURCES: Attribute<Device> = Attribute::ro(c"sources", |bus: &Arc<Bus>, out| {
    bus.for_each_source(|id, name| out.emit(fmt!("{id} {name}\n")))
});

static STORES: Attribute<Device> =
    Attribute::ro(c"stores", |bus: &Arc<Bus>, out: &mut Output<'_>| {
        for name in bus.stores.names() {
            out.emit(fmt!("{name}\n"))?;
        }
        Ok(())
    });

static HELPER: Attribute<Device> = Attribute::rw(
    c"helper",
    |bus: &Arc<Bus>, out| match &*bus.helper.lock() {
        Some(path) => out.emit(fmt!("{}\n", &**path)),
        None => out.emit(fmt!("\n")),
    },
    |bus: &Arc<Bus>, text| {
        // What it names is started with all powers, in nobody's container.
        privilege::check()?;
        *bus.helper.lock() = parse_path(text)?;
        Ok(())
    },
);

/// An absolute path, or nothing.
fn parse_path(text: &CStr) -> Result<Option<CString>> {
    let bytes = text.to_bytes().trim_ascii();
    if bytes.is_empty() {
        return Ok(None);
    }
    if !bytes.starts_with(b"/") || !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(EINVAL);
    }
    let path = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    Ok(Some(CString::try_from_fmt(fmt!("{path}"))?))
}

static ATTRIBUTES: AttributeGroup<Device> = AttributeGroup::new(sysfs::list![
    &EVENTS_WATCH,
    &EVENTS_DEGRADING,
    &EVENTS_IMMINENT,
    &EVENTS_FATAL,
    &LOST,
    &OPEN_INCIDENTS,
    &LAST_INCIDENT,
    &LAST_SNAPSHOT_ID,
    &COOLDOWN,
    &DEADLINE,
    &SOURCES,
    &STORES,
    &HELPER,
]);

/// The device's attributes.
pub(crate) const GROUPS: List<AttributeGroup<Device>> = sysfs::list![&ATTRIBUTES];
