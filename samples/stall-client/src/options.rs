// SPDX-License-Identifier: GPL-2.0
//! What a rank registers with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::abi::{flag, Phase, Register, NAME_SIZE, PHASES};
use crate::{Error, DEVICE};

/// How a rank wants to be watched.
#[derive(Clone, Debug)]
pub struct Options {
    rank: u32,
    name: String,
    deadlines: [Duration; PHASES],
    floor: Duration,
    warmup: u32,
    tells_waits: bool,
    device: PathBuf,
}

impl Options {
    /// Global rank `rank` of the job `name`, which tells jobs apart that share a node: 1 to 31
    /// characters of printable ASCII. Deadlines are learned, the rest is the module's default.
    pub fn new(rank: u32, name: impl Into<String>) -> Self {
        Self {
            rank,
            name: name.into(),
            deadlines: [Duration::ZERO; PHASES],
            floor: Duration::ZERO,
            warmup: 0,
            tells_waits: false,
            device: DEVICE.into(),
        }
    }

    /// Without progress for so long in `phase`, the rank has stalled; the default, zero, learns it
    /// ([`Phase::Init`] is never learned: the module's default). Rounded up to milliseconds.
    pub fn deadline(mut self, phase: Phase, deadline: Duration) -> Self {
        self.deadlines[phase as usize] = deadline;
        self
    }

    /// No learned deadline is shorter. Rounded up to milliseconds.
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// The first so many steps are not learned from.
    pub fn warmup(mut self, steps: u32) -> Self {
        self.warmup = steps;
        self
    }

    /// Promises that every wait for other ranks, outside of [`Phase::Init`], is in
    /// [`Phase::CommWait`]: barriers, collectives, and those that a framework hides in a backward
    /// pass or in a checkpoint. Only then is a stall in another phase evidence against this node,
    /// which may be reset for it. A promise that is not kept resets the healthy nodes of the job
    /// when a peer hangs. The default is no promise.
    pub fn tells_waits(mut self) -> Self {
        self.tells_waits = true;
        self
    }

    /// Another device than [`DEVICE`].
    pub fn device(mut self, path: impl Into<PathBuf>) -> Self {
        self.device = path.into();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    pub(crate) fn to_abi(&self) -> Result<Register, Error> {
        let printable = |byte: u8| matches!(byte, b' '..=b'~');
        let mut name = [0; NAME_SIZE];
        let length = self.name.len();
        if length == 0 || length >= NAME_SIZE || !self.name.bytes().all(printable) {
            return Err(Error::Name(self.name.clone()));
        }
        name[..length].copy_from_slice(self.name.as_bytes());
        let mut deadline_ms = [0; PHASES];
        for (ms, deadline) in deadline_ms.iter_mut().zip(self.deadlines) {
            *ms = milliseconds(deadline).ok_or(Error::TooLong("deadline"))?;
        }
        Ok(Register {
            rank: self.rank,
            flags: match self.tells_waits {
                true => flag::TELLS_WAITS,
                false => 0,
            },
            name,
            deadline_ms,
            floor_ms: milliseconds(self.floor).ok_or(Error::TooLong("floor"))?,
            warmup: self.warmup,
            ..Register::ZERO
        })
    }
}

/// Whole milliseconds, rounded up: a short time must not become 0, which has a meaning of its own.
pub(crate) fn milliseconds(duration: Duration) -> Option<u32> {
    duration.as_nanos().div_ceil(1_000_000).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::text;

    #[test]
    fn everything_arrives_in_the_abi() {
        let options = Options::new(7, "llm 7b/run-3")
            .deadline(Phase::Checkpoint, Duration::from_secs(90))
            .floor(Duration::from_micros(1_500))
            .warmup(20);
        let register = options.to_abi().unwrap();
        assert_eq!(register.rank, 7);
        assert_eq!(text(&register.name), b"llm 7b/run-3");
        assert_eq!(register.deadline_ms, [0, 0, 0, 90_000, 0]);
        assert_eq!(register.floor_ms, 2);
        assert_eq!(register.warmup, 20);
        assert_eq!((register.flags, register.pad), (0, 0));
        let register = options.tells_waits().to_abi().unwrap();
        assert_eq!(register.flags, flag::TELLS_WAITS);
    }

    #[test]
    fn names_are_those_that_the_module_takes() {
        let longest = "x".repeat(31);
        for name in ["x", &longest, " ~"] {
            let register = Options::new(0, name).to_abi().unwrap();
            assert_eq!(text(&register.name), name.as_bytes());
        }
        for name in ["", &"x".repeat(32), "a\0b", "tab\t", "é", "\u{7f}"] {
            let error = Options::new(0, name).to_abi().unwrap_err();
            assert!(matches!(error, Error::Name(_)), "{name:?}: {error}");
        }
    }

    #[test]
    fn times_are_rounded_up_and_bounded() {
        assert_eq!(milliseconds(Duration::ZERO), Some(0));
        assert_eq!(milliseconds(Duration::from_nanos(1)), Some(1));
        assert_eq!(milliseconds(Duration::from_millis(10)), Some(10));
        let most = Duration::from_millis(u32::MAX.into());
        assert_eq!(milliseconds(most), Some(u32::MAX));
        assert_eq!(milliseconds(most + Duration::from_nanos(1)), None);
        assert_eq!(milliseconds(Duration::MAX), None);
        let error = Options::new(0, "x").floor(Duration::MAX).to_abi();
        assert!(matches!(error, Err(Error::TooLong("floor"))));
    }
}
