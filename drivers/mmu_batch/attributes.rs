// SPDX-License-Identifier: GPL-2.0

//! `/sys/devices/faux/nullhz_mmu_batch.<device>/`; `sysfs-nullhz-mmu-batch` beside this file
//! documents it.

use crate::device::Device;
use crate::gather::Cause;
use crate::privilege;
use crate::tunables::Tunable;
use kernel::{
    faux::AttributeRegistration,
    prelude::*,
    sync::Arc,
    sysfs::{self, Attribute, AttributeGroup, List, Output}, //
};

type Folder = AttributeRegistration<Arc<Device>>;

fn set(tunable: &Tunable, text: &CStr) -> Result {
    privilege::check()?;
    tunable.set(sysfs::parse_integer(text, tunable.range.clone())?);
    Ok(())
}

macro_rules! tunables {
    ($($attribute:ident: $name:literal, $field:ident;)*) => {
        $(
            static $attribute: Attribute<Folder> = Attribute::rw(
                $name,
                |device: &Arc<Device>, out: &mut Output<'_>| {
                    out.emit(fmt!("{}\n", device.tunables.$field.get()))
                },
                |device: &Arc<Device>, text| set(&device.tunables.$field, text),
            );
        )*

        static TUNABLES: AttributeGroup<Folder> =
            AttributeGroup::named(c"tunables", sysfs::list![$(&$attribute,)*]);
    };
}

tunables! {
    SPAN_CEILING: c"span_ceiling", span_ceiling;
    COMBINE_WINDOW: c"combine_window_us", combine_window_us;
    GATHER_WINDOW: c"gather_window_us", gather_window_us;
    GATHER_UNMAPS: c"gather_unmaps", gather_unmaps;
    GATHER_PAGES: c"gather_pages", gather_pages;
    NOTIFIER: c"notifier_mib", notifier_mib;
}

/// Numbers that only the module changes.
macro_rules! numbers {
    ($group:ident: $folder:expr; $($attribute:ident: $name:literal, $get:expr;)*) => {
        $(
            static $attribute: Attribute<Folder> =
                Attribute::ro($name, |device: &Arc<Device>, out: &mut Output<'_>| {
                    let get: fn(&Device) -> u64 = $get;
                    out.emit(fmt!("{}\n", get(device)))
                });
        )*

        static $group: AttributeGroup<Folder> = match $folder {
            Some(name) => AttributeGroup::named(name, sysfs::list![$(&$attribute,)*]),
            None => AttributeGroup::new(sysfs::list![$(&$attribute,)*]),
        };
    };
}

numbers! {
    COUNTERS: Some(c"counters");
    EVENTS: c"events", |d| d.counters.events.get();
    INTERVALS: c"intervals", |d| d.counters.intervals.get();
    ELIDED: c"elided", |d| d.counters.elided.get();
    JOINED: c"joined", |d| d.counters.joined.get();
    TICKETS: c"tickets", |d| d.totals().tickets;
    FLUSHES: c"flushes", |d| d.totals().flushes;
    FULL_FLUSHES: c"full_flushes", |d| d.totals().full;
    SPANS: c"spans", |d| d.totals().spans;
    COMBINED: c"combined", |d| d.counters.combined.get();
    WOULD_BLOCK: c"would_block", |d| d.counters.would_block.get();
    SYNC_FLUSHES: c"sync_flushes", |d| d.counters.sync_flushes.get();
    WINDOW_WAITS: c"window_waits", |d| d.totals().windowed;
    DEFERRED: c"deferred", |d| d.deferral.with(|g| g.deferred().0);
    DEFERRED_PAGES: c"deferred_pages", |d| d.deferral.with(|g| g.deferred().1);
    RELEASED: c"released", |d| d.counters.released.get();
    DRAINS_SUBMIT: c"drains_submit", |d| drains(d, Cause::Submit);
    DRAINS_REUSE: c"drains_reuse", |d| drains(d, Cause::Reuse);
    DRAINS_SIZE: c"drains_size", |d| drains(d, Cause::Size);
    DRAINS_TIME: c"drains_time", |d| drains(d, Cause::Time);
    DRAINS_SHRINKER: c"drains_shrinker", |d| drains(d, Cause::Shrinker);
    DRAINS_RELEASE: c"drains_release", |d| drains(d, Cause::Release);
    FLUSH_ERRORS: c"flush_errors", |d| d.counters.flush_errors.get();
    RESETS: c"resets", |d| d.counters.resets.get();
    RESET_ERRORS: c"reset_errors", |d| d.counters.reset_errors.get();
}

numbers! {
    NOW: None;
    SPACES: c"spaces", |d| d.spaces() as u64;
    KEPT: c"kept_unmaps", |d| d.deferral.with(|g| g.len() as u64);
    KEPT_PAGES: c"kept_pages", |d| d.deferral.with(|g| g.pages());
}

/// How often it was drained for that reason.
fn drains(device: &Device, cause: Cause) -> u64 {
    let index = cause as usize;
    device
        .deferral
        .with(|gather| gather.drains().get(index).copied().unwrap_or(0))
}

static PER_FLUSH: Attribute<Folder> = Attribute::ro(
    c"tickets_per_flush",
    |device: &Arc<Device>, out: &mut Output<'_>| {
        let classes = device.totals().classes;
        let mut lines = classes.iter().enumerate();
        // At least 1, 2, 4, ... tickets, and less than twice as many.
        lines.try_for_each(|(class, flushes)| out.emit(fmt!("{} {flushes}\n", 1u64 << class)))
    },
);

static HISTOGRAM: AttributeGroup<Folder> = AttributeGroup::new(sysfs::list![&PER_FLUSH]);

/// The whole folder.
pub(crate) const GROUPS: List<AttributeGroup<Folder>> =
    sysfs::list![&NOW, &HISTOGRAM, &TUNABLES, &COUNTERS];
