// SPDX-License-Identifier: GPL-2.0

//! What all parts of the module share, and the sampler's pass over the ranks with its effects.

use crate::abi::{event, evidence, Culprit, Held, Phase, Stall, State};
use crate::clock::Look;
use crate::culprit::STUCK_NS;
use crate::deadline::{ns, Rules};
use crate::face::Feeder;
use crate::fault::{abi::state, Level, Source};
use crate::ffi;
use crate::ladder::Verdict;
use crate::member::{class, Member, Seen};
use crate::rank::{Change, Rank, Sight};
use crate::report::{describe, with_node};
use crate::table::{Entry, Table};
use crate::tunables::{Counters, Policy, Tunables};
use crate::watch::Watch;
use crate::watchdog::Watchdog;
use kernel::{
    cpu::CpuId,
    kthread::Waker,
    prelude::*,
    sync::{
        atomic::{AtomicFlag, Relaxed},
        new_mutex, Arc, Mutex, SetOnce,
    },
};

/// While a bite is due, the rank's threads are looked at so often, ns.
const SURVEY_NS: u64 = STUCK_NS;

/// Ranks that are taken out in one pass because their processes are dead: the others' turn comes
/// with the next ones, lest the death of a thousand delay a look.
const BURIALS: u32 = 16;

/// What all parts of the module share.
#[pin_data]
pub(crate) struct Monitor {
    #[pin]
    pub(crate) table: Mutex<Table>,
    pub(crate) max_ranks: u32,
    pub(crate) tunables: Tunables,
    pub(crate) counters: Counters,
    pub(crate) watch: Watch,
    #[pin]
    pub(crate) watchdog: Watchdog,
    pub(crate) feeder: Feeder,
    pub(crate) source: Source,
    /// The reason for a reset was kept for the next boot, and then there was none.
    pub(crate) kept_in_vain: AtomicFlag,
    pub(crate) witness: SetOnce<Waker>,
    pub(crate) keeper: SetOnce<Waker>,
}

/// Wakes a thread, if there is one yet.
pub(crate) fn wake(thread: &SetOnce<Waker>) {
    if let Some(waker) = thread.as_ref() {
        waker.wake();
    }
}

/// What happened during a pass and concerns the whole node.
struct Pass {
    look: Look,
    rules: Rules,
    ranks: u32,
    stalled: u32,
    /// Evidence that is not the rank's own.
    found: u32,
    /// Somebody has become STALLED.
    ask: bool,
    /// The witness has something to do.
    witness: bool,
}

impl Monitor {
    pub(crate) fn new(max_ranks: u32, tunables: Tunables) -> Result<impl PinInit<Self>> {
        let source = Source::register(crate::fault::abi::source::STALL, c"stall")?;
        let table = Table::new(max_ranks)?;
        let watch = Watch::new()?;
        let budget = tunables.budget.load(Relaxed);
        Ok(pin_init!(Self {
            table <- new_mutex!(table, "nullhz_stall_table"),
            max_ranks,
            tunables,
            counters: Counters::new(),
            watch,
            watchdog <- Watchdog::new(budget),
            feeder: Feeder::new(),
            source,
            kept_in_vain: AtomicFlag::new(false),
            witness: SetOnce::new(),
            keeper: SetOnce::new(),
        }))
    }

    /// What may make the keeper wait.
    pub(crate) fn keep(&self) {
        if self.watchdog.was_reset() {
            self.report_reset();
        }
        self.withdraw();
        self.watchdog.tend(&self.tunables);
    }

    /// Looks at all ranks, once, and does what follows from that. Returns whether pings are
    /// permitted for another while.
    pub(crate) fn pass(&self) -> bool {
        let start = ffi::monotonic_ns();
        let mut guard = self.table.lock();
        let table = &mut *guard;
        self.tunables.rules.refresh(&mut table.rules);
        let mut pass = Pass {
            look: table.clock.look(start),
            rules: table.rules,
            ranks: table.len(),
            stalled: table.stalled,
            found: self.watch.evidence(),
            ask: false,
            witness: false,
        };
        if let Some(late_ns) = pass.look.late_ns {
            self.counters.late.add(1);
            let stall = Stall {
                age_ns: late_ns,
                evidence: pass.found,
                ..self.node(pass.ranks, pass.stalled)
            };
            self.report(event::LATE_SAMPLER, Level::Degrading, 0, None, &stall);
            self.feeder.excuse(late_ns);
        }
        let mut dead = false;
        let mut biting = false;
        for entry in table.entries.iter_mut() {
            if !entry.dead {
                self.sample(entry, &mut pass, start);
            }
            dead |= entry.dead;
            biting |= entry.rank.state() == State::Prebite;
        }
        table.stalled = pass.stalled;
        if dead {
            for _ in 0..BURIALS {
                let dead = table.entries.iter().position(|entry| entry.dead);
                let Some(entry) = dead.and_then(|index| table.remove(index)) else {
                    break;
                };
                self.report_rank(event::CRASHED, &entry, table);
            }
            let at_prebite = |entry: &Entry| entry.rank.state() == State::Prebite;
            biting = table.entries.iter().any(at_prebite);
        }
        if pass.ask {
            table.request_checkpoint();
        }
        self.sample_feeder(&mut table.feeder, &pass);
        biting |= table.feeder == State::Prebite;
        if table.biting && !biting {
            self.watchdog.reopen(&self.tunables);
            self.take_back();
        }
        table.biting = biting;
        let (ranks, stalled) = (table.len(), table.stalled);
        drop(guard);

        if pass.witness {
            wake(&self.witness);
        }
        let permitted = self.watchdog.extend(&self.tunables);
        let pass_ns = ffi::monotonic_ns().saturating_sub(start);
        self.counters.passes.add(1);
        self.counters.pass_ns.add(pass_ns);
        self.counters.pass_max_ns.raise(pass_ns);
        ffi::trace_pass(pass_ns, ranks, stalled, permitted);
        permitted
    }

    /// Looks at one rank.
    #[inline]
    fn sample(&self, entry: &mut Entry, pass: &mut Pass, start: u64) {
        let Entry { member, rank, .. } = entry;
        let (step, progress, phase) = member.heartbeat();
        let thread = match rank.wants_thread() {
            true => class(&member.task),
            false => Culprit::Unknown,
        };
        let sight = Sight {
            step,
            progress,
            phase,
            thread,
        };
        let change = rank.sample(&pass.look, &sight, &pass.rules);
        if rank.take_bad_page() {
            self.counters.bad_page.add(1);
            let stall = describe(entry, pass.look.now, self.node(pass.ranks, pass.stalled));
            self.report(event::BAD_PAGE, Level::Watch, 0, None, &stall);
        }
        if let Some(change) = change {
            self.change(entry, change, pass);
        }
        let Entry { member, rank, .. } = entry;
        member.publish(rank.state() as u32, rank.deadline_ns(), start);
        if member.is_exiting() {
            rank.release_promise();
            entry.dead = member.is_gone();
        }
    }

    /// Looks at the program that pings our standard watchdog. `state` is OK, NO_ACK (its time is
    /// up, and a reset is held back) or PREBITE.
    fn sample_feeder(&self, state: &mut State, pass: &Pass) {
        let next = match (self.feeder.is_late(), self.watchdog.held()) {
            (false, _) => State::Ok,
            (true, Held::Not) => State::Prebite,
            (true, _) => State::NoAck,
        };
        let was = core::mem::replace(state, next);
        if was == next {
            return;
        }
        let mut stall = Stall {
            evidence: pass.found | evidence::AGENT,
            ..with_node(self.feeder.introduce(), self.node(pass.ranks, pass.stalled))
        };
        match next {
            State::Prebite => self.bite(&stall, CpuId::current()),
            State::NoAck => {
                stall.state = next as u32;
                self.hold(self.watchdog.held(), &mut stall, None);
            }
            _ => {
                self.counters.recovered.add(1);
                stall.state = was as u32;
                self.report(event::RECOVERED, Level::Watch, 0, None, &stall);
            }
        }
    }

    /// Keeps the reason, and lets the hardware reset the node.
    fn bite(&self, stall: &Stall, cpu: CpuId) {
        self.counters.prebite.add(1);
        self.kept_in_vain.store(false, Relaxed);
        self.persist(event::PREBITE, stall, cpu);
        self.watchdog.shut();
        self.report(event::PREBITE, Level::Fatal, 0, Some(cpu), stall);
        wake(&self.keeper);
    }

    /// Tells that a reset is due and held back.
    fn hold(&self, held: Held, stall: &mut Stall, cpu: Option<CpuId>) {
        self.counters.held.add(1);
        stall.held = held as u32;
        self.report(event::HELD, Level::Degrading, 0, cpu, stall);
    }

    /// What follows from a change of a rank.
    #[cold]
    fn change(&self, entry: &mut Entry, change: Change, pass: &mut Pass) {
        match change {
            Change::Recovered {
                from,
                phase,
                age_ns,
            } => self.recovered(entry, from, phase, age_ns, pass),
            Change::Suspect => {
                self.counters.suspect.add(1);
                *entry.seen = None;
                let (stall, cpu) = self.look(entry, pass);
                self.report(event::SUSPECT, Level::Watch, 0, Some(cpu), &stall);
                if self.tunables.stack_threads.load(Relaxed) != 0 {
                    entry.member.errands.stacks.store(true, Relaxed);
                    pass.witness = true;
                }
            }
            Change::Stalled => {
                self.counters.stalled.add(1);
                pass.stalled = pass.stalled.saturating_add(1);
                pass.ask = true;
                let (stall, cpu) = self.look(entry, pass);
                let incident = self.report(event::STALLED, Level::Imminent, 0, Some(cpu), &stall);
                entry.incident = incident;
                entry.member.publish_incident(incident);
                if self.tunables.backtrace.load(Relaxed) != 0 {
                    entry.member.errands.backtrace.store(true, Relaxed);
                    pass.witness = true;
                }
            }
            Change::NoAck => {
                self.counters.no_ack.add(1);
                let seen = self.survey(entry, pass);
                let stall = self.tell(entry, &seen, pass);
                self.report(event::NO_ACK, Level::Degrading, 0, Some(seen.cpu), &stall);
                let found = self.evidence(entry, pass);
                let node = self.watchdog.node(&self.tunables);
                let wants = entry.rank.wants_signal(found, seen.culprit.class, &node);
                if wants && self.tunables.policy() != Policy::None {
                    entry.member.errands.signal.store(true, Relaxed);
                    pass.witness = true;
                }
            }
            Change::Due => self.due(entry, pass),
        }
    }

    /// The time for a reset has come.
    fn due(&self, entry: &mut Entry, pass: &mut Pass) {
        let seen = match *entry.seen {
            Some(seen) if pass.look.now.saturating_sub(entry.seen_ns) < SURVEY_NS => seen,
            _ => self.survey(entry, pass),
        };
        let found = self.evidence(entry, pass);
        let Some(verdict) = entry.rank.judge(found, &self.watchdog.node(&self.tunables)) else {
            return;
        };
        // Tells what was judged, not what another look would find.
        let mut stall = self.tell(entry, &seen, pass);
        match verdict {
            Verdict::Bite => self.bite(&stall, seen.cpu),
            Verdict::Held(held) => self.hold(held, &mut stall, Some(seen.cpu)),
        }
    }

    fn recovered(
        &self,
        entry: &mut Entry,
        from: State,
        phase: Phase,
        age_ns: u64,
        pass: &mut Pass,
    ) {
        self.counters.recovered.add(1);
        if from >= State::Stalled {
            pass.stalled = pass.stalled.saturating_sub(1);
        }
        let mut stall = describe(entry, pass.look.now, self.node(pass.ranks, pass.stalled));
        stall.state = from as u32;
        stall.phase = phase as u32;
        stall.age_ns = age_ns;
        self.report(event::RECOVERED, Level::Watch, 0, None, &stall);
        entry.incident = 0;
        *entry.seen = None;
        entry.member.errands.cancel();
        entry.member.publish_incident(0);
    }

    /// Looks at a rank's threads.
    fn survey(&self, entry: &mut Entry, pass: &Pass) -> Seen {
        let before = entry.seen.as_ref().map(|seen| &seen.survey);
        // A wait for a busy disk ends long before the ladder has come to its next rung.
        let stuck_ns = ns(pass.rules.no_ack_ms);
        let seen = entry.member.look(pass.look.now, stuck_ns, before);
        *entry.seen = Some(seen);
        entry.seen_ns = pass.look.now;
        seen
    }

    /// The payload that tells what was seen of a rank.
    fn tell(&self, entry: &Entry, seen: &Seen, pass: &Pass) -> Stall {
        let node = self.node(pass.ranks, pass.stalled);
        Stall {
            culprit: seen.culprit.class as u32,
            tid: seen.culprit.tid,
            comm: seen.comm,
            evidence: entry.rank.evidence(self.evidence(entry, pass)),
            ..describe(entry, pass.look.now, node)
        }
    }

    /// Looks at a rank's threads. The payload that tells of it, and where the culprit is.
    fn look(&self, entry: &mut Entry, pass: &Pass) -> (Stall, CpuId) {
        let seen = self.survey(entry, pass);
        (self.tell(entry, &seen, pass), seen.cpu)
    }

    /// What speaks against this node, but for the rank's phase.
    fn evidence(&self, entry: &Entry, pass: &Pass) -> u32 {
        let mut found = pass.found;
        if entry.seen.is_some_and(|seen| seen.survey.is_stuck()) {
            found |= evidence::DISK;
        }
        let expired = |id| matches!(self.source.incident(id), Ok(i) if i.state == state::EXPIRED);
        // Where nobody ever acknowledges, that nobody has is no sign of a fault.
        if entry.incident != 0 && expired(entry.incident) && self.source.acknowledged() {
            found |= evidence::AGENT;
        }
        found
    }

    /// Registers a rank.
    pub(crate) fn register(&self, member: &Arc<Member>, rank: KBox<Rank>) -> Result {
        let entry = Entry::new(member.clone(), rank)?;
        let mut table = self.table.lock();
        // The dead who are not taken out yet keep nobody out: one who is looked for is looked at,
        // any other has been seen to be dead by the sampler.
        let full = table.len() >= self.max_ranks;
        let in_the_way = |entry: &Entry| {
            let same = entry.member.is_same_rank(member);
            (full && entry.dead) || (same && entry.member.is_gone())
        };
        let dead = table.entries.iter().position(in_the_way);
        if let Some(entry) = dead.and_then(|index| table.remove(index)) {
            self.report_rank(event::CRASHED, &entry, &table);
        }
        table.check(member, self.max_ranks)?;
        table.add(entry)?;
        // Under the lock: its other events come after this one.
        if let Some(entry) = table.entries.last() {
            self.report_rank(event::REGISTERED, entry, &table);
        }
        Ok(())
    }

    /// Removes a rank with an event of `kind`; whether it was there.
    pub(crate) fn unregister(&self, member: &Arc<Member>, kind: u16) -> bool {
        let mut table = self.table.lock();
        let removed = table.find(member).and_then(|index| table.remove(index));
        if let Some(entry) = &removed {
            self.report_rank(kind, entry, &table);
        }
        drop(table);
        // The next pass sees whether anybody is left at PREBITE.
        removed.is_some()
    }
}
