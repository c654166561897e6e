// SPDX-License-Identifier: GPL-2.0
//! A rank and its heartbeat.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use rustix::io::Errno;

use crate::abi::{Phase, State};
use crate::options::{milliseconds, Options};
use crate::sys::{self, Page};
use crate::{Device, Error};

/// A registered rank of this process.
///
/// All methods but [`grace`](Rank::grace) and [`leave`](Rank::leave) are a load or a store, and may
/// be called by any thread.
///
/// # End of a rank
///
/// [`leave`](Rank::leave) is a clean end. A rank that is dropped, or whose process ends, without it
/// has crashed, as far as the watchdog can tell: so does a `?` on the way out do the right thing.
///
/// # Processes
///
/// The heartbeat page is not inherited by children. One that is made by `fork()` without `exec()`
/// must not use the rank: it would be ended by SIGSEGV. Children of [`std::process::Command`] have
/// neither page nor file.
#[must_use = "a rank that is dropped has crashed"]
pub struct Rank {
    page: Page,
    /// None: no watchdog.
    device: Option<OwnedFd>,
}

/// A checkpoint that the node's agent asked for; see [`Rank::checkpoint_wanted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the agent waits for the answer"]
pub struct CheckpointRequest(u32);

impl CheckpointRequest {
    /// The request's number, never 0.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl Rank {
    /// Makes this process a rank. The calling thread is the one whose state and stack are looked
    /// at first when the rank stalls: call it from the thread that trains.
    ///
    /// The rank is in [`Phase::Init`] until it says something else.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Permission`], [`Error::NotTheWatchdog`], [`Error::Version`],
    /// [`Error::Name`], [`Error::TooLong`], [`Error::RankTaken`], [`Error::TooManyRanks`].
    pub fn register(options: &Options) -> Result<Self, Error> {
        let register = options.to_abi()?;
        let device = Device::open_at(options.path())?.into_fd();
        sys::register(device.as_fd(), register).map_err(|errno| match errno {
            Errno::EXIST => Error::RankTaken(register.rank),
            Errno::NOSPC => Error::TooManyRanks,
            errno => Error::call("register")(errno),
        })?;
        match Page::map(device.as_fd()) {
            Ok(page) => Ok(Self {
                page,
                device: Some(device),
            }),
            Err(errno) => {
                // It never began, so it is no crash. There is nobody left to tell if that fails.
                let _ = sys::leave(device.as_fd());
                Err(Error::Call {
                    call: "mapping the heartbeat page",
                    errno,
                })
            }
        }
    }

    /// As [`Rank::register`]; on a machine without the device it is a rank that nobody watches.
    ///
    /// # Errors
    ///
    /// Those of [`Rank::register`] but [`Error::NoDevice`]. What is wrong about a device that is
    /// there is for its operator to know.
    pub fn register_if_present(options: &Options) -> Result<Self, Error> {
        match Self::register(options) {
            Err(Error::NoDevice(_)) => Self::unwatched(),
            result => result,
        }
    }

    /// A rank that nobody watches: every call works and does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Call`]: out of memory.
    pub fn unwatched() -> Result<Self, Error> {
        let page = Page::nowhere().map_err(Error::call("mapping a page"))?;
        Ok(Self { page, device: None })
    }

    /// Whether a watchdog sees the heartbeats.
    pub fn is_watched(&self) -> bool {
        self.device.is_some()
    }

    /// The heartbeat: one store. `step` is the number of the step that has just been done; any
    /// change of it is progress.
    #[inline]
    pub fn beat(&self, step: u64) {
        self.page.words().step.store(step, Relaxed);
    }

    /// Progress within a step or a phase that takes long (micro-batches, layers, bytes written):
    /// any change counts. Optional. One store.
    #[inline]
    pub fn progress(&self, progress: u64) {
        self.page.words().progress.store(progress, Relaxed);
    }

    /// What the rank does from now on; each phase has a deadline of its own. One store.
    #[inline]
    pub fn set_phase(&self, phase: Phase) {
        self.page.words().phase.store(phase as u32, Relaxed);
    }

    /// What the rank does.
    pub fn phase(&self) -> Phase {
        Phase::from_page(self.page.words().phase.load(Relaxed))
    }

    /// Changes the phase until the result is dropped; then it is again what it was.
    #[must_use = "the phase ends when this is dropped"]
    pub fn enter(&self, phase: Phase) -> InPhase<'_> {
        let before = self.phase();
        self.set_phase(phase);
        InPhase { rank: self, before }
    }

    /// Whether a checkpoint is wanted now, because the node may not live much longer. One load of
    /// the kernel's cache line, one of the rank's own. Ask between steps, and answer with
    /// [`Rank::checkpoint_done`].
    #[inline]
    pub fn checkpoint_wanted(&self) -> Option<CheckpointRequest> {
        let words = self.page.words();
        let request = words.checkpoint_request.load(Acquire);
        (request != words.checkpoint_ack.load(Relaxed)).then_some(CheckpointRequest(request))
    }

    /// The checkpoint is on disk: call it after `fsync()` of its file and folder, since the node
    /// may be reset right afterwards. A request that came meanwhile is still wanted. One store.
    #[inline]
    pub fn checkpoint_done(&self, request: CheckpointRequest) {
        self.page.words().checkpoint_ack.store(request.0, Release);
    }

    /// No deadline for so long, in whatever phase; zero ends that. For a pause that is known
    /// beforehand and in no phase's deadline. Rounded up to milliseconds. One ioctl.
    ///
    /// # Errors
    ///
    /// [`Error::Grace`]: longer than the module allows, [`Error::TooLong`].
    pub fn grace(&self, grace: Duration) -> Result<(), Error> {
        let ms = milliseconds(grace).ok_or(Error::TooLong("grace"))?;
        let Some(device) = &self.device else {
            return Ok(());
        };
        sys::grace(device.as_fd(), ms).map_err(|errno| match errno {
            Errno::INVAL => Error::Grace(ms),
            errno => Error::call("grace")(errno),
        })
    }

    /// How the watchdog sees the rank; [`None`] for a state that this crate does not know.
    pub fn state(&self) -> Option<State> {
        State::from_raw(self.page.words().state.load(Relaxed))
    }

    /// The incident of the fault bus that concerns the rank now.
    pub fn incident(&self) -> Option<u64> {
        Some(self.page.words().incident.load(Relaxed)).filter(|&incident| incident != 0)
    }

    /// The deadline of the phase, fixed or as it has been learned; zero: there is none yet.
    pub fn deadline(&self) -> Duration {
        Duration::from_nanos(self.page.words().deadline_ns.load(Relaxed))
    }

    /// A clean end.
    ///
    /// # Errors
    ///
    /// [`Error::Call`]. The rank is gone in any case.
    pub fn leave(self) -> Result<(), Error> {
        match &self.device {
            Some(device) => sys::leave(device.as_fd()).map_err(Error::call("leave")),
            None => Ok(()),
        }
    }
}

/// A rank in another phase for a while; see [`Rank::enter`].
pub struct InPhase<'a> {
    rank: &'a Rank,
    before: Phase,
}

impl Drop for InPhase<'_> {
    fn drop(&mut self) {
        self.rank.set_phase(self.before);
    }
}

#[cfg(test)]
mod tests;
