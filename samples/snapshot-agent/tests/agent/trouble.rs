// SPDX-License-Identifier: GPL-2.0
//! A volume that cannot be written to, or on which somebody has laid traps.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread::{sleep, spawn};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use nullhz_agent::abi::{flag, Level};
use nullhz_agent::error::Error;
use nullhz_agent::store::{self, Store};

use crate::harness::Bench;

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn a_read_only_volume_keeps_no_agent_from_starting() {
    let mut bench = Bench::new();
    let agent = bench.start("");
    agent.signal(Signal::SIGKILL);
    agent.expect_killed();
    bench.volume.set_read_only(true);
    let mut agent = bench.start("");
    bench.open(1);
    let event = bench.event(Level::Imminent, 1, flag::OPENED);
    agent.send(&[event]);
    assert_eq!(bench.wait_for_ack(1), "EROFS");
    agent.stop();
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn the_lock_is_waited_for_but_not_for_long() {
    let bench = Bench::new();
    let store = Store::open(&bench.volume.layout).unwrap();
    let held = store.claim().unwrap();
    // As by a hook of an agent that was killed, until it is executed.
    let holder = spawn(move || {
        sleep(Duration::from_millis(300));
        drop(held);
    });
    let held = store.claim().unwrap();
    holder.join().unwrap();
    assert!(matches!(store.claim(), Err(Error::Locked(_))));
    drop(held);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn the_mark_is_never_reached_through_a_link() {
    let bench = Bench::new();
    let dir = bench.volume.layout.snapshots_path();
    fs::create_dir(&dir).unwrap();
    let mark = dir.join(store::MARK);
    let precious = bench.volume.outside().join("precious");
    fs::write(&precious, "kept").unwrap();
    symlink(&precious, &mark).unwrap();
    assert_eq!(bench.start("").end().code(), Some(1));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");

    fs::remove_file(&mark).unwrap();
    let nowhere = bench.volume.outside().join("nowhere");
    symlink(&nowhere, &mark).unwrap();
    assert_eq!(bench.start("").end().code(), Some(1));
    assert!(!nowhere.exists());

    fs::remove_file(&mark).unwrap();
    mkfifo(&mark, Mode::S_IRWXU).unwrap();
    assert_eq!(bench.start("").end().code(), Some(1));
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn snapshots_are_listed_where_they_are_made() {
    let bench = Bench::new();
    let layout = &bench.volume.layout;
    let mut store = Store::open(layout).unwrap();
    let name = store::name_now(1, &[1; 16]);
    store.take(name).unwrap();
    fs::rename(layout.snapshots_path(), layout.volume.join("moved")).unwrap();
    symlink("/etc", layout.snapshots_path()).unwrap();
    let listed: Vec<_> = store.list().unwrap().iter().map(|one| one.name).collect();
    assert_eq!(listed, [name]);
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn one_that_cannot_be_deleted_keeps_no_other() {
    let mut bench = Bench::new();
    bench.with_three();
    let oldest = bench.snapshots()[0];
    bench.volume.set_default(oldest.info.unwrap().id);
    let mut agent = bench.start("");
    for id in 4..=5 {
        bench.open(id);
        let event = bench.event(Level::Imminent, id, flag::OPENED);
        agent.send(&[event]);
        bench.wait_for_ack(id);
    }
    bench.wait_for_state("rotation", |state| state.snapshots_deleted == 1);
    agent.stop();
    let incidents: Vec<_> = bench.snapshots().iter().map(|s| s.name.incident).collect();
    assert_eq!(incidents, [1, 3, 4, 5]);
    let log = bench.log();
    let line = format!("{}: delete: EPERM", oldest.name);
    assert!(log.contains(&line), "{log}");
}
