// SPDX-License-Identifier: GPL-2.0
//! Whole runs of the program, with real processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run in `dir`, of a model small enough for unoptimised code.
fn trainer(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nullhz-trainer"));
    command
        .arg("run")
        .arg("--dir")
        .arg(dir.join("checkpoints"))
        .arg("--log")
        .arg(dir.join("log"))
        .args(["--width", "8", "--batch", "2", "--eval-every", "7"])
        .args(["--stall-device", "/nonexistent/nullhz-stall"])
        .args(args)
        .stderr(Stdio::piped());
    command
}

/// A run that does not outlive its test, whatever becomes of that.
struct Run(Option<Child>);

impl Run {
    fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    fn pid(&mut self) -> Pid {
        Pid::from_raw(self.child().id() as i32)
    }

    fn kill(&mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    /// Waits until it ends by itself.
    fn end(mut self) -> Output {
        until("end", || self.child().try_wait().unwrap().is_some());
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = output(trainer(dir, args));
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn fail(dir: &Path, args: &[&str]) -> String {
    let output = output(trainer(dir, args));
    assert!(!output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

fn log(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    whole
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The loss of each step as it is printed. One that was trained again after a
/// resumption must have come out the same.
fn losses(dir: &Path) -> BTreeMap<u64, String> {
    let mut losses = BTreeMap::new();
    for line in log(dir).iter().filter(|line| line["event"] == "step") {
        let (step, loss) = (line["step"].as_u64().unwrap(), line["loss"].to_string());
        if let Some(before) = losses.insert(step, loss.clone()) {
            assert_eq!(before, loss, "step {step}");
        }
    }
    losses
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < end, "no {what} in {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
}

fn last_step(dir: &Path) -> u64 {
    losses(dir).keys().max().copied().unwrap_or(0)
}

/// The ranks of a run by number.
fn pids(launcher: &mut Run) -> BTreeMap<usize, Pid> {
    let own = launcher.pid().to_string();
    let mut pids = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        if let [_, b"rank", b"--rank", rank, b"--launcher", of, ..] = words[..] {
            if of == own.as_bytes() {
                let rank = String::from_utf8_lossy(rank).parse().unwrap();
                pids.insert(rank, Pid::from_raw(pid));
            }
        }
    }
    pids
}

fn state(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.unwrap_or('-')
}

fn checkpoints(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn verify(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nullhz-trainer"));
    command.arg("verify").arg(dir.join("checkpoints"));
    output(command)
}

#[test]
fn a_run_that_was_interrupted_goes_on_as_if_it_had_not_been() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    succeed(whole.path(), &["--ranks", "3", "--steps", "40"]);
    let expected = losses(whole.path());
    assert_eq!(expected.len(), 40);

    // Once in good order, once by SIGKILL of all, between two checkpoints.
    succeed(parts.path(), &["--ranks", "3", "--steps", "10"]);
    let args = ["--ranks", "3", "--steps", "40", "--checkpoint-every", "4"];
    let mut killed = Run::start(trainer(parts.path(), &args));
    until("step 19", || last_step(parts.path()) >= 19);
    let ranks = pids(&mut killed);
    killed.kill();
    until("end of the ranks", || {
        ranks.values().all(|pid| matches!(state(*pid), '-' | 'Z'))
    });
    let text = succeed(parts.path(), &args);
    assert!(text.contains("goes on from step "), "{text}");
    assert_eq!(losses(parts.path()), expected);
    let first: f64 = expected[&1].parse().unwrap();
    let last: f64 = expected[&40].parse().unwrap();
    assert!(last < first, "it learns: {first} {last}");
}

#[test]
fn ranks_and_seed_make_a_difference() {
    let run = |args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        succeed(dir.path(), &[&["--steps", "3"], args].concat());
        losses(dir.path())
    };
    let one = run(&["--ranks", "1"]);
    assert_eq!(one, run(&["--ranks", "1"]));
    assert_ne!(one, run(&["--ranks", "2"]));
    assert_ne!(one, run(&["--ranks", "1", "--seed", "2"]));
}

#[test]
fn another_job_does_not_go_on_from_these_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    succeed(dir.path(), &["--steps", "3", "--ranks", "2"]);
    let text = fail(dir.path(), &["--steps", "6", "--ranks", "3"]);
    assert!(text.contains("written by another job"), "{text}");
}

#[test]
fn two_runs_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--stall-at", "2", "--stall-kind", "sleep"];
    let _first = Run::start(trainer(dir.path(), &args));
    until("step 1", || last_step(dir.path()) == 1);
    let text = fail(dir.path(), &["--steps", "3"]);
    assert!(text.contains("another run uses it"), "{text}");
}

#[test]
fn a_killed_rank_ends_the_others_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--ranks", "4", "--steps", "1000000"];
    let mut run = Run::start(trainer(dir.path(), &args));
    until("step 3", || last_step(dir.path()) >= 3);
    let ranks = pids(&mut run);
    assert_eq!(ranks.len(), 4);
    kill(ranks[&2], Signal::SIGKILL).unwrap();
    let output = run.end();
    assert!(!output.status.success());
    let text = stderr(&output);
    let last = text.lines().last().unwrap();
    let expected = format!("rank 2 (pid {}) was killed by SIGKILL", ranks[&2]);
    assert!(last.contains(&expected), "{text}");
    assert!(text.contains("rank 3: rank 2 is gone"), "{text}");
    assert!(ranks.values().all(|pid| state(*pid) == '-'));
}

/// Rank 1 stalls in step 5; the state of its process then, and the run.
fn stalled(dir: &Path, kind: &str) -> (Run, BTreeMap<usize, Pid>) {
    let args = [
        "--ranks",
        "3",
        "--steps",
        "12",
        "--stall-at",
        "5",
        "--stall-rank",
        "1",
    ];
    let mut run = Run::start(trainer(dir, &[&args[..], &["--stall-kind", kind]].concat()));
    until("step 4", || last_step(dir) == 4);
    let ranks = pids(&mut run);
    assert_eq!(ranks.len(), 3);
    // The others come no further: they sleep in the all-reduce.
    sleep(Duration::from_millis(300));
    assert_eq!(last_step(dir), 4);
    assert_eq!((state(ranks[&0]), state(ranks[&2])), ('S', 'S'));
    (run, ranks)
}

#[test]
fn a_rank_that_spins_stops_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (run, ranks) = stalled(dir.path(), "spin");
    assert_eq!(state(ranks[&1]), 'R');
    kill(ranks[&1], Signal::SIGABRT).unwrap();
    let text = stderr(&run.end());
    assert!(text.contains("was killed by SIGABRT"), "{text}");
}

#[test]
fn a_rank_that_sleeps_stops_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, ranks) = stalled(dir.path(), "sleep");
    assert_eq!(state(ranks[&1]), 'S');
    // The ranks do not outlive their launcher, stalled or not.
    run.kill();
    until("end of the ranks", || {
        ranks.values().all(|pid| matches!(state(*pid), '-' | 'Z'))
    });
}

#[test]
fn a_rank_that_is_stopped_stops_the_others_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (run, ranks) = stalled(dir.path(), "stop");
    assert_eq!(state(ranks[&1]), 'T');
    kill(ranks[&1], Signal::SIGCONT).unwrap();
    let output = run.end();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(last_step(dir.path()), 12);
}

#[test]
fn a_run_that_is_told_to_end_writes_a_checkpoint_first() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--ranks",
        "2",
        "--steps",
        "1000000",
        "--checkpoint-every",
        "0",
    ];
    let mut run = Run::start(trainer(dir.path(), &args));
    until("step 5", || last_step(dir.path()) >= 5);
    kill(run.pid(), Signal::SIGTERM).unwrap();
    let output = run.end();
    assert!(output.status.success(), "{}", stderr(&output));
    let step = last_step(dir.path());
    assert_eq!(checkpoints(dir.path()), [format!("step-{step:08}")]);
    assert_eq!(log(dir.path()).last().unwrap()["event"], "ended");
}

#[test]
fn torn_checkpoints_are_found_and_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--ranks", "2", "--checkpoint-every", "5"];
    succeed(dir.path(), &[&args[..], &["--steps", "10"]].concat());
    assert_eq!(checkpoints(dir.path()), ["step-00000005", "step-00000010"]);
    let output = verify(dir.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches(": ok, loss ").count(), 2, "{text}");

    let model = dir
        .path()
        .join("checkpoints/step-00000010/model.safetensors");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    let output = verify(dir.path());
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("step-00000010: BROKEN: model.safetensors"),
        "{text}"
    );

    let text = succeed(dir.path(), &[&args[..], &["--steps", "12"]].concat());
    assert!(text.contains("step-00000010 is passed over"), "{text}");
    assert!(text.contains("goes on from step 5"), "{text}");
    assert!(verify(dir.path()).status.success());
    // Steps 6 to 10 a second time: losses() compares them with the first.
    assert_eq!(losses(dir.path()).len(), 12);
}

#[test]
fn nothing_to_verify_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("checkpoints")).unwrap();
    let output = verify(dir.path());
    assert!(!output.status.success());
    assert!(stderr(&output).contains("no checkpoint"));
}

#[test]
fn without_a_watchdog_it_trains_with_one_warning_unless_it_must_not() {
    let dir = tempfile::tempdir().unwrap();
    let text = succeed(dir.path(), &["--ranks", "3", "--steps", "2"]);
    assert_eq!(
        text.matches("nobody watches this training").count(),
        1,
        "{text}"
    );
    let text = fail(
        dir.path(),
        &["--ranks", "3", "--steps", "4", "--require-watchdog"],
    );
    assert!(text.contains("no such device"), "{text}");
    assert_eq!(last_step(dir.path()), 2);
}
