// SPDX-License-Identifier: GPL-2.0
//! The thread that tells: logs, statistics, the state and text files, hooks.
//! It may be slow; the threads that matter only send it notes.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use serde::Serialize;
use tracing::{error, info, warn};

use super::engine::Settled;
use super::hooks::{Hooks, Occasion};
use super::prometheus;
use super::snapshotter::Outcome;
use super::state::{
    self, CheckpointReport, EventCount, IncidentReport, Readers, ResetReason, StallState, State,
};
use super::stats::{ms, Counters, Window};
use crate::abi::{bus, flag, source, Bus, Event, Level};
use crate::ranks::{self, Asked, Asking, End, Watchdogs};
use crate::store::{monotonic_ns, Rotation};
use crate::view::{self, EventView};

/// The files are written at least this often, so that their age says whether
/// the agent is alive.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long the agent's end waits for hooks that run or wait.
const HOOKS_END: Duration = Duration::from_secs(5);

/// Something to tell.
#[derive(Debug)]
pub enum Note {
    /// An event to be logged and given to the hooks.
    Event {
        /// The event.
        event: Event,
        /// From the event to the agent's being awake, ns, when it woke for it.
        wake_ns: Option<u64>,
    },
    /// The records up to this one have been read, and what is to be told of them
    /// is in the notes before.
    Read(u64),
    /// An incident was found unacknowledged, or acknowledged but not told.
    Opened,
    /// A snapshot job came to its end.
    Done(Arc<Outcome>),
    /// An incident was acknowledged, or that failed.
    Settled(Acknowledged),
    /// The rotation came to its end; so many valid ones are left.
    Rotated {
        /// What it did.
        rotation: Rotation,
        /// What is left.
        kept: usize,
    },
    /// A pre-flush because of a DEGRADING or SUSPECT event took so long, ns.
    Preflushed(u64),
    /// The ranks were asked for a checkpoint because of a DEGRADING event.
    Requested(Asking),
    /// Something failed.
    Trouble(String),
    /// The agent ends.
    Stop,
}

/// An acknowledgement and how it came about.
#[derive(Debug)]
pub struct Acknowledged {
    /// The incident and its result.
    pub settled: Settled,
    /// What the bus said to that.
    pub ack: Result<(), Errno>,
    /// When it was acknowledged (CLOCK_MONOTONIC, ns).
    pub acked_ns: u64,
    /// The job, when one came to its end for it.
    pub work: Option<Arc<Outcome>>,
}

/// The thread's things.
pub struct Reporter {
    /// Counts of the loop.
    pub counters: Arc<Counters>,
    /// The ranks.
    pub watchdogs: Arc<dyn Watchdogs>,
    /// Whether it was said that there is no stall watchdog.
    pub told_absent: bool,
    /// Where `status` looks.
    pub state_file: PathBuf,
    /// The group of the bus: the state tells what its events tell.
    pub state_group: u32,
    /// Where node_exporter looks.
    pub textfile: Option<PathBuf>,
    /// The hooks.
    pub hooks: Hooks,
    /// What is known from the start.
    pub state: State,
    /// See [`Windows`].
    pub windows: Windows,
}

/// Durations.
#[derive(Debug, Default)]
pub struct Windows {
    wake: Window,
    checkpoint: Window,
    request_to_snapshot: Window,
    preflush: Window,
    snapshot: Window,
    awake_to_durable: Window,
}

impl Reporter {
    /// Tells until it is told to stop or the senders are gone.
    pub fn run(mut self, notes: Receiver<Note>) {
        self.write_files();
        loop {
            match notes.recv_timeout(INTERVAL) {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(note) => {
                    if self.take(note) {
                        self.write_files();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.write_files(),
            }
        }
        if !self.hooks.finish(HOOKS_END) {
            warn!("hooks are left that run or wait");
        }
        self.state.up = false;
        self.write_files();
    }

    /// Deals with a note; says whether the files are to be written at once.
    fn take(&mut self, note: Note) -> bool {
        match note {
            Note::Event { event, wake_ns } => self.event(&event, wake_ns),
            Note::Read(seq) => self.state.last_seq = self.state.last_seq.max(seq),
            Note::Opened => self.state.incidents_opened += 1,
            Note::Done(outcome) => self.done(&outcome),
            Note::Settled(acknowledged) => {
                self.settled(acknowledged);
                return true;
            }
            Note::Rotated { rotation, kept } => {
                for name in &rotation.gone {
                    info!("snapshot {name} deleted");
                }
                if let Some(err) = rotation.stuck {
                    error!("rotation: {err}");
                }
                self.state.rotations += 1;
                self.state.snapshots_deleted += rotation.gone.len() as u64;
                self.state.snapshots_kept = kept as u64;
                return true;
            }
            Note::Preflushed(ns) => {
                info!("pre-flush, in case of a snapshot: {}", view::duration(ns));
                self.state.degrading_preflushes += 1;
                return true;
            }
            Note::Requested(asking) => {
                self.asking(&asking);
                if let Some(asked) = asking.done() {
                    let Asked { answers, .. } = asked;
                    info!(
                        "checkpoint request {} to {} ranks, in case of a snapshot",
                        answers.request, answers.asked
                    );
                }
                return true;
            }
            Note::Trouble(text) => error!("{text}"),
            Note::Stop => {}
        }
        false
    }

    fn event(&mut self, event: &Event, wake_ns: Option<u64>) {
        if let Some(ns) = wake_ns {
            self.windows.wake.add(ns);
        }
        let line = view::line(event);
        if event.level >= Level::Imminent as u8 {
            warn!("{line}");
        } else {
            info!("{line}");
        }
        if event.flags & (flag::PREVIOUS_BOOT | flag::BOOT) != 0 {
            self.boot_before(event);
        }
        self.hook(
            EventView::new(event).json(),
            "event",
            &view::level_name(event.level),
            event.incident,
            &view::text(event),
        );
    }

    /// What the node said last is why it was reset; if it said nothing, what sources found when
    /// they were loaded: a record left in the banks, or that a watchdog was armed.
    fn boot_before(&mut self, event: &Event) {
        let said = event.flags & flag::PREVIOUS_BOOT != 0;
        let first = self.state.reset_reason.is_none();
        if event.level == Level::Fatal as u8 && (said || first) {
            self.state.reset_reason = Some(ResetReason {
                time: seconds(event.real_ns),
                source: view::source_name(event.source),
                text: view::text(event),
                ..ResetReason::default()
            });
        }
        let is_last_words = event.source == source::BUS && event.kind == bus::LAST_WORDS;
        let words = Bus::from_prefix(event.payload()).filter(|_| is_last_words);
        if let (Some(words), Some(reason)) = (words, &mut self.state.reset_reason) {
            reason.last_incident = words.incident;
            reason.last_snapshot_id = words.snapshot_id;
        }
    }

    /// Counts requests, and tells why there was none.
    fn asking(&mut self, asking: &Asking) {
        match asking {
            Asking::Not | Asking::Nobody => {}
            Asking::Absent if self.told_absent => {}
            Asking::Absent => {
                info!("no stall watchdog: ranks are not asked for checkpoints");
                self.told_absent = true;
            }
            Asking::Failed(why) => warn!("ranks not asked for a checkpoint: {why}"),
            Asking::Done(_) => {
                self.state.checkpoint_requests += 1;
                self.told_absent = false;
            }
        }
    }

    fn asked(&mut self, asked: &Asked) {
        let Asked {
            answers,
            asked_ns,
            ended_ns,
            end,
        } = asked;
        let wait = ended_ns - asked_ns;
        self.windows.checkpoint.add(wait);
        info!(
            "checkpoint request {}: {} of {} ranks answered, {} are gone, after {}{}",
            answers.request,
            answers.answered,
            answers.asked,
            answers.gone,
            view::duration(wait),
            match end {
                End::Answered => "",
                End::Stalled => "; the others are stalled, or wait for one that is",
                End::OutOfTime => "; the others had no more time",
            },
        );
    }

    fn done(&mut self, outcome: &Outcome) {
        self.asking(&outcome.asking);
        if let Some(asked) = outcome.asking.done() {
            self.asked(asked);
        }
        let Some(name) = outcome.name else {
            return;
        };
        let preflush = outcome.flushed_ns - outcome.begun_ns;
        let snapshot = outcome.durable_ns - outcome.flushed_ns;
        if let Some(asked) = outcome.asking.done() {
            let since = outcome.durable_ns.saturating_sub(asked.asked_ns);
            self.windows.request_to_snapshot.add(since);
        }
        self.windows.preflush.add(preflush);
        self.windows.snapshot.add(snapshot);
        let seen = outcome.results.iter().map(|settled| settled.open.seen_ns);
        if let Some(seen_ns) = seen.min() {
            self.windows
                .awake_to_durable
                .add(outcome.durable_ns.saturating_sub(seen_ns));
        }
        info!(
            "snapshot {name} on disk: pre-flush of {} files {}{}, snapshot {}",
            outcome.flushed.files,
            view::duration(preflush),
            if outcome.flushed.out_of_time {
                " (out of time)"
            } else {
                ""
            },
            view::duration(snapshot),
        );
        // Until the rotation has counted them.
        self.state.snapshots_kept += 1;
    }

    fn settled(&mut self, acknowledged: Acknowledged) {
        let Acknowledged {
            settled,
            ack,
            acked_ns,
            work,
        } = acknowledged;
        let open = settled.open;
        let since_opened = |ns: u64| ms(ns.saturating_sub(open.opened_ns));
        let error = match (settled.result, ack) {
            (Ok(_), Ok(())) => None,
            (Err(errno), Ok(())) => Some(format!("no snapshot: {errno}")),
            (_, Err(errno)) => Some(format!("not acknowledged: {errno}")),
        };
        let taken = work.filter(|work| work.name.is_some());
        let report = IncidentReport {
            incident: open.id,
            time: time_of(acked_ns),
            opened_ns: open.opened_ns,
            awake_ms: since_opened(open.seen_ns),
            checkpoint: taken.as_ref().and_then(|work| checkpoint_report(work)),
            preflush_ms: taken
                .as_ref()
                .map(|work| ms(work.flushed_ns - work.begun_ns)),
            snapshot_ms: taken
                .as_ref()
                .map(|work| ms(work.durable_ns - work.flushed_ns)),
            acked_ms: since_opened(acked_ns),
            snapshot_id: settled.result.ok(),
            snapshot: taken
                .and_then(|work| work.name)
                .map(|name| name.to_string()),
            error,
        };
        let level = Level::Imminent.name();
        let text = match (&report.error, report.snapshot_id) {
            (None, Some(id)) => {
                self.state.incidents_acked += 1;
                let text = format!(
                    "incident {} acknowledged with snapshot {id}, {} ms after it was opened",
                    open.id, report.acked_ms
                );
                info!("{text}");
                text
            }
            (error, _) => {
                self.state.incidents_failed += 1;
                let text = format!(
                    "incident {}: {}",
                    open.id,
                    error.as_deref().unwrap_or_default()
                );
                error!("{text}");
                text
            }
        };
        #[derive(Serialize)]
        struct View<'a> {
            r#type: &'static str,
            text: &'a str,
            #[serde(flatten)]
            report: &'a IncidentReport,
        }
        let view = View {
            r#type: "snapshot",
            text: &text,
            report: &report,
        };
        // Only maps with keys other than strings can fail, and there are none.
        let json = serde_json::to_string(&view).unwrap_or_default();
        self.hook(json, "snapshot", level, open.id, &text);
        self.state.last_incident = Some(report);
        self.state.told_incident = self.state.told_incident.max(Some(open.id));
    }

    fn hook(&self, json: String, kind: &str, level: &str, incident: u64, text: &str) {
        self.hooks.run(Occasion {
            json,
            env: vec![
                ("NULLHZ_TYPE", kind.into()),
                ("NULLHZ_LEVEL", level.into()),
                ("NULLHZ_INCIDENT", incident.to_string()),
                ("NULLHZ_TEXT", text.into()),
            ],
        });
    }

    fn write_files(&mut self) {
        self.collect();
        let json = serde_json::to_string_pretty(&self.state).unwrap_or_default() + "\n";
        if let Err(err) = state::replace(&self.state_file, &json, Readers::Group(self.state_group))
        {
            warn!("{err}");
        }
        if let Some(path) = &self.textfile {
            if let Err(err) = state::replace(path, &prometheus::text(&self.state), Readers::All) {
                warn!("{err}");
            }
        }
    }

    fn collect(&mut self) {
        let state = &mut self.state;
        state.updated = now();
        let count = |count: super::stats::Count| EventCount {
            source: view::source_name(count.source),
            level: count.level.name().into(),
            records: count.records,
            occurrences: count.occurrences,
        };
        state.events = self.counters.by_source_and_level().map(count).collect();
        state.events_lost = self.counters.lost.load(Ordering::Relaxed);
        state.events_unknown = self.counters.unknown.load(Ordering::Relaxed);
        state.wake = self.windows.wake.summary();
        state.checkpoint = self.windows.checkpoint.summary();
        state.request_to_snapshot = self.windows.request_to_snapshot.summary();
        state.preflush = self.windows.preflush.summary();
        state.snapshot = self.windows.snapshot.summary();
        state.awake_to_durable = self.windows.awake_to_durable.summary();
        let tally = self.hooks.tally();
        state.hooks_ok = tally.ok;
        state.hooks_failed = tally.failed;
        state.hooks_timed_out = tally.timed_out;
        state.hooks_dropped = tally.dropped;
        state.stall = stall_state(&*self.watchdogs);
    }
}

fn checkpoint_report(work: &Outcome) -> Option<CheckpointReport> {
    let asked = work.asking.done()?;
    Some(CheckpointReport {
        request: asked.answers.request,
        asked: asked.answers.asked,
        answered: asked.answers.answered,
        gone: asked.answers.gone,
        end: asked.end.name().into(),
        wait_ms: ms(asked.ended_ns - asked.asked_ns),
        to_snapshot_ms: ms(work.durable_ns.saturating_sub(asked.asked_ns)),
    })
}

/// How the stall watchdog is; `None` when there is none, or none for this user.
fn stall_state(watchdogs: &dyn Watchdogs) -> Option<StallState> {
    let watchdog = watchdogs.open().ok()?;
    let info = watchdog.info().ok()?;
    let ranks = watchdog.ranks().ok()?;
    let stalled = ranks.iter().filter(|rank| ranks::is_stalled(rank)).count();
    Some(StallState {
        ranks: info.ranks,
        stalled: u32::try_from(stalled).unwrap_or(u32::MAX),
        armed: info.armed != 0,
        resets: info.resets,
    })
}

/// Seconds since 1970, to the millisecond.
pub fn now() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    seconds(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The same of CLOCK_MONOTONIC, ns.
fn time_of(mono_ns: u64) -> f64 {
    now() - ms(monotonic_ns().saturating_sub(mono_ns)) / 1e3
}

fn seconds(ns: u64) -> f64 {
    (ns / 1_000_000) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_was_dealt_with() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = Hooks::start(dir.path().join("hooks.d"), INTERVAL).unwrap();
        let mut reporter = Reporter {
            counters: Arc::default(),
            watchdogs: Arc::new(dir.path().join("none")),
            told_absent: false,
            state_file: dir.path().join("agent.json"),
            state_group: 0,
            textfile: None,
            hooks,
            state: State {
                last_seq: 5,
                ..State::default()
            },
            windows: Windows::default(),
        };
        let mut saved_after = |note| {
            reporter.take(note);
            reporter.write_files();
            let text = std::fs::read_to_string(&reporter.state_file).unwrap();
            serde_json::from_str::<State>(&text).unwrap().last_seq
        };
        let event = |seq| Event { seq, ..Event::ZERO };
        let note = |seq| Note::Event {
            event: event(seq),
            wake_ns: None,
        };
        assert_eq!(saved_after(note(6)), 5);
        assert_eq!(saved_after(note(7)), 5);
        assert_eq!(saved_after(Note::Read(7)), 7);
        assert_eq!(saved_after(Note::Read(3)), 7);
    }
}
