// SPDX-License-Identifier: GPL-2.0
//! The ranks of the training, as the stall watchdog shows them: asking them for
//! a checkpoint, and how long it makes sense to wait for their answers.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use nullhz_stall::abi::{text, Checkpoint, Info, Phase, Rank, State};
use nullhz_stall::{Device, Error};

use crate::store::monotonic_ns;

/// Between two looks at how many have answered.
const POLL: Duration = Duration::from_millis(2);

/// Between two looks at all ranks, of which there may be a thousand.
const TABLE_INTERVAL_NS: u64 = 50_000_000;

/// What the agent needs of a stall watchdog. [`Device`] is the one; tests have
/// another.
pub trait Watchdog {
    /// Counters and bounds.
    ///
    /// # Errors
    ///
    /// As <nullhz/stall.h>.
    fn info(&self) -> Result<Info, Error>;

    /// Asks every rank for a checkpoint.
    ///
    /// # Errors
    ///
    /// `CheckpointPermission`.
    fn request(&self) -> Result<Checkpoint, Error>;

    /// How far they are with a request.
    ///
    /// # Errors
    ///
    /// `Superseded`: there is a newer one.
    fn answers(&self, request: u32) -> Result<Checkpoint, Error>;

    /// All ranks.
    ///
    /// # Errors
    ///
    /// As <nullhz/stall.h>.
    fn ranks(&self) -> Result<Vec<Rank>, Error>;
}

impl Watchdog for Device {
    fn info(&self) -> Result<Info, Error> {
        Device::info(self)
    }

    fn request(&self) -> Result<Checkpoint, Error> {
        self.request_checkpoint()
    }

    fn answers(&self, request: u32) -> Result<Checkpoint, Error> {
        Device::answers(self, request)
    }

    fn ranks(&self) -> Result<Vec<Rank>, Error> {
        Device::ranks(self)
    }
}

/// Where a watchdog is. It is opened for each use: the module can be loaded and
/// unloaded while the agent runs.
pub trait Watchdogs: Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// `NoDevice` when there is none.
    fn open(&self) -> Result<Box<dyn Watchdog>, Error>;
}

impl Watchdogs for PathBuf {
    fn open(&self) -> Result<Box<dyn Watchdog>, Error> {
        Ok(Box::new(Device::open_at(self)?))
    }
}

/// Which device file to use.
#[derive(Clone, Debug, clap::Args)]
pub struct StallDeviceArg {
    /// Device of the stall watchdog; may be missing
    #[arg(
        long,
        env = "NULLHZ_STALL_DEVICE",
        default_value = nullhz_stall::DEVICE,
        value_name = "FILE"
    )]
    pub stall_device: PathBuf,
}

/// Why the agent went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that were asked have answered or are gone.
    Answered,
    /// Those that still owe an answer are stalled, or wait for one that is.
    Stalled,
    /// The budget was over.
    OutOfTime,
}

impl End {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            End::Answered => "answered",
            End::Stalled => "stalled",
            End::OutOfTime => "out-of-time",
        }
    }
}

/// A request for a checkpoint and what came of it. Times are CLOCK_MONOTONIC,
/// ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How many were asked, have answered, are gone.
    pub answers: Checkpoint,
    /// When.
    pub asked_ns: u64,
    /// When the agent stopped waiting.
    pub ended_ns: u64,
    /// Why it did.
    pub end: End,
}

/// What became of the intention to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It was not to be.
    Not,
    /// There is no stall watchdog.
    Absent,
    /// There is one, and no rank.
    Nobody,
    /// It refused.
    Failed(String),
    /// The ranks were asked.
    Done(Asked),
}

impl Asking {
    /// Asks, as [`ask`] does.
    pub fn now(watchdogs: &dyn Watchdogs, until_ns: u64) -> Self {
        match ask(watchdogs, until_ns) {
            Ok(Some(asked)) => Self::Done(asked),
            Ok(None) => Self::Nobody,
            Err(Error::NoDevice(_)) => Self::Absent,
            Err(err) => Self::Failed(err.to_string()),
        }
    }

    /// What came of it, when ranks were asked.
    pub fn done(&self) -> Option<&Asked> {
        match self {
            Self::Done(asked) => Some(asked),
            _ => None,
        }
    }
}

/// Asks all ranks for a checkpoint, and waits for the answers until `until_ns`
/// at most. `None`: there is nobody to ask.
///
/// # Errors
///
/// Those of the device; `NoDevice` when there is none.
pub fn ask(watchdogs: &dyn Watchdogs, until_ns: u64) -> Result<Option<Asked>, Error> {
    let watchdog = watchdogs.open()?;
    let asked_ns = monotonic_ns();
    let mut answers = watchdog.request()?;
    if answers.asked == 0 {
        return Ok(None);
    }
    let mut table_ns = None;
    let end = loop {
        if owing(&answers) == 0 {
            break End::Answered;
        }
        let now_ns = monotonic_ns();
        if table_ns.is_none_or(|last: u64| now_ns.saturating_sub(last) >= TABLE_INTERVAL_NS) {
            table_ns = Some(now_ns);
            if !anybody_may_answer(answers.request, &watchdog.ranks()?) {
                break End::Stalled;
            }
        }
        if now_ns >= until_ns {
            break End::OutOfTime;
        }
        sleep(POLL.min(Duration::from_nanos(until_ns - now_ns)));
        answers = match watchdog.answers(answers.request) {
            // Somebody else asked as well. What answers the newest request is
            // newer than this one, too.
            Err(Error::Superseded(_)) => watchdog.request()?,
            result => result?,
        };
    };
    Ok(Some(Asked {
        answers,
        asked_ns,
        ended_ns: monotonic_ns(),
        end,
    }))
}

/// How many have neither answered nor gone.
pub fn owing(answers: &Checkpoint) -> u32 {
    let settled = answers.answered.saturating_add(answers.gone);
    answers.asked.saturating_sub(settled)
}

/// Whether one of those that have not answered `request` can be expected to. One
/// that is stalled cannot; nor can one that waits for the others of its job
/// while one of them is.
fn anybody_may_answer(request: u32, ranks: &[Rank]) -> bool {
    let may_answer = |rank: &Rank| {
        let waits = rank.phase == Phase::CommWait as u32;
        let peer_is_stalled = || {
            let peer = |other: &Rank| other.name == rank.name && is_stalled(other);
            ranks.iter().any(peer)
        };
        rank.checkpoint_ack != request && !is_stalled(rank) && !(waits && peer_is_stalled())
    };
    ranks.iter().any(may_answer)
}

/// Whether the rank has reached STALLED or worse.
pub fn is_stalled(rank: &Rank) -> bool {
    rank.state >= State::Stalled as u32
}

/// The job that a rank belongs to.
pub fn job(name: &[u8]) -> String {
    // Printable ASCII, as the module accepts nothing else.
    String::from_utf8_lossy(text(name)).into_owned()
}

#[cfg(test)]
mod tests;
