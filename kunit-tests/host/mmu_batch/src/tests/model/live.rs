// SPDX-License-Identifier: GPL-2.0

//! Everybody goes on in the end: the model checker finds threads that none will ever wake.

use super::{check, Device, Way};
use crate::combine::{Caller, Waited};
use loom::thread;

const PATIENT: Caller = Caller::Patient;

/// As many events as `callers`, at once; the number of flushes is right.
fn crowd<const N: usize>(preemptions: usize, callers: [Caller; N], deaf: u32) {
    mixed(
        preemptions,
        callers.map(|caller| (caller, Way::Passes)),
        deaf,
    );
}

/// The same, each in its way.
fn mixed<const N: usize>(preemptions: usize, callers: [(Caller, Way); N], deaf: u32) {
    check(preemptions, move || {
        let device = Device::new([true, true], deaf, None);
        let [(first, way), others @ ..] = &callers[..] else {
            return;
        };
        let others: std::vec::Vec<_> = others
            .iter()
            .zip(1..)
            .map(|((caller, way), n)| {
                let (device, caller, way) = (device.clone(), *caller, *way);
                thread::spawn(move || device.event(n, caller, way))
            })
            .collect();
        let mut led = u64::from(device.event(0, *first, *way) == Waited::Led);
        for other in others {
            led += u64::from(other.join().unwrap() == Waited::Led);
        }
        let rounds = device.rounds();
        assert_eq!(led, rounds.len() as u64);
        assert_eq!(
            rounds.iter().map(|round| round.tickets).sum::<u64>(),
            N as u64
        );
        assert!(rounds
            .iter()
            .zip(1..)
            .all(|(round, n)| round.generation == n));
        let resets: u32 = rounds.iter().map(|round| round.resets).sum();
        assert_eq!(resets, deaf);
    });
}

#[test]
fn two_patient() {
    crowd(6, [Caller::Patient; 2], 0);
}

#[test]
fn three_patient() {
    crowd(3, [Caller::Patient; 3], 0);
}

#[test]
fn one_in_real_time() {
    crowd(3, [Caller::Patient, Caller::RealTime, Caller::Patient], 0);
}

#[test]
fn two_in_real_time() {
    crowd(
        2,
        [Caller::RealTime, Caller::Reclaiming, Caller::RealTime],
        0,
    );
}

#[test]
fn a_device_that_does_not_answer() {
    crowd(3, [Caller::Patient; 2], 1);
    crowd(2, [Caller::Patient; 2], 3);
}

#[test]
fn at_once() {
    mixed(6, [(PATIENT, Way::AtOnce); 2], 0);
    mixed(6, [(PATIENT, Way::AtOnce), (PATIENT, Way::Passes)], 0);
    mixed(3, [(PATIENT, Way::AtOnce); 2], 1);
}

#[test]
fn three_at_once() {
    mixed(3, [(PATIENT, Way::AtOnce); 3], 0);
}

#[test]
fn one_at_once_among_others() {
    let others = (PATIENT, Way::Passes);
    mixed(3, [others, (PATIENT, Way::AtOnce), others], 0);
    mixed(
        2,
        [
            others,
            (PATIENT, Way::AtOnce),
            (Caller::RealTime, Way::Passes),
        ],
        0,
    );
}
