// SPDX-License-Identifier: GPL-2.0
//! The agent: `nullhz-agent run`.
//!
//! | thread | scheduling | work |
//! |---|---|---|
//! | `nullhz-agent` | FIFO | [`event_loop`]: bus, deadlines, acknowledgements, watchdog |
//! | `snapshot` | FIFO | [`snapshotter`]: one snapshot at a time |
//! | `chores` | normal | [`chores`]: rotation, preparations of a degrading node |
//! | `report` | normal | [`report`]: logs, statistics, files |
//! | `hooks` | normal | [`hooks`]: runs the hook programs |

pub mod chores;
pub mod engine;
pub mod event_loop;
pub mod hooks;
pub mod prometheus;
pub mod report;
pub mod rt;
pub mod snapshotter;
pub mod state;
pub mod stats;
pub mod watchdog;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::fstat;
use tracing::info;

use crate::bus::{self, Bus};
use crate::error::{Error, Result};
use crate::ranks::{StallDeviceArg, Watchdogs};
use crate::store::{monotonic_ns, Layout, Store};
use crate::sys;
use crate::view;
use chores::Chore;
use event_loop::{EventLoop, Progress};
use hooks::Hooks;
use report::{Note, Reporter, Windows};
use snapshotter::Snapshotter;
use state::State;
use stats::Counters;
use watchdog::Watchdog;

/// Where `status` finds the agent's state.
pub const STATE_FILE: &str = "/run/nullhz/agent.json";

/// Stack of each thread; all of it is locked memory.
const STACK: usize = 256 * 1024;

/// How the agent runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The checkpoint volume.
    #[command(flatten)]
    pub layout: Layout,

    /// Snapshots to keep; the oldest beyond them are deleted
    #[arg(long, env = "NULLHZ_KEEP", default_value_t = 3, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub keep: u16,

    /// Acknowledge an incident as failed after this time without a snapshot
    #[arg(
        long,
        env = "NULLHZ_SNAPSHOT_DEADLINE_MS",
        default_value_t = 30_000,
        value_name = "MS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub snapshot_deadline_ms: u32,

    /// The stall watchdog's device.
    #[command(flatten)]
    pub stall_device: StallDeviceArg,

    /// Time for the ranks to write the checkpoint that they are asked for before
    /// a snapshot; at most half of what the incident's deadline leaves. 0: they
    /// are not asked
    #[arg(
        long,
        env = "NULLHZ_CHECKPOINT_BUDGET_MS",
        default_value_t = 2_000,
        value_name = "MS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=3_600_000))]
    pub checkpoint_budget_ms: u32,

    /// Time for the pre-flush before a snapshot; 0: none
    #[arg(
        long,
        env = "NULLHZ_PREFLUSH_BUDGET_MS",
        default_value_t = 50,
        value_name = "MS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=3_600_000))]
    pub preflush_budget_ms: u32,

    /// Least time between pre-flushes, and between checkpoint requests, because
    /// of events that open no incident
    #[arg(
        long,
        env = "NULLHZ_PREFLUSH_INTERVAL_MS",
        default_value_t = 10_000,
        value_name = "MS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub preflush_interval_ms: u32,

    /// Directory of programs to run for events and snapshots; may be missing
    #[arg(
        long,
        env = "NULLHZ_HOOKS",
        default_value = "/etc/nullhz/hooks.d",
        value_name = "DIR"
    )]
    pub hooks: PathBuf,

    /// Kill a hook after this time
    #[arg(
        long,
        env = "NULLHZ_HOOK_TIMEOUT_MS",
        default_value_t = 30_000,
        value_name = "MS"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3_600_000))]
    pub hook_timeout_ms: u32,

    /// Metrics for node_exporter's textfile collector
    #[arg(long, env = "NULLHZ_TEXTFILE", value_name = "FILE")]
    pub textfile: Option<PathBuf>,

    /// The agent's own state, for `status`
    #[arg(long, env = "NULLHZ_STATE_FILE", default_value = STATE_FILE, value_name = "FILE")]
    pub state_file: PathBuf,

    /// CPUs to run on, such as 0-1 [default: those that are not isolated]
    #[arg(long, env = "NULLHZ_CPUS", value_name = "LIST", value_parser = some_cpus)]
    pub cpus: Option<String>,

    /// SCHED_FIFO priority; 0: an ordinary process
    #[arg(long, env = "NULLHZ_PRIORITY", default_value_t = 70, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(i32).range(0..=99))]
    pub priority: i32,

    /// Feed this watchdog, when nothing else does
    #[arg(long, env = "NULLHZ_WATCHDOG", value_name = "FILE")]
    pub watchdog: Option<PathBuf>,
}

fn some_cpus(text: &str) -> Result<String, String> {
    match rt::parse_cpus(text)? {
        none if none.is_empty() => Err("no CPU".into()),
        cpus => Ok(rt::format_cpus(&cpus)),
    }
}

/// Runs the agent on `bus`, with the ranks that `watchdogs` knows, until SIGTERM
/// or SIGINT.
///
/// # Errors
///
/// Whatever keeps it from starting, and `Bus` when the bus fails later.
pub fn run<B: Bus>(bus: B, watchdogs: Arc<dyn Watchdogs>, options: &Options) -> Result<()> {
    let started_ns = monotonic_ns();
    sys::use_one_heap();
    // Before any thread, so that all of them leave the signals to the loop.
    let signals = termination_signals()?;
    let cpus = cpus(options);
    rt::pin(&cpus);

    let info = bus.info().map_err(|errno| Error::Bus {
        what: "INFO",
        errno,
    })?;
    // There is no incident 0, so that this asks for the permission alone.
    if bus.ack(0, Err(Errno::ECANCELED)) == Err(Errno::EPERM) {
        return Err(Error::AckPermission);
    }
    let state_group = fstat(bus.fd())
        .map_err(Error::errno("fault bus: stat"))?
        .st_gid;
    let store = Store::open(&options.layout)?;
    let _claim = store.claim()?;
    let boot_id = view::uuid(&info.boot_id);
    let former = former_state(options);
    let same_bus = |state: &&State| state.boot_id == boot_id && state.last_seq <= info.head_seq;
    let former = former.as_ref().filter(same_bus);
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let watchdog = options
        .watchdog
        .as_deref()
        .map(Watchdog::open)
        .transpose()?;

    let told_seq = former.map_or(0, |state| state.last_seq);
    let counters = Arc::new(Counters::default());
    let told_incident = match former.and_then(|state| state.told_incident) {
        Some(told) => told,
        None => settled_before(&bus, info.last_incident)?,
    };
    let (notes, told) = channel();
    let (jobs, to_do) = sync_channel(1);
    let (outcome, outcomes) = sync_channel(1);
    let (chores, chores_to_do) = sync_channel(8);
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let done = EventFd::from_value_and_flags(0, flags).map_err(Error::errno("eventfd"))?;
    let done = Arc::new(done);
    let rt = rt::Settings {
        priority: options.priority,
    };

    let chores_store = Store::open(&options.layout)?;
    let keep = usize::from(options.keep);
    let chores_notes = notes.clone();
    let chores_watchdogs = watchdogs.clone();
    spawn("chores", move || {
        chores::run(
            &chores_store,
            &*chores_watchdogs,
            keep,
            chores_to_do,
            &chores_notes,
        );
    })?;
    let snapshotter = Snapshotter {
        store,
        boot_id: info.boot_id,
        started_ns,
        watchdogs: watchdogs.clone(),
        checkpoint_budget: millis(options.checkpoint_budget_ms),
        preflush_budget: millis(options.preflush_budget_ms),
    };
    let snapshotter_done = done.clone();
    spawn("snapshot", move || {
        snapshotter.run(rt, to_do, outcome, snapshotter_done);
    })?;
    let hooks = Hooks::start(options.hooks.clone(), millis(options.hook_timeout_ms))?;
    rt::lock_memory();
    let realtime = rt.apply();
    let reporter = Reporter {
        counters: counters.clone(),
        watchdogs,
        told_absent: false,
        state_file: options.state_file.clone(),
        state_group,
        textfile: options.textfile.clone(),
        hooks,
        state: State {
            version: env!("CARGO_PKG_VERSION").into(),
            up: true,
            pid: std::process::id(),
            boot_id,
            started: report::now(),
            realtime,
            cpus: rt::format_cpus(&cpus),
            last_seq: told_seq,
            told_incident: Some(told_incident),
            reset_reason: former.and_then(|state| state.reset_reason.clone()),
            ..State::default()
        },
        windows: Windows::default(),
    };
    let reporter = spawn("report", move || reporter.run(told))?;
    info!(
        "watching the fault bus for {}, on CPUs {}",
        options.layout.subvolume_path().display(),
        rt::format_cpus(&cpus),
    );
    // What a former life left undone.
    let _ = chores.try_send(Chore::Rotate);

    let event_loop = EventLoop {
        bus,
        signals,
        jobs,
        outcomes,
        done,
        chores,
        notes: notes.clone(),
        counters,
        watchdog,
        settings: event_loop::Settings {
            boot_id: info.boot_id,
            started_ns,
            told_seq,
            told_incident,
            deadline: millis(options.snapshot_deadline_ms),
            preflush_interval: millis(options.preflush_interval_ms),
        },
        progress: Progress::default(),
    };
    let ended = event_loop.run();
    // The last words are written; a thread that hangs in the volume is not
    // waited for.
    let _ = notes.send(Note::Stop);
    let _ = reporter.join();
    ended
}

/// The newest incident before the oldest one that is not acknowledged: up to it
/// there is nothing for an agent to tell that has never run.
fn settled_before(bus: &impl Bus, last_incident: u64) -> Result<u64> {
    let open = bus::unacknowledged(bus).map_err(|errno| Error::Bus {
        what: "look up incidents",
        errno,
    })?;
    let oldest = open.last();
    Ok(oldest.map_or(last_incident, |open| open.incident - 1))
}

fn cpus(options: &Options) -> BTreeSet<usize> {
    let chosen = options
        .cpus
        .as_deref()
        .and_then(|text| rt::parse_cpus(text).ok());
    chosen.unwrap_or_else(rt::housekeeping_cpus)
}

/// What the agent's former life left behind, when it ran in this boot: the
/// default place does not survive one.
fn former_state(options: &Options) -> Option<State> {
    let text = fs::read_to_string(&options.state_file).ok()?;
    serde_json::from_str(&text).ok()
}

fn termination_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    let open = || -> Result<SignalFd, Errno> {
        set.thread_block()?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
    };
    open().map_err(Error::errno("signalfd"))
}

/// Starts a thread.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let builder = thread::Builder::new().name(name.into()).stack_size(STACK);
    builder.spawn(run).map_err(Error::io("start a thread"))
}
