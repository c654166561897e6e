// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/nullhz_fault/`, for developers: a table of the incidents that are remembered,
//! and one of the files that are open. Nothing depends on their format.

use crate::{
    abi::{state, Incident},
    bus::Bus,
    incident::TABLE,
};
use kernel::{
    debugfs::Scope,
    fmt,
    prelude::*,
    sync::Arc, //
};

/// Creates the directory.
pub(crate) fn new(bus: Arc<Bus>) -> impl PinInit<Scope<Arc<Bus>>> {
    Scope::dir(bus, c"nullhz_fault", |bus, dir| {
        dir.read_callback_file(c"incidents", bus, &show_incidents);
        dir.read_callback_file(c"readers", bus, &show_readers);
    })
}

fn show_incidents(bus: &Arc<Bus>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "id source state joined snapshot result late opened_ns acked_ns"
    )?;
    for place in 0..TABLE {
        // One at a time: formatting is no work for a raw spinlock.
        let incident = bus.with_hub(|hub| hub.incidents().iter().nth(place).copied());
        match incident {
            Some(incident) => show_incident(&incident, f)?,
            None => break,
        }
    }
    Ok(())
}

fn show_incident(incident: &Incident, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let state = match incident.state {
        state::OPEN => "open",
        state::ACKED => "acked",
        _ => "expired",
    };
    writeln!(
        f,
        "{} {} {} {} {} {} {} {} {}",
        incident.incident,
        incident.source,
        state,
        incident.joined,
        incident.snapshot_id,
        incident.result,
        incident.late,
        incident.opened_ns,
        incident.acked_ns
    )
}

fn show_readers(bus: &Arc<Bus>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "pid next lost filter")?;
    bus.try_for_each_reader(|reader| {
        let progress = reader.progress();
        write!(f, "{} ", progress.pid)?;
        match progress.place {
            Some((next, lost)) => write!(f, "{next} {lost}")?,
            None => f.write_str("reading reading")?,
        }
        writeln!(f, " {:?}", progress.filter)
    })
}
