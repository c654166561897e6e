// SPDX-License-Identifier: GPL-2.0
//! The hook directory: every executable in it runs with what happened as JSON
//! on its standard input.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{
    channel, sync_channel, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError,
};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use tracing::warn;

use crate::error::Result;
use crate::sys;

/// Occasions run at the same time.
const THREADS: usize = 2;
/// Occasions that may wait for that.
const QUEUE: usize = 64;
/// How often a hook that runs is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Something to run the hooks for.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// One line of JSON.
    pub json: String,
    /// The most wanted parts of it for shell scripts: names and values of
    /// environment variables.
    pub env: Vec<(&'static str, String)>,
}

/// How the hooks fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Exited with 0.
    pub ok: u64,
    /// Could not be run, exited otherwise, or died of a signal.
    pub failed: u64,
    /// Killed because their time was over.
    pub timed_out: u64,
    /// Occasions for which nothing was run: too many waited.
    pub dropped: u64,
}

/// The threads that run hooks.
pub struct Hooks {
    /// `None` when no more are taken.
    queue: Option<SyncSender<Occasion>>,
    tally: Arc<Mutex<Tally>>,
    /// Disconnected when all threads have ended.
    running: Receiver<()>,
}

impl Hooks {
    /// Starts the threads. The directory is read anew for every occasion.
    ///
    /// # Errors
    ///
    /// `Io` when a thread cannot be started.
    pub fn start(dir: PathBuf, timeout: Duration) -> Result<Self> {
        let (queue, occasions) = sync_channel(QUEUE);
        let occasions = Arc::new(Mutex::new(occasions));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (runs, running) = channel();
        for _ in 0..THREADS {
            let (dir, occasions, tally) = (dir.clone(), occasions.clone(), tally.clone());
            let runs: Sender<()> = runs.clone();
            super::spawn("hooks", move || {
                serve(&dir, timeout, &occasions, &tally);
                drop(runs);
            })?;
        }
        let queue = Some(queue);
        Ok(Self {
            queue,
            tally,
            running,
        })
    }

    /// Has the hooks run for `occasion`, soon.
    pub fn run(&self, occasion: Occasion) {
        let sent = self.queue.as_ref().map(|queue| queue.try_send(occasion));
        if let Some(Err(TrySendError::Full(_))) = sent {
            add(&self.tally, |tally| tally.dropped += 1);
        }
    }

    /// Takes no more, and waits so long for what runs and what waits; says
    /// whether that has all come to its end.
    pub fn finish(&mut self, patience: Duration) -> bool {
        self.queue = None;
        self.running.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }

    /// How they fared so far.
    pub fn tally(&self) -> Tally {
        self.tally
            .lock()
            .map_or_else(|poisoned| *poisoned.into_inner(), |tally| *tally)
    }
}

fn add(tally: &Mutex<Tally>, change: impl FnOnce(&mut Tally)) {
    if let Ok(mut tally) = tally.lock() {
        change(&mut tally);
    }
}

fn serve(
    dir: &Path,
    timeout: Duration,
    occasions: &Mutex<Receiver<Occasion>>,
    tally: &Mutex<Tally>,
) {
    let next = || occasions.lock().ok()?.recv().ok();
    while let Some(occasion) = next() {
        for hook in hooks_in(dir) {
            let result = run_one(&hook, &occasion, timeout);
            match &result {
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => warn!("hook {}: {status}", hook.display()),
                Ok(None) => warn!("hook {}: killed after {timeout:?}", hook.display()),
                Err(err) => warn!("hook {}: {err}", hook.display()),
            }
            add(tally, |tally| match result {
                Ok(Some(status)) if status.success() => tally.ok += 1,
                Ok(None) => tally.timed_out += 1,
                _ => tally.failed += 1,
            });
        }
    }
}

/// The hooks, by name. Hidden files, editors' backups and what is not
/// executable are none; what anybody may write to is refused.
fn hooks_in(dir: &Path) -> Vec<PathBuf> {
    let mut hooks = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        let mode = meta.permissions().mode();
        if name.starts_with('.') || name.ends_with('~') || !meta.is_file() || mode & 0o111 == 0 {
            continue;
        }
        if mode & 0o002 != 0 {
            warn!("hook {}: not run: anybody may write to it", path.display());
            continue;
        }
        hooks.push(path);
    }
    hooks.sort();
    hooks
}

/// Runs one hook; `None` when its time was over.
fn run_one(
    hook: &Path,
    occasion: &Occasion,
    timeout: Duration,
) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + timeout;
    let mut command = Command::new(hook);
    command
        .envs(occasion.env.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own group, so that its children end with it.
        .process_group(0);
    sys::as_an_ordinary_program(&mut command);
    let mut child = loop {
        match command.spawn() {
            // Somebody is about to write it.
            Err(err) if err.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::sleep(POLL);
            }
            result => break result?,
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A pipe holds 64 KiB, far more than this, so that writing never
        // waits; a hook need not read it.
        let _ = writeln!(stdin, "{}", occasion.json);
    }
    wait(&mut child, end)
}

fn wait(child: &mut Child, end: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            // The child is not reaped yet, so that its id is still its own.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(dir: &Path, name: &str, mode: u32, script: &str) {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn occasion() -> Occasion {
        Occasion {
            json: r#"{"level":"imminent"}"#.into(),
            env: vec![("NULLHZ_LEVEL", "imminent".into())],
        }
    }

    fn run_all(dir: &Path, timeout: Duration) -> Tally {
        let hooks = Hooks::start(dir.into(), timeout).unwrap();
        hooks.run(occasion());
        let end = Instant::now() + Duration::from_secs(20);
        let count = hooks_in(dir).len() as u64;
        loop {
            let tally = hooks.tally();
            if tally.ok + tally.failed + tally.timed_out == count || Instant::now() > end {
                return tally;
            }
            thread::sleep(POLL);
        }
    }

    #[test]
    fn hooks_get_the_event() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let script = format!(
            "cat > {0}/json; echo \"$NULLHZ_LEVEL\" > {0}/env",
            out.display()
        );
        hook(dir.path(), "10-record", 0o755, &script);
        hook(dir.path(), "20-fails", 0o755, "exit 3");
        hook(dir.path(), "30-does-not-read", 0o755, "exec <&-");
        let tally = run_all(dir.path(), Duration::from_secs(10));
        assert_eq!((tally.ok, tally.failed, tally.timed_out), (2, 1, 0));
        assert_eq!(
            fs::read_to_string(out.join("json")).unwrap(),
            "{\"level\":\"imminent\"}\n"
        );
        assert_eq!(fs::read_to_string(out.join("env")).unwrap(), "imminent\n");
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        hook(dir.path(), "hangs", 0o755, &script);
        let tally = run_all(dir.path(), Duration::from_secs(3));
        assert_eq!((tally.ok, tally.failed, tally.timed_out), (0, 0, 1));
        let pid = fs::read_to_string(pid).unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // Gone, or a zombie that its new parent has not reaped yet.
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }

    #[test]
    fn only_proper_hooks_are_run() {
        let dir = tempfile::tempdir().unwrap();
        hook(dir.path(), ".hidden", 0o755, "");
        hook(dir.path(), "backup~", 0o755, "");
        hook(dir.path(), "not-executable", 0o644, "");
        hook(dir.path(), "anybody-may-write", 0o757, "");
        hook(dir.path(), "b", 0o755, "");
        hook(dir.path(), "a", 0o755, "");
        let names = hooks_in(dir.path());
        assert_eq!(names, [dir.path().join("a"), dir.path().join("b")]);
        assert!(hooks_in(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn too_many_occasions_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        hook(dir.path(), "slow", 0o755, "sleep 5");
        let hooks = Hooks::start(dir.path().into(), Duration::from_secs(10)).unwrap();
        for _ in 0..QUEUE + THREADS + 10 {
            hooks.run(occasion());
        }
        assert!(hooks.tally().dropped >= 10);
    }

    #[test]
    fn the_end_waits_for_hooks_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        hook(dir.path(), "short", 0o755, "sleep 0.2");
        let timeout = Duration::from_secs(100);
        let mut hooks = Hooks::start(dir.path().into(), timeout).unwrap();
        for _ in 0..THREADS + 1 {
            hooks.run(occasion());
        }
        assert!(hooks.finish(timeout));
        assert_eq!(hooks.tally().ok, THREADS as u64 + 1);

        hook(dir.path(), "short", 0o755, "sleep 3");
        let mut hooks = Hooks::start(dir.path().into(), timeout).unwrap();
        hooks.run(occasion());
        assert!(!hooks.finish(Duration::from_millis(100)));
    }
}
