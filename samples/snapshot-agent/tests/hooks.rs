// SPDX-License-Identifier: GPL-2.0
//! The hooks in hooks/, with the programs that they call replaced.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A program that records its arguments and input.
fn program(dir: &Path, name: &str) {
    let path = dir.join(name);
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > {0}/{name}.args\ncat > {0}/{name}.input\n",
        dir.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(dir: &Path, hook: &str, kind: Option<&str>, level: &str) -> Output {
    let mut command = Command::new(Path::new("hooks").join(hook));
    let path = std::env::var("PATH").unwrap();
    command
        .env("PATH", format!("{}:{path}", dir.display()))
        .env("NULLHZ_NOTE", dir.join("note"))
        .env("SLURMD_NODENAME", "node7")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(kind) = kind {
        command
            .env("NULLHZ_TYPE", kind)
            .env("NULLHZ_LEVEL", level)
            .env("NULLHZ_INCIDENT", "7")
            .env("NULLHZ_TEXT", "incident 7: text with 'quotes'");
    }
    let mut child = command.spawn().unwrap();
    // Not every hook reads it.
    let _ = child.stdin.take().unwrap().write_all(b"{\"incident\":7}\n");
    child.wait_with_output().unwrap()
}

#[test]
fn slurm_drains_once_the_snapshot_is_there() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "scontrol");
    assert!(run(dir.path(), "50-slurm-drain", Some("event"), "imminent")
        .status
        .success());
    assert!(!dir.path().join("scontrol.args").exists());
    assert!(
        run(dir.path(), "50-slurm-drain", Some("snapshot"), "imminent")
            .status
            .success()
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("scontrol.args")).unwrap(),
        "update\nnodename=node7\nstate=drain\nreason=nullhz: incident 7: text with 'quotes'\n"
    );
}

#[test]
fn node_problem_detector_is_told_of_imminent_faults_only() {
    let dir = tempfile::tempdir().unwrap();
    let hook = "50-node-problem-detector";
    let ask = || {
        let output = run(dir.path(), hook, None, "");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(ask(), (Some(0), String::new()));
    assert!(run(dir.path(), hook, Some("event"), "degrading")
        .status
        .success());
    assert_eq!(ask(), (Some(0), String::new()));
    assert!(run(dir.path(), hook, Some("event"), "imminent")
        .status
        .success());
    assert_eq!(ask(), (Some(1), "incident 7: text with 'quotes'\n".into()));
}

#[test]
fn the_log_gets_the_json() {
    let dir = tempfile::tempdir().unwrap();
    program(dir.path(), "logger");
    assert!(run(dir.path(), "90-log", Some("event"), "imminent")
        .status
        .success());
    let input = fs::read_to_string(dir.path().join("logger.input")).unwrap();
    assert_eq!(input, "{\"incident\":7}\n");
}
