// SPDX-License-Identifier: GPL-2.0
//! Starts the ranks, and tells what became of them, as torchrun does for a node
//! of a large job.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::options::RunOptions;

/// Exit code of a rank that ended because another one had.
pub const PEER_GONE: u8 = 3;

/// How long the other ranks have to end by themselves when one has failed, and
/// then once more to be gone when they are killed.
const PATIENCE: Duration = Duration::from_secs(5);

struct Rank {
    rank: u32,
    child: Child,
    running: bool,
}

/// Trains with all ranks.
///
/// # Errors
///
/// What became of the first rank that failed.
pub fn run(options: &RunOptions) -> Result<()> {
    let dir = &options.dir;
    let what = || dir.display().to_string();
    fs::create_dir_all(dir).with_context(what)?;
    let claim = File::open(dir).with_context(what)?;
    let _claim = match Flock::lock(claim, FlockArg::LockExclusiveNonblock) {
        Ok(claim) => claim,
        Err((_, Errno::EWOULDBLOCK)) => bail!("{}: another run uses it", what()),
        Err((_, errno)) => return Err(errno).with_context(what),
    };
    let signals = signals(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
    let mut ranks = start(options.ranks)?;
    watch(&mut ranks, &signals)
}

/// SIGTERM and SIGINT, to be read instead of dying of them.
///
/// # Errors
///
/// Those of signalfd(2).
pub fn termination_signals() -> Result<SignalFd> {
    signals(&[Signal::SIGTERM, Signal::SIGINT])
}

fn signals(list: &[Signal]) -> Result<SignalFd> {
    let set: SigSet = list.iter().copied().collect();
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).context("signalfd")
}

/// Starts the ranks with their links as standard input and output.
fn start(count: u32) -> Result<Vec<Rank>> {
    let program = env::current_exe().context("find this program")?;
    // After the command's own name: `run` and its options.
    let arguments: Vec<OsString> = env::args_os().skip(2).collect();
    let mut links = ring(count)?.into_iter();
    let mut start = |rank: u32| -> Result<Rank> {
        let (left, right) = links.next().unwrap_or((Stdio::null(), Stdio::null()));
        let child = Command::new(&program)
            .args(["rank", "--rank", &rank.to_string()])
            .args(["--launcher", &process::id().to_string()])
            .args(&arguments)
            // A rank has a CPU of its own; and the sums of several threads
            // would come out in another order each time.
            .env("RAYON_NUM_THREADS", "1")
            .stdin(left)
            .stdout(right)
            .spawn()
            .with_context(|| format!("start rank {rank}"))?;
        Ok(Rank {
            rank,
            child,
            running: true,
        })
    };
    let mut ranks: Vec<Rank> = Vec::new();
    for rank in 0..count {
        match start(rank) {
            Ok(started) => ranks.push(started),
            Err(err) => {
                for rank in &mut ranks {
                    rank.child.kill()?;
                }
                return Err(err);
            }
        }
    }
    Ok(ranks)
}

/// The left and right link of each rank; none for one that is alone.
fn ring(count: u32) -> Result<Vec<(Stdio, Stdio)>> {
    if count == 1 {
        return Ok(Vec::new());
    }
    let pairs = (0..count).map(|_| UnixStream::pair());
    let pairs: Vec<_> = pairs.collect::<Result<_, _>>().context("socketpair")?;
    let (rights, mut lefts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    // The other end of a rank's right link is the left one of the next.
    lefts.rotate_right(1);
    let stdio = |socket: UnixStream| Stdio::from(OwnedFd::from(socket));
    let both = lefts.into_iter().zip(rights);
    Ok(both
        .map(|(left, right)| (stdio(left), stdio(right)))
        .collect())
}

/// Until all ranks have ended, or do not let themselves be ended.
fn watch(ranks: &mut [Rank], signals: &SignalFd) -> Result<()> {
    let mut failed: Vec<Failure> = Vec::new();
    let mut end: Option<Instant> = None;
    let mut killed = false;
    loop {
        while let Ok(Some(signal)) = signals.read_signal() {
            let signal = Signal::try_from(signal.ssi_signo.cast_signed())?;
            if signal != Signal::SIGCHLD {
                each_running(ranks, |child| send(child, Signal::SIGTERM));
            }
        }
        for rank in ranks.iter_mut().filter(|rank| rank.running) {
            let Some(status) = rank.child.try_wait()? else {
                continue;
            };
            rank.running = false;
            if !status.success() {
                failed.push(Failure::new(rank, status));
            }
        }
        let left: Vec<_> = ranks.iter().filter(|rank| rank.running).collect();
        if left.is_empty() {
            break;
        }
        if !failed.is_empty() {
            let now = Instant::now();
            if now >= *end.get_or_insert(now + PATIENCE) {
                if killed {
                    let left: Vec<_> = left.iter().map(|rank| rank.rank.to_string()).collect();
                    let list = left.join(", ");
                    let first = Failure::first(&failed).unwrap_or_default();
                    bail!("{first}; cannot be killed, so stuck in the kernel: rank {list}");
                }
                each_running(ranks, |child| send(child, Signal::SIGKILL));
                killed = true;
                end = Some(now + PATIENCE);
            }
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(
            &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
    match Failure::first(&failed) {
        None => Ok(()),
        Some(first) => bail!("{first}"),
    }
}

/// A rank that ended before its time.
struct Failure {
    text: String,
    /// It says that another one was the first.
    follows: bool,
}

impl Failure {
    fn new(rank: &Rank, status: ExitStatus) -> Self {
        let (number, pid) = (rank.rank, rank.child.id());
        let text = match status.signal().map(Signal::try_from) {
            Some(Ok(signal)) => format!("rank {number} (pid {pid}) was killed by {signal}"),
            _ => format!("rank {number} (pid {pid}) failed: {status}"),
        };
        Self {
            text,
            follows: status.code() == Some(PEER_GONE.into()),
        }
    }

    /// The one that the others followed.
    fn first(failed: &[Self]) -> Option<String> {
        let own = failed.iter().find(|failure| !failure.follows);
        own.or(failed.first()).map(|failure| failure.text.clone())
    }
}

fn each_running(ranks: &[Rank], act: impl Fn(&Child)) {
    let running = ranks.iter().filter(|rank| rank.running);
    running.for_each(|rank| act(&rank.child));
}

fn send(child: &Child, signal: Signal) {
    // Not reaped yet, so that the number is still its own.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_that_others_followed_is_told() {
        let failure = |text: &str, follows| Failure {
            text: text.into(),
            follows,
        };
        let (cause, follower) = (|| failure("cause", false), || failure("follower", true));
        assert_eq!(Failure::first(&[]), None);
        for failed in [vec![cause()], vec![follower(), cause(), follower()]] {
            assert_eq!(Failure::first(&failed).as_deref(), Some("cause"));
        }
        assert_eq!(Failure::first(&[follower()]).as_deref(), Some("follower"));
    }
}
