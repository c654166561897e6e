// SPDX-License-Identifier: GPL-2.0

//! What the fault bus and the next boot are told.

use crate::abi::{event, evidence, Held, Stall};
use crate::budget::Ending;
use crate::fault::{abi::flag, Level, Report};
use crate::ffi;
use crate::monitor::{wake, Monitor};
use crate::table::{Entry, Table};
use kernel::{cpu::CpuId, prelude::*, sync::atomic::Relaxed};

impl Monitor {
    /// Puts an event on the bus; the incident that it belongs to, 0: none.
    pub(crate) fn report(
        &self,
        kind: u16,
        level: Level,
        flags: u8,
        cpu: Option<CpuId>,
        stall: &Stall,
    ) -> u64 {
        let report = Report {
            kind,
            flags,
            cpu: cpu.map(|cpu| cpu.as_u32()),
            payload: &stall.to_bytes(),
            ..Report::new(level)
        };
        let incident = self.source.report_incident(&report).unwrap_or_else(|_| {
            self.counters.refused.add(1);
            0
        });
        ffi::trace_event(stall, kind, level, cpu);
        incident
    }

    /// The part of a payload that is the node's.
    pub(crate) fn node(&self, ranks: u32, stalled: u32) -> Stall {
        Stall {
            ranks,
            stalled,
            resets: self.watchdog.resets(),
            timeout_ms: self.watchdog.timeout_ms(),
            ..Stall::ZERO
        }
    }

    /// An event of a rank that comes or goes.
    pub(crate) fn report_rank(&self, kind: u16, entry: &Entry, table: &Table) {
        let (level, counter) = match kind {
            event::REGISTERED => (Level::Watch, &self.counters.registered),
            event::LEFT => (Level::Watch, &self.counters.left),
            _ => (Level::Degrading, &self.counters.crashed),
        };
        counter.add(1);
        let now = table.clock.at(ffi::monotonic_ns());
        let node = self.node(table.len(), table.stalled);
        self.report(kind, level, 0, None, &describe(entry, now, node));
    }

    /// Tells how the boot before ended, and whether this one starts disarmed because of such ends.
    pub(crate) fn report_boot(&self) {
        match self.watchdog.ending {
            Ending::Clean => {}
            Ending::Panic => pr_info!("the previous boot ended with a panic\n"),
            Ending::Unclean => pr_info!("the previous boot lost power, or was reset by hand\n"),
            Ending::Bitten => pr_warn!("the previous boot was reset because of a stall\n"),
            Ending::Reset => self.report_reset(),
        }
        if self.watchdog.held() == Held::Budget {
            let resets = self.watchdog.resets();
            pr_warn!("{resets} resets within a day: disarmed until an operator writes to rearm\n");
            let stall = Stall {
                held: Held::Budget as u32,
                ..self.node(0, 0)
            };
            self.counters.held.add(1);
            self.report(event::HELD, Level::Degrading, 0, None, &stall);
        }
    }

    pub(crate) fn report_reset(&self) {
        pr_warn!("the previous boot was reset without last words, by a watchdog or by hand\n");
        let stall = self.node(0, 0);
        self.report(event::RESET, Level::Fatal, flag::BOOT, None, &stall);
    }

    /// A housekeeping CPU has not run its sampler thread for `age_ns`.
    pub(crate) fn report_silent(&self, cpu: CpuId, age_ns: u64) {
        pr_warn!("CPU {} does not run its threads\n", cpu.as_u32());
        let stall = Stall {
            age_ns,
            evidence: evidence::HOUSEKEEPING,
            ..self.node(0, 0)
        };
        self.report(event::LATE_SAMPLER, Level::Degrading, 0, Some(cpu), &stall);
    }

    /// Keeps an event for the next boot.
    pub(crate) fn persist(&self, kind: u16, stall: &Stall, cpu: CpuId) {
        let report = Report {
            kind,
            cpu: Some(cpu.as_u32()),
            payload: &stall.to_bytes(),
            ..Report::new(Level::Fatal)
        };
        if let Err(error) = self.source.persist(&report) {
            pr_warn!("the next boot will not know of this: {error:?}\n");
        }
    }

    /// The node goes on: the reason that was kept must not be told by the next boot.
    pub(crate) fn take_back(&self) {
        self.kept_in_vain.store(true, Relaxed);
        wake(&self.keeper);
    }

    /// The module goes, and its gate: nothing resets the node for who is at PREBITE. Its threads
    /// are gone.
    pub(crate) fn take_back_at_unload(&self) {
        if self.table.lock().biting {
            self.kept_in_vain.store(true, Relaxed);
        }
        self.withdraw();
    }

    /// The slow part of [`Monitor::take_back()`].
    pub(crate) fn withdraw(&self) {
        if self.kept_in_vain.load(Relaxed) && self.kept_in_vain.xchg(false, Relaxed) {
            if let Err(error) = self.source.withdraw() {
                pr_warn!("the next boot will be told of a reset that was none: {error:?}\n");
            }
        }
    }
}

/// The payload that tells of a rank at `now`, in the sampler's time.
pub(crate) fn describe(entry: &Entry, now: u64, node: Stall) -> Stall {
    let rank = &entry.rank;
    Stall {
        step: rank.step(),
        progress: rank.progress(),
        age_ns: rank.age_ns(now),
        deadline_ns: rank.deadline_ns(),
        incident: entry.incident,
        phase: rank.phase() as u32,
        state: rank.state() as u32,
        ..with_node(entry.member.introduce(), node)
    }
}

/// The payload `stall` with what `node` says of the node.
pub(crate) fn with_node(stall: Stall, node: Stall) -> Stall {
    Stall {
        ranks: node.ranks,
        stalled: node.stalled,
        resets: node.resets,
        timeout_ms: node.timeout_ms,
        ..stall
    }
}
