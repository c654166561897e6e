// SPDX-License-Identifier: GPL-2.0
//! Restoring, with and without an agent beside it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nullhz_agent::abi::{flag, Level};

use crate::harness::{until, Bench};

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_restored_subvolume_is_the_next_one_snapshotted() {
    let mut bench = Bench::new();
    let current = bench.volume.current();
    fs::write(current.join("step"), "1").unwrap();
    let mut agent = bench.start("");
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(1);
    fs::write(current.join("step"), "2").unwrap();
    let restored = bench.cli(&["restore", "latest", "--json"]);
    let before = restored["before"].as_str().unwrap();
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "1");
    assert_eq!(
        fs::read_to_string(Path::new(before).join("step")).unwrap(),
        "2"
    );

    fs::write(current.join("step"), "3").unwrap();
    bench.open(2);
    let event = bench.event(Level::Imminent, 2, flag::OPENED);
    agent.send(&[event]);
    bench.wait_for_ack(2);
    let newest = bench.snapshots().pop().unwrap();
    let path = bench
        .volume
        .layout
        .snapshots_path()
        .join(newest.name.to_string());
    assert_eq!(fs::read_to_string(path.join("step")).unwrap(), "3");
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn restore_refuses_a_subvolume_in_use_and_survives_being_killed() {
    let mut bench = Bench::new();
    let current = bench.volume.current();
    fs::write(current.join("step"), "1").unwrap();
    bench.with_three();
    fs::write(current.join("step"), "2").unwrap();

    let user = fs::File::open(current.join("step")).unwrap();
    let refused = bench.command(&["restore", "latest"]);
    assert_eq!(refused.status.code(), Some(7));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains(&format!("(pid {})", std::process::id())),
        "{text}"
    );
    drop(user);

    let killed = |point: &str| {
        // A child that another test has just forked has `user` until its exec.
        let status = until("the subvolume to be let go", || {
            let status = Command::new(env!("CARGO_BIN_EXE_nullhz-agent"))
                .args(["restore", "latest"])
                .env("NULLHZ_VOLUME", &bench.volume.layout.volume)
                .env("NULLHZ_AGENT_CRASH_AT", point)
                .status()
                .unwrap();
            Some(status).filter(|status| status.code() != Some(7))
        });
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    };
    killed("before-exchange");
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "2");
    killed("after-exchange");
    assert_eq!(fs::read_to_string(current.join("step")).unwrap(), "1");
    let kept = fs::read_dir(&bench.volume.layout.volume)
        .unwrap()
        .any(|entry| {
            let step = entry.unwrap().path().join("step");
            fs::read_to_string(step).is_ok_and(|text| text == "2")
        });
    assert!(kept, "the former contents are somewhere");

    let copy = bench.cli(&["restore", "i2", "--to", "copy", "--json"]);
    assert_eq!(copy["before"], serde_json::Value::Null);
    fs::write(bench.volume.layout.volume.join("copy/step"), "4").unwrap();
    assert_eq!(
        bench
            .command(&["restore", "i2", "--to", "copy"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(
        bench
            .command(&["restore", "i2", "--to", "../x"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(bench.command(&["restore", "i9"]).status.code(), Some(6));
    assert_eq!(bench.snapshots().len(), 3);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn restore_refuses_a_subvolume_that_a_container_has_mounted() {
    let mut bench = Bench::new();
    bench.with_three();
    let inside = bench.volume.outside().join("in side");
    fs::create_dir(&inside).unwrap();
    // Its mounts are in no other namespace.
    let mut container = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .args(["mount --bind \"$1\" \"$2\" && exec sleep 1000", "sh"])
        .args([&bench.volume.current(), &inside])
        .spawn()
        .unwrap();
    let pid = container.id();
    until("the container's program", || {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        (comm == "sleep\n").then_some(())
    });
    let refused = bench.command(&["restore", "latest"]);
    container.kill().unwrap();
    container.wait().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(7), "{text}");
    let user = format!("mounted at {} for sleep (pid {pid})", inside.display());
    assert!(text.contains(&user), "{text}");
    bench.cli(&["restore", "latest", "--json"]);
}
