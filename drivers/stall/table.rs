// SPDX-License-Identifier: GPL-2.0

//! The registered ranks, and how far they are with a checkpoint.

use crate::abi;
use crate::clock::Clock;
use crate::deadline::Rules;
use crate::ffi;
use crate::member::{Member, Seen};
use crate::rank::Rank;
use crate::tunables::PERIOD_NS;
use kernel::{prelude::*, sync::Arc};

/// A registered rank, with the detector's part of it.
pub(crate) struct Entry {
    pub(crate) member: Arc<Member>,
    pub(crate) rank: KBox<Rank>,
    /// The checkpoint request that it was asked last, 0: none.
    asked: u32,
    /// The incident that its stall belongs to, 0: none.
    pub(crate) incident: u64,
    /// The last look at its threads during this stall.
    pub(crate) seen: KBox<Option<Seen>>,
    /// When that was, in the sampler's time.
    pub(crate) seen_ns: u64,
    /// Its process is dead, and the rank is to be taken out.
    pub(crate) dead: bool,
}

impl Entry {
    pub(crate) fn new(member: Arc<Member>, rank: KBox<Rank>) -> Result<Self> {
        Ok(Self {
            member,
            rank,
            asked: 0,
            incident: 0,
            seen: KBox::new(None, GFP_KERNEL)?,
            seen_ns: 0,
            dead: false,
        })
    }

    fn owes(&self, request: u32) -> bool {
        self.asked == request && self.member.checkpoint_ack() != request
    }
}

/// A checkpoint that was asked for.
struct Round {
    /// Its number, 0: none yet.
    request: u32,
    /// Ranks that have left since, with and without an answer.
    left: u32,
    gone: u32,
}

/// The registered ranks, in the order of their registration.
///
/// Its lock is held by the sampler during a pass, and by others for moments only: nobody allocates
/// or touches user memory while he holds it.
pub(crate) struct Table {
    pub(crate) entries: KVVec<Entry>,
    pub(crate) clock: Clock,
    pub(crate) rules: Rules,
    /// How many ranks are STALLED or worse.
    pub(crate) stalled: u32,
    /// Whether a rank is at PREBITE.
    pub(crate) biting: bool,
    /// Where the feeder of our standard watchdog is on the ladder.
    pub(crate) feeder: abi::State,
    round: Round,
}

impl Table {
    /// Room for `max` ranks.
    pub(crate) fn new(max: u32) -> Result<Self> {
        Ok(Self {
            entries: KVVec::with_capacity(max as usize, GFP_KERNEL)?,
            clock: Clock::new(ffi::monotonic_ns(), PERIOD_NS),
            rules: Rules::DEFAULT,
            stalled: 0,
            biting: false,
            feeder: abi::State::Ok,
            round: Round {
                request: 0,
                left: 0,
                gone: 0,
            },
        })
    }

    /// How many ranks are registered.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Whether there is a place for `member`, if there may be `max` in all. Jobs that share a node
    /// have each a rank 0.
    pub(crate) fn check(&self, member: &Member, max: u32) -> Result {
        let taken = |entry: &Entry| entry.member.is_same_rank(member);
        if self.entries.iter().any(taken) {
            return Err(EEXIST);
        }
        if self.len() >= max {
            return Err(ENOSPC);
        }
        Ok(())
    }

    /// Adds a rank for which there is a place.
    pub(crate) fn add(&mut self, entry: Entry) -> Result {
        let pushed = self.entries.push_within_capacity(entry);
        pushed.map_err(|_| ENOSPC)
    }

    /// The place of a rank.
    pub(crate) fn find(&self, member: &Arc<Member>) -> Option<usize> {
        let same = |entry: &Entry| Arc::ptr_eq(&entry.member, member);
        self.entries.iter().position(same)
    }

    /// Takes out the rank at `index`.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries.remove(index).ok()?;
        if entry.asked == self.round.request && entry.asked != 0 {
            match entry.owes(self.round.request) {
                true => self.round.gone = self.round.gone.saturating_add(1),
                false => self.round.left = self.round.left.saturating_add(1),
            }
        }
        if entry.rank.state() >= abi::State::Stalled {
            self.stalled = self.stalled.saturating_sub(1);
        }
        Some(entry)
    }

    /// Asks all ranks for a checkpoint, and tells the request's number.
    ///
    /// While nobody has answered the last one it stands for this one, too: what is answered from
    /// now on is new enough for both.
    pub(crate) fn request_checkpoint(&mut self) -> u32 {
        let status = self.checkpoint();
        if self.round.request == 0 || status.answered != 0 || status.gone != 0 {
            let request = self.round.request.wrapping_add(1);
            self.round = Round {
                request: request.max(1),
                left: 0,
                gone: 0,
            };
        }
        let request = self.round.request;
        for entry in self.entries.iter_mut() {
            entry.asked = request;
            entry.member.request_checkpoint(request);
        }
        request
    }

    /// How far the ranks are with the newest request.
    pub(crate) fn checkpoint(&self) -> abi::Checkpoint {
        let request = self.round.request;
        let asked = self.entries.iter().filter(|entry| entry.asked == request);
        let (asked, owing) = asked.fold((0u32, 0u32), |(asked, owing), entry| {
            (asked + 1, owing + u32::from(entry.owes(request)))
        });
        let Round { left, gone, .. } = self.round;
        abi::Checkpoint {
            request,
            asked: asked.saturating_add(left).saturating_add(gone),
            answered: asked.saturating_sub(owing).saturating_add(left),
            gone,
        }
    }
}
