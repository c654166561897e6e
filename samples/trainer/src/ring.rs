// SPDX-License-Identifier: GPL-2.0
//! The ranks' links: each sends to its right neighbour and receives from its
//! left one, over stream sockets. A collective ends when all ranks have taken
//! part, so that one that is stuck stops them all; one that is gone ends them
//! all, because its sockets close.
//!
//! ```text
//!   ┌─► rank 0 ──► rank 1 ──► … ──► rank N-1 ─┐
//!   └─────────────────────────────────────────┘
//! ```
//! Sums are formed in an order that only the number of ranks decides, and every
//! rank gets the very bits that one of them has formed.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

/// A rank's place in the ring.
pub struct Ring {
    rank: usize,
    ranks: usize,
    /// None when the rank is alone.
    links: Option<Links>,
}

struct Links {
    left: File,
    right: File,
}

/// A neighbour has ended.
#[derive(Debug)]
pub struct Gone {
    /// Which.
    pub rank: usize,
    source: io::Error,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} is gone: {}", self.rank, self.source)
    }
}

impl std::error::Error for Gone {}

impl Ring {
    /// A rank without others.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            ranks: 1,
            links: None,
        }
    }

    /// The place of `rank` among `ranks`, with its links.
    ///
    /// # Errors
    ///
    /// When a link is no socket.
    pub fn new(rank: usize, ranks: usize, left: OwnedFd, right: OwnedFd) -> io::Result<Self> {
        for link in [&left, &right] {
            let flags = OFlag::from_bits_retain(fcntl(link, FcntlArg::F_GETFL)?);
            fcntl(link, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            rank,
            ranks,
            links: Some(Links {
                left: left.into(),
                right: right.into(),
            }),
        })
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    fn neighbours(&self) -> (usize, usize) {
        let left = (self.rank + self.ranks - 1) % self.ranks;
        (left, (self.rank + 1) % self.ranks)
    }

    /// Gives every rank what each has to say, in the order of the ranks.
    ///
    /// # Errors
    ///
    /// `Gone`.
    pub fn all_gather<const N: usize>(&mut self, mine: [u8; N]) -> Result<Vec<[u8; N]>, Gone> {
        let mut all = vec![mine; self.ranks];
        let mut passed_on = mine;
        for distance in 1..self.ranks {
            let mut received = [0; N];
            self.exchange(&passed_on, &mut received)?;
            all[(self.rank + self.ranks - distance) % self.ranks] = received;
            passed_on = received;
        }
        Ok(all)
    }

    /// Replaces the values by the sums over all ranks: first each rank sums one
    /// part up while it goes round, then the sums go round.
    ///
    /// # Errors
    ///
    /// `Gone`.
    pub fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), Gone> {
        let (rank, ranks) = (self.rank, self.ranks);
        let part = |n: usize| part(values.len(), ranks, n % ranks);
        let parts: Vec<_> = (0..ranks).map(part).collect();
        let at = |n: usize| parts[n % ranks].clone();
        for turn in 0..ranks - 1 {
            let (out, into) = (at(rank + ranks - turn), at(rank + 2 * ranks - turn - 1));
            let received = self.exchange_floats(&values[out], into.len())?;
            for (value, other) in values[into].iter_mut().zip(received) {
                *value += other;
            }
        }
        for turn in 0..ranks - 1 {
            let (out, into) = (at(rank + ranks + 1 - turn), at(rank + ranks - turn));
            let received = self.exchange_floats(&values[out], into.len())?;
            values[into].copy_from_slice(&received);
        }
        Ok(())
    }

    fn exchange_floats(&mut self, send: &[f32], count: usize) -> Result<Vec<f32>, Gone> {
        let send: Vec<u8> = send.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut received = vec![0; 4 * count];
        self.exchange(&send, &mut received)?;
        let (floats, _) = received.as_chunks();
        Ok(floats
            .iter()
            .map(|bytes| f32::from_ne_bytes(*bytes))
            .collect())
    }

    /// Sends to the right and receives from the left, both at once, so that
    /// ranks that all do so cannot wait for each other in a circle.
    fn exchange(&mut self, mut send: &[u8], mut receive: &mut [u8]) -> Result<(), Gone> {
        let (left_rank, right_rank) = self.neighbours();
        let Some(Links { left, right }) = &mut self.links else {
            return Ok(());
        };
        let gone = |rank| move |source| Gone { rank, source };
        while !(send.is_empty() && receive.is_empty()) {
            // Only what there is still something to do with: a right neighbour
            // that has all it needs may end before this rank has.
            let from = (!receive.is_empty()).then(|| PollFd::new(left.as_fd(), PollFlags::POLLIN));
            let to = (!send.is_empty()).then(|| PollFd::new(right.as_fd(), PollFlags::POLLOUT));
            let mut fds: Vec<_> = from.into_iter().chain(to).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(gone(left_rank)(errno.into())),
            }
            if !receive.is_empty() {
                let len = match left.read(receive) {
                    Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                    result => ready(result),
                };
                receive = &mut receive[len.map_err(gone(left_rank))?..];
            }
            if !send.is_empty() {
                let len = ready(right.write(send)).map_err(gone(right_rank))?;
                send = &send[len..];
            }
        }
        Ok(())
    }
}

fn ready(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

/// The `n`th of `ranks` parts of `len` values.
fn part(len: usize, ranks: usize, n: usize) -> Range<usize> {
    len * n / ranks..len * (n + 1) / ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn rings(ranks: usize) -> Vec<Ring> {
        let pairs: Vec<_> = (0..ranks).map(|_| UnixStream::pair().unwrap()).collect();
        let (mut rights, mut lefts): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        lefts.rotate_right(1);
        let links = lefts.drain(..).zip(rights.drain(..));
        links
            .enumerate()
            .map(|(rank, (left, right))| Ring::new(rank, ranks, left.into(), right.into()).unwrap())
            .collect()
    }

    fn on_all<T: Send>(rings: Vec<Ring>, run: impl Fn(usize, Ring) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = rings
                .into_iter()
                .enumerate()
                .map(|(rank, ring)| scope.spawn(move || run(rank, ring)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn all_ranks_get_the_same_bits_of_the_sum(
            ranks in 1usize..7,
            values in prop::collection::vec(-1e3f32..1e3, 0..50),
        ) {
            let of = |rank: usize| -> Vec<f32> {
                values.iter().map(|value| value * (rank as f32 + 0.1)).collect()
            };
            let reduce = || on_all(rings(ranks), |rank, mut ring| {
                let mut mine = of(rank);
                ring.all_reduce(&mut mine).unwrap();
                mine.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
            });
            let first = reduce();
            prop_assert!(first.iter().all(|bits| *bits == first[0]));
            prop_assert_eq!(&reduce(), &first);
            for (i, bits) in first[0].iter().enumerate() {
                let exact: f64 = (0..ranks).map(|rank| f64::from(of(rank)[i])).sum();
                let error = (f64::from(f32::from_bits(*bits)) - exact).abs();
                prop_assert!(error <= 1e-2, "{} instead of {}", f32::from_bits(*bits), exact);
            }
        }

        #[test]
        fn all_ranks_hear_everybody(ranks in 1usize..7) {
            let heard = on_all(rings(ranks), |rank, mut ring| ring.all_gather([rank as u8; 3]).unwrap());
            let expected: Vec<_> = (0..ranks).map(|rank| [rank as u8; 3]).collect();
            prop_assert!(heard.iter().all(|all| *all == expected));
        }
    }

    #[test]
    fn more_than_the_sockets_hold_goes_round() {
        let sums = on_all(rings(3), |_, mut ring| {
            let mut values = vec![1.0; 3_000_000];
            ring.all_reduce(&mut values).unwrap();
            values.iter().all(|value| *value == 3.0)
        });
        assert_eq!(sums, [true; 3]);
    }

    #[test]
    fn one_that_is_gone_ends_the_others() {
        let ends = on_all(rings(5), |rank, mut ring| {
            if rank == 2 {
                return None;
            }
            Some(ring.all_reduce(&mut [1.0; 10]).unwrap_err().rank)
        });
        // The next one names it, the others a neighbour that ended for it.
        assert_eq!(ends[3], Some(2));
        assert!([0, 1, 4].iter().all(|&rank| ends[rank].is_some()));
    }

    #[test]
    fn one_that_is_late_makes_the_others_wait() {
        let delay = std::time::Duration::from_millis(200);
        let waited = on_all(rings(4), |rank, mut ring| {
            if rank == 1 {
                thread::sleep(delay);
            }
            let begun = std::time::Instant::now();
            ring.all_reduce(&mut [1.0; 10]).unwrap();
            begun.elapsed()
        });
        for rank in [0, 2, 3] {
            assert!(waited[rank] > delay / 2, "{waited:?}");
        }
    }
}
