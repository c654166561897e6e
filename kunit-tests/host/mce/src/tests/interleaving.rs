// SPDX-License-Identifier: GPL-2.0

//! The slots under every interleaving and every reordering that the memory model allows.

/// The drivers' atomics in the model.
mod atomic {
    use loom::sync::atomic::{AtomicU64 as Modelled, Ordering};

    pub(crate) struct AtomicU64(Modelled);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            AtomicU64(Modelled::new(value))
        }

        pub(crate) fn load(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        pub(crate) fn load_acquire(&self) -> u64 {
            self.0.load(Ordering::Acquire)
        }

        pub(crate) fn store(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }

        pub(crate) fn store_release(&self, value: u64) {
            self.0.store(value, Ordering::Release);
        }

        pub(crate) fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
            self.0
                .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
                .map(drop)
        }
    }
}

// Once more, with other atomics.
#[allow(clippy::duplicate_mod)]
#[path = "../../../../../drivers/mce/slots.rs"]
mod slots;

use atomic::AtomicU64;
use loom::sync::Arc;
use loom::thread;
use slots::{identity, Missed, Ring, Slot};

const WIDTH: usize = 2;

fn entry(id: u64) -> [u64; WIDTH] {
    [id, !id]
}

fn ring(slots: usize) -> Ring<Vec<Slot<WIDTH>>, WIDTH> {
    Ring::new((0..slots).map(|_| Slot::new()).collect()).expect("enough slots")
}

/// Takes everything that is there now.
fn drain(ring: &Ring<Vec<Slot<WIDTH>>, WIDTH>, got: &mut Vec<u64>) {
    while let Some([id, check]) = ring.pop() {
        assert_eq!(check, !id, "torn");
        assert!(!got.contains(&id), "twice");
        got.push(id);
    }
}

#[test]
fn two_producers_and_the_consumer() {
    loom::model(|| {
        let ring = Arc::new(ring(2));
        let producers: Vec<_> = [1u64, 2]
            .into_iter()
            .map(|id| {
                let ring = ring.clone();
                thread::spawn(move || ring.push(&entry(id)))
            })
            .collect();
        let mut got = Vec::new();
        drain(&ring, &mut got);
        let stored: Vec<_> = producers.into_iter().map(|p| p.join().unwrap()).collect();
        drain(&ring, &mut got);
        // Two slots for two entries: none may be turned away, none may be missing.
        assert_eq!(stored, [true, true]);
        assert_eq!(got.len(), 2);
    });
}

#[test]
fn what_is_there_is_there_as_a_whole() {
    loom::model(|| {
        let ring = Arc::new(ring(2));
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || ring.pop())
        };
        assert!(ring.push(&entry(1)));
        if let Some(got) = consumer.join().unwrap() {
            assert_eq!(got, entry(1));
        }
    });
}

#[test]
fn a_slot_is_used_again_only_after_it_was_read() {
    loom::model(|| {
        let ring = Arc::new(ring(2));
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                let mut got = Vec::new();
                drain(&ring, &mut got);
                got
            })
        };
        let stored = (1..=3).filter(|id| ring.push(&entry(*id))).count();
        let mut got = consumer.join().unwrap();
        drain(&ring, &mut got);
        assert_eq!(stored, got.len());
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
    });
}

#[test]
fn a_missed_identity_is_taken_once() {
    loom::model(|| {
        let id = identity(&[7]);
        let missed = Arc::new(Missed::new(
            (0..2).map(|_| AtomicU64::new(0)).collect::<Vec<_>>(),
        ));
        assert!(missed.insert(id, 0));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let missed = missed.clone();
                thread::spawn(move || missed.take(id))
            })
            .collect();
        let taken = takers
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|taken| *taken)
            .count();
        assert_eq!(taken, 1);
    });
}
