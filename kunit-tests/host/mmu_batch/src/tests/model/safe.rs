// SPDX-License-Identifier: GPL-2.0

//! Nobody goes on while what he has zapped can still be used; and with each defect somebody does.

use super::Way::{AtOnce, Passes};
use super::{check, Device, Way};
use crate::combine::Mutant;
use loom::thread;
use std::panic::catch_unwind;
use std::string::String;

/// One event, or two, and how they go.
type Scenario<const N: usize> = fn([Way; N], Option<Mutant>);

/// One event, and a device that walks the page table meanwhile.
fn walk([way]: [Way; 1], mutant: Option<Mutant>) {
    check(6, move || {
        let device = Device::new([false, false], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(0, way);
                device.free(0);
            })
        };
        device.access(0);
        device.access(0);
        event.join().unwrap();
    });
}

/// Two events at once, in different places, that are both in the TLB.
fn two_pages(ways: [Way; 2], mutant: Option<Mutant>) {
    check(5, move || {
        let device = Device::new([true, true], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(0, ways[0]);
                device.free(0);
            })
        };
        device.invalidate(1, ways[1]);
        device.free(1);
        event.join().unwrap();
    });
}

/// Two events at once, in different places, and the device uses one of them.
fn two_pages_in_use(ways: [Way; 2], mutant: Option<Mutant>) {
    check(3, move || {
        let device = Device::new([false, false], 0, mutant);
        let events = [0, 1].map(|page| {
            let device = device.clone();
            thread::spawn(move || {
                device.invalidate(page, ways[page]);
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
fn one_page(ways: [Way; 2], mutant: Option<Mutant>) {
    check(5, move || {
        let device = Device::new([true, false], 0, mutant);
        let event = {
            let device = device.clone();
            thread::spawn(move || device.invalidate(0, ways[0]))
        };
        device.invalidate(0, ways[1]);
        device.free(0);
        event.join().unwrap();
    });
}

#[test]
fn a_walk_and_an_event() {
    walk([Passes], None);
    walk([AtOnce], None);
}

#[test]
fn two_events() {
    two_pages([Passes, Passes], None);
}

#[test]
fn two_events_at_once() {
    two_pages([AtOnce, AtOnce], None);
    two_pages([AtOnce, Passes], None);
}

#[test]
fn two_events_and_a_walk() {
    two_pages_in_use([Passes, Passes], None);
}

#[test]
fn two_events_at_once_and_a_walk() {
    two_pages_in_use([AtOnce, AtOnce], None);
    two_pages_in_use([AtOnce, Passes], None);
}

#[test]
fn two_events_of_one_page() {
    one_page([Passes, Passes], None);
}

#[test]
fn two_events_of_one_page_at_once() {
    one_page([AtOnce, AtOnce], None);
    one_page([AtOnce, Passes], None);
    one_page([Passes, AtOnce], None);
}

/// With `mutant`, a page is in use after it was freed, or may be as far as the memory model goes.
fn caught<const N: usize>(scenario: Scenario<N>, ways: [Way; N], mutant: Mutant) {
    let result = catch_unwind(|| scenario(ways, Some(mutant)));
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
    caught(two_pages, [Passes; 2], Mutant::PublishBeforeFlush);
    caught(two_pages, [Passes, AtOnce], Mutant::PublishBeforeFlush);
}

#[test]
fn mutant_ticket_before_zap() {
    caught(two_pages_in_use, [Passes; 2], Mutant::TicketBeforeZap);
    caught(two_pages_in_use, [AtOnce; 2], Mutant::TicketBeforeZap);
}

#[test]
fn mutant_snapshot_after_flush() {
    caught(two_pages, [Passes; 2], Mutant::SnapshotAfterFlush);
    caught(two_pages, [AtOnce; 2], Mutant::SnapshotAfterFlush);
}

#[test]
fn mutant_join_in_flight() {
    caught(two_pages, [Passes; 2], Mutant::JoinInFlight);
    caught(two_pages, [AtOnce; 2], Mutant::JoinInFlight);
}

#[test]
fn mutant_no_walk_drain() {
    caught(walk, [Passes], Mutant::NoWalkDrain);
    caught(walk, [AtOnce], Mutant::NoWalkDrain);
}

#[test]
fn mutant_elide_in_flight() {
    caught(one_page, [Passes; 2], Mutant::ElideInFlight);
    caught(one_page, [AtOnce; 2], Mutant::ElideInFlight);
}
