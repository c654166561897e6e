// SPDX-License-Identifier: GPL-2.0
//! The thread that matters: it reads the bus, hands incidents to the
//! snapshotter, acknowledges them, keeps the deadlines and feeds the watchdog.
//! It does nothing that may wait: no file, no log, no process.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::signalfd::SignalFd;
use nullhz_stall::abi::event as stall_event;

use super::chores::Chore;
use super::engine::{Engine, Open, Settled};
use super::report::{Acknowledged, Note};
use super::snapshotter::Outcome;
use super::stats::Counters;
use super::watchdog::Watchdog;
use crate::abi::{bus, flag, source, state, Event, Incident, Level};
use crate::bus::{self as fault_bus, Bus};
use crate::crash;
use crate::error::{Error, Result};
use crate::store::monotonic_ns;

/// Batches read in one go, so that a storm does not keep the loop from the rest
/// of its work.
const BATCHES: usize = 16;

/// Of the events of one source and level, one in this time is told; all are
/// counted.
const TELL_INTERVAL_NS: u64 = 1_000_000_000;

/// What the loop works with.
pub struct EventLoop<B> {
    /// The bus.
    pub bus: B,
    /// Where termination signals arrive.
    pub signals: SignalFd,
    /// Work for the snapshotter.
    pub jobs: SyncSender<Vec<Open>>,
    /// What it has done.
    pub outcomes: Receiver<Outcome>,
    /// Readable when it has done something.
    pub done: Arc<EventFd>,
    /// Work that may wait.
    pub chores: SyncSender<Chore>,
    /// What is to be told.
    pub notes: Sender<Note>,
    /// Exact counts.
    pub counters: Arc<Counters>,
    /// The watchdog, when it is to be fed.
    pub watchdog: Option<Watchdog>,
    /// Fixed for this run.
    pub settings: Settings,
    /// What changes.
    pub progress: Progress,
}

/// What is fixed for a run of the agent.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of this boot.
    pub boot_id: [u8; 16],
    /// CLOCK_MONOTONIC when the agent started.
    pub started_ns: u64,
    /// What a former life of the agent has told already: records up to this
    /// sequence number.
    pub told_seq: u64,
    /// And outcomes of incidents up to this one; 0 when there are no others.
    pub told_incident: u64,
    /// After this an incident without a snapshot is acknowledged as failed.
    pub deadline: Duration,
    /// Pre-flushes because of single events are at least this far apart, and so
    /// are requests for checkpoints.
    pub preflush_interval: Duration,
}

/// What changes while the loop runs.
#[derive(Debug, Default)]
pub struct Progress {
    engine: Engine,
    stopping: bool,
    fed_ns: u64,
    preflushed_ns: Option<u64>,
    asked_ns: Option<u64>,
    /// When an event of a source and level was last told, 0: never.
    told_ns: Told,
}

#[derive(Debug)]
struct Told([[u64; Level::COUNT]; source::COUNT]);

impl Default for Told {
    fn default() -> Self {
        Self([[0; Level::COUNT]; source::COUNT])
    }
}

impl<B: Bus> EventLoop<B> {
    /// Runs until SIGTERM or SIGINT, and then until no incident is in work; a
    /// second signal ends it at once.
    ///
    /// # Errors
    ///
    /// `Bus` when the bus fails, `Io` when the system does.
    pub fn run(mut self) -> Result<()> {
        self.tell_outcomes()?;
        self.rescan(monotonic_ns())?;
        let mut events = Vec::with_capacity(fault_bus::BATCH);
        let ended = loop {
            self.dispatch();
            if self.progress.stopping && self.progress.engine.is_idle() {
                break Ok(());
            }
            if let Err(err) = self.turn(&mut events) {
                break Err(err);
            }
        };
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.disarm();
        }
        ended
    }

    fn turn(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let (signalled, done, readable) = self.wait()?;
        let now_ns = monotonic_ns();
        if signalled
            && self
                .signals
                .read_signal()
                .is_ok_and(|signal| signal.is_some())
        {
            if self.progress.stopping {
                return Err(Error::Io {
                    what: "ended before all incidents were dealt with".into(),
                    source: std::io::ErrorKind::Interrupted.into(),
                });
            }
            self.progress.stopping = true;
        }
        if done {
            self.collect()?;
        }
        if readable {
            for _ in 0..BATCHES {
                self.bus.read(events).map_err(failed("read"))?;
                if events.is_empty() {
                    break;
                }
                self.take(events)?;
            }
        }
        for settled in self.progress.engine.expire(now_ns) {
            let acknowledged = self.acknowledge(settled, None);
            self.note(Note::Settled(acknowledged));
        }
        self.feed(now_ns);
        Ok(())
    }

    /// Waits for something to happen or to be due; says what is readable.
    fn wait(&self) -> Result<(bool, bool, bool)> {
        let next_feed = self.watchdog.as_ref().map(|watchdog| {
            let interval = watchdog.interval().as_nanos() as u64;
            self.progress.fed_ns.saturating_add(interval)
        });
        let due_ns = next_feed
            .into_iter()
            .chain(self.progress.engine.deadline_ns())
            .min();
        let timeout = due_ns.map_or(PollTimeout::NONE, |due_ns| {
            // Rounded up: waking early would only mean to wait again.
            let ms = due_ns.saturating_sub(monotonic_ns()).div_ceil(1_000_000);
            PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.done.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bus.fd(), PollFlags::POLLIN | PollFlags::POLLPRI),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::errno("poll")(errno)),
        }
        let [signals, done, bus] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if bus.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            return Err(failed("poll")(Errno::ENODEV));
        }
        Ok((!signals.is_empty(), !done.is_empty(), !bus.is_empty()))
    }

    /// Looks at a batch of records.
    fn take(&mut self, events: &[Event]) -> Result<()> {
        let now_ns = monotonic_ns();
        for event in events {
            // What is replayed has a sequence number of before.
            let news = event.seq > self.settings.told_seq;
            if news {
                self.counters.count(event);
            }
            let opened = self.look_into(event, now_ns)?;
            let worth_telling = self.is_worth_telling(event, now_ns);
            if opened || (news && worth_telling) {
                let live = event.mono_ns >= self.settings.started_ns;
                let wake_ns = (opened && live && event.flags & flag::OPENED != 0)
                    .then(|| now_ns.saturating_sub(event.mono_ns));
                self.note(Note::Event {
                    event: *event,
                    wake_ns,
                });
            }
            if news {
                self.prepare(event, now_ns);
            }
        }
        // Behind what was told of them: whatever ends the agent before the reporter
        // comes to this has the next one tell them again.
        if let Some(newest) = events.iter().map(|event| event.seq).max() {
            if newest > self.settings.told_seq {
                self.note(Note::Read(newest));
            }
        }
        // The record that opened an incident may be among those lost.
        if events.iter().any(|event| event.lost > 0) {
            self.rescan(now_ns)?;
        }
        Ok(())
    }

    /// Whether the event is the first sign of an unacknowledged incident; the
    /// incident is then open. One that somebody else has acknowledged before we
    /// saw it, such as an operator, is told.
    fn look_into(&mut self, event: &Event, now_ns: u64) -> Result<bool> {
        let id = event.incident;
        let is_sign = event.source != source::BUS || event.kind == bus::ACKED;
        let foreign = event.boot_id != self.settings.boot_id;
        if id == 0 || !is_sign || foreign || !self.progress.engine.is_unknown(id) {
            return Ok(false);
        }
        match self.bus.incident(id) {
            Ok(incident) if incident.state != state::ACKED => {
                self.open(&incident, now_ns);
                Ok(true)
            }
            Ok(incident) if id > self.settings.told_incident => {
                self.tell(&incident);
                Ok(false)
            }
            // Dealt with, or so old that the bus has forgotten it.
            Ok(_) | Err(Errno::ENOENT) => {
                self.progress.engine.settle(id);
                Ok(false)
            }
            Err(errno) => Err(failed("look up an incident")(errno)),
        }
    }

    /// Tells what a former life acknowledged and had no time to tell.
    fn tell_outcomes(&mut self) -> Result<()> {
        let newest = self.bus.info().map_err(failed("INFO"))?.last_incident;
        for id in self.settings.told_incident + 1..=newest {
            match self.bus.incident(id) {
                Ok(incident) if incident.state == state::ACKED => self.tell(&incident),
                Ok(_) | Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(failed("look up an incident")(errno)),
            }
        }
        Ok(())
    }

    /// Tells the outcome of an acknowledged incident that is none of this life's
    /// work.
    fn tell(&mut self, incident: &Incident) {
        let open = Open {
            id: incident.incident,
            opened_ns: incident.opened_ns,
            // At the latest.
            seen_ns: incident.acked_ns,
            expires_ns: incident.deadline_ns,
            deadline_ns: incident.deadline_ns,
        };
        let result = match incident.result {
            0 => Ok(incident.snapshot_id),
            errno => Err(Errno::from_raw(-errno)),
        };
        self.progress.engine.settle(open.id);
        self.note(Note::Opened);
        self.note(Note::Settled(Acknowledged {
            settled: Settled { open, result },
            ack: Ok(()),
            acked_ns: incident.acked_ns,
            work: None,
        }));
    }

    /// Asks the bus for incidents that no record led to.
    fn rescan(&mut self, now_ns: u64) -> Result<()> {
        let found = fault_bus::unacknowledged(&self.bus).map_err(failed("look up incidents"))?;
        // Oldest first.
        for incident in found.iter().rev() {
            if self.progress.engine.is_unknown(incident.incident) {
                self.open(incident, now_ns);
            }
        }
        Ok(())
    }

    fn open(&mut self, incident: &Incident, now_ns: u64) {
        let deadline_ns = self.settings.deadline.as_nanos() as u64;
        self.progress.engine.open(Open {
            id: incident.incident,
            opened_ns: incident.opened_ns,
            seen_ns: now_ns,
            expires_ns: incident.deadline_ns,
            // The agent's own. At the bus's the incident expires without help,
            // and a snapshot that comes later is worth acknowledging late.
            deadline_ns: now_ns.saturating_add(deadline_ns),
        });
        self.note(Note::Opened);
    }

    /// Gives the snapshotter what waits for it.
    fn dispatch(&mut self) {
        if let Some(job) = self.progress.engine.next_job() {
            // The snapshotter asks the ranks.
            self.progress.asked_ns = Some(monotonic_ns());
            // It has room: the engine gives one job at a time. Should the
            // thread be gone, the deadline acknowledges the failure.
            let _ = self.jobs.try_send(job);
        }
    }

    /// Acknowledges what the snapshotter has done.
    fn collect(&mut self) -> Result<()> {
        self.done.read().map_err(Error::errno("eventfd"))?;
        while let Ok(outcome) = self.outcomes.try_recv() {
            let due = self.progress.engine.finish(outcome.results.clone());
            let work = Arc::new(outcome);
            let acknowledge = |settled| self.acknowledge(settled, Some(work.clone()));
            let acknowledged: Vec<_> = due.into_iter().map(acknowledge).collect();
            if work.name.is_some() {
                // Never full for long; the next one does the work of a lost one.
                let _ = self.chores.try_send(Chore::Rotate);
            }
            // The times first: who waits for the acknowledgement reads them.
            self.note(Note::Done(work));
            for acknowledged in acknowledged {
                self.note(Note::Settled(acknowledged));
            }
        }
        Ok(())
    }

    fn acknowledge(&self, settled: Settled, work: Option<Arc<Outcome>>) -> Acknowledged {
        crash::point("before-ack");
        let ack = match self.bus.ack(settled.open.id, settled.result) {
            // Somebody else was faster, such as an operator.
            Err(Errno::EALREADY) => Ok(()),
            result => result,
        };
        crash::point("after-ack");
        Acknowledged {
            settled,
            ack,
            acked_ns: monotonic_ns(),
            work,
        }
    }

    /// Whether an event is to be told. What is only counted: WATCH, and more of
    /// what was told a moment ago.
    fn is_worth_telling(&mut self, event: &Event, now_ns: u64) -> bool {
        let expired = event.source == source::BUS && event.kind == bus::EXPIRED;
        let always = expired
            || event.level >= Level::Fatal as u8
            || event.flags & (flag::OPENED | flag::PREVIOUS_BOOT) != 0;
        // A rank's WATCH events are rare, and say how it came to the others.
        let counted = event.level < Level::Degrading as u8 && event.source != source::STALL;
        if !always && counted && event.lost == 0 {
            return false;
        }
        let row = self.progress.told_ns.0.get_mut(usize::from(event.source));
        let Some(told_ns) = row.and_then(|row| row.get_mut(usize::from(event.level))) else {
            return always;
        };
        let due = *told_ns == 0 || now_ns.saturating_sub(*told_ns) >= TELL_INTERVAL_NS;
        if always || due {
            *told_ns = now_ns;
        }
        always || due
    }

    /// Does what makes a snapshot that may follow a better one.
    fn prepare(&mut self, event: &Event, now_ns: u64) {
        let degrading = event.level == Level::Degrading as u8;
        let of_stall = event.source == source::STALL;
        let interval_ns = self.settings.preflush_interval.as_nanos() as u64;
        let due = |last: u64| now_ns.saturating_sub(last) >= interval_ns;
        // A rank that has failed is no sign that the node will; and when it had
        // stalled, all were asked.
        if degrading && !of_stall && self.progress.asked_ns.is_none_or(due) {
            self.progress.asked_ns = Some(now_ns);
            // Full: a chore is slow, and one more would not make it faster.
            let _ = self.chores.try_send(Chore::Checkpoint);
        }
        let suspect = of_stall && event.kind == stall_event::SUSPECT;
        if (degrading || suspect) && self.progress.preflushed_ns.is_none_or(due) {
            self.progress.preflushed_ns = Some(now_ns);
            let _ = self.chores.try_send(Chore::Preflush);
        }
    }

    fn feed(&mut self, now_ns: u64) {
        let Some(watchdog) = &self.watchdog else {
            return;
        };
        let interval_ns = watchdog.interval().as_nanos() as u64;
        if now_ns.saturating_sub(self.progress.fed_ns) < interval_ns {
            return;
        }
        self.progress.fed_ns = now_ns;
        if let Err(errno) = watchdog.feed() {
            self.note(Note::Trouble(format!("watchdog not fed: {errno}")));
        }
    }

    fn note(&self, note: Note) {
        // The reporter ends after this thread.
        let _ = self.notes.send(note);
    }
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Bus { what, errno }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::mpsc::{channel, sync_channel};

    use nix::sys::eventfd::EfdFlags;
    use nix::sys::signal::SigSet;

    use super::*;
    use crate::abi::Info;

    /// A bus that has forgotten all incidents.
    struct Forgetful(EventFd);

    impl Bus for Forgetful {
        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn read(&self, events: &mut Vec<Event>) -> nix::Result<()> {
            events.clear();
            Ok(())
        }

        fn info(&self) -> nix::Result<Info> {
            Ok(Info::ZERO)
        }

        fn incident(&self, _: u64) -> nix::Result<Incident> {
            Err(Errno::ENOENT)
        }

        fn ack(&self, _: u64, _: Result<u64, Errno>) -> nix::Result<()> {
            Err(Errno::ENOENT)
        }
    }

    #[test]
    fn a_batch_is_told_before_it_counts_as_read() {
        let eventfd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        let (notes, told) = channel();
        let mut event_loop = EventLoop {
            bus: Forgetful(eventfd()),
            signals: SignalFd::new(&SigSet::empty()).unwrap(),
            jobs: sync_channel(1).0,
            outcomes: sync_channel(1).1,
            done: Arc::new(eventfd()),
            chores: sync_channel(1).0,
            notes,
            counters: Arc::default(),
            watchdog: None,
            settings: Settings {
                boot_id: [0; 16],
                started_ns: 0,
                told_seq: 5,
                told_incident: 0,
                deadline: Duration::ZERO,
                preflush_interval: Duration::ZERO,
            },
            progress: Progress::default(),
        };
        let event = |seq, level| Event {
            seq,
            level: level as u8,
            source: source::MCE,
            ..Event::ZERO
        };
        let batches = [
            // Told by a former life.
            vec![event(4, Level::Fatal), event(5, Level::Fatal)],
            vec![event(6, Level::Fatal), event(7, Level::Watch)],
            vec![event(8, Level::Watch)],
        ];
        for batch in &batches {
            event_loop.take(batch).unwrap();
        }
        let seqs: Vec<_> = told
            .try_iter()
            .map(|note| match note {
                Note::Event { event, .. } => ("told", event.seq),
                Note::Read(seq) => ("read", seq),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(seqs, [("told", 6), ("read", 7), ("read", 8)]);
    }
}
