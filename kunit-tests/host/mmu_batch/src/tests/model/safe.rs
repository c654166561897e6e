// SPDX-License-Identifier: GPL-2.0

//! Nobody goes on while what he has zapped can still be used; and with each defect somebody does.

use super::{check, Device};
use crate::combine::{Caller, Mutant};
use loom::thread;
use std::panic::catch_unwind;
use std::string::String;

const PATIENT: Caller = Caller::Patient;

/// One event, and a device that walks the page table meanwhile.
fn walk(mutant: Option<Mutant>) {
    check(6, move || {
        let device = Device::new([false, false], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(0, PATIENT);
                device.free(0);
            })
        };
        device.access(0);
        device.access(0);
        event.join().unwrap();
    });
}

/// Two events at once, in different places, that are both in the TLB.
fn two_pages(mutant: Option<Mutant>) {
    check(5, move || {
        let device = Device::new([true, true], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(0, PATIENT);
                device.free(0);
            })
        };
        device.invalidate(1, PATIENT);
        device.free(1);
        event.join().unwrap();
    });
}

/// Two events at once, in different places, and the device uses one of them.
fn two_pages_in_use(mutant: Option<Mutant>) {
    check(3, move || {
        let device = Device::new([false, false], 0, mutant);
        let events = [0, 1].map(|page| {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(page, PATIENT);
                device.free(page);
            })
        });
        device.access(0);
        for event in events {
            event.join().unwrap();
        }
    });
}

/// Two events at once, in the same place: the page is free when either is done.
fn one_page(mutant: Option<Mutant>) {
    check(5, move || {
        let device = Device::new([true, false], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || device.invalidate(0, PATIENT))
        };
        device.invalidate(0, PATIENT);
        device.free(0);
        event.join().unwrap();
    });
}

#[test]
fn a_walk_and_an_event() {
    walk(None);
}

#[test]
fn two_events() {
    two_pages(None);
}

#[test]
fn two_events_and_a_walk() {
    two_pages_in_use(None);
}

#[test]
fn two_events_of_one_page() {
    one_page(None);
}

/// With `mutant`, a page is in use after it was freed, or may be as far as the memory model goes.
fn caught(scenario: fn(Option<Mutant>), mutant: Mutant) {
    let result = catch_unwind(|| scenario(Some(mutant)));
    let panic = result.expect_err("the mutant survives");
    let message = match panic.downcast_ref::<&str>() {
        Some(message) => message,
        None => panic.downcast_ref::<String>().unwrap().as_str(),
    };
    let expected = ["a freed page is", "Causality violation: Concurrent"];
    assert!(
        expected.iter().any(|start| message.starts_with(start)),
        "{message}"
    );
}

#[test]
fn mutant_publish_before_flush() {
    caught(two_pages, Mutant::PublishBeforeFlush);
}

#[test]
fn mutant_ticket_before_zap() {
    caught(two_pages_in_use, Mutant::TicketBeforeZap);
}

#[test]
fn mutant_snapshot_after_flush() {
    caught(two_pages, Mutant::SnapshotAfterFlush);
}

#[test]
fn mutant_join_in_flight() {
    caught(two_pages, Mutant::JoinInFlight);
}

#[test]
fn mutant_no_walk_drain() {
    caught(walk, Mutant::NoWalkDrain);
}

#[test]
fn mutant_elide_in_flight() {
    caught(one_page, Mutant::ElideInFlight);
}
