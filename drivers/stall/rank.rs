// SPDX-License-Identifier: GPL-2.0

//! One rank on the ladder: signs of life, what is learned from them, and the rungs that it climbs
//! without any. Pure logic, about 3 KiB per rank, a few loads and compares per look while nothing
//! changes.
//!
//! ```text
//!        75 % of proven     deadline         no_ack_ms        bite_ms, if the node may
//!   OK -----------> SUSPECT ---------> STALLED ---------> NO_ACK ---------> PREBITE
//!    ^                 |                  |                  |                 |
//!    +-----------------+---- any change of the page, or grace -----------------+
//! ```
//! One rung per look at most, none is left out, and every sign of life leads back to OK. The node
//! may take back a PREBITE ([`Rank::judge`]), never anything else.
//!
//! What is in the page is not trusted: any change of its step, progress or phase is a sign of
//! life, no value has a meaning beyond that, and a phase out of range is STEP.

use super::abi::{Culprit, Held, Phase, State, PHASES};
use super::clock::Look;
use super::deadline::{ns, Deadline, Knowledge, Rules, Wishes};
use super::ladder::{self, Node, Verdict};

/// What a look at a rank shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Of the page.
    pub step: u64,
    /// Of the page.
    pub progress: u64,
    /// Of the page, as it is there.
    pub phase: u32,
    /// What the thread that registered does, where [`Rank::wants_thread`]; else
    /// [`Culprit::Unknown`].
    pub thread: Culprit,
}

/// What has become of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A sign of life, after so long, from a rung above OK.
    Recovered {
        /// Where it was.
        from: State,
        /// In which phase.
        phase: Phase,
        /// How long it was without a sign of life, ns.
        age_ns: u64,
    },
    /// Now SUSPECT.
    Suspect,
    /// Now STALLED.
    Stalled,
    /// Now NO_ACK.
    NoAck,
    /// The time for PREBITE has come, or is still there: ask [`Rank::judge`]. At every look.
    Due,
}

/// Whether a phase out of range was in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadPage {
    None,
    Seen,
    Told,
}

/// A rank.
#[derive(Clone)]
pub struct Rank {
    step: u64,
    progress: u64,
    /// The sampler's time of the last sign of life.
    since: u64,
    suspect_ns: u64,
    deadline: Deadline,
    /// The sampler's time up to which there is no deadline.
    grace_until: u64,
    phase: Phase,
    state: State,
    /// Of the rules that the deadline comes from.
    generation: u32,
    /// [`Look::gaps`] at the last sign of life.
    gaps: u32,
    /// The interval is not to be learned from.
    spoilt: bool,
    bad_page: BadPage,
    held: Held,
    /// It has promised to be in `COMM_WAIT` whenever it waits for other ranks.
    tells_waits: bool,
    stalls: u32,
    /// The sampler's time when it became STALLED.
    stalled_at: u64,
    /// Since when its thread is seen to be unable to go on, if it is.
    proof_since: Option<u64>,
    steps_seen: u64,
    warmup_left: u32,
    wishes: Wishes,
    knowledge: Knowledge,
}

impl Rank {
    /// A rank that has not registered. To be put where it stays, and then begun: it is larger than
    /// what a kernel's stack should hold.
    pub const BLANK: Self = Rank {
        step: 0,
        progress: 0,
        since: 0,
        suspect_ns: 0,
        deadline: Deadline {
            proven_ns: 0,
            stall_ns: 0,
        },
        grace_until: 0,
        phase: Phase::Init,
        state: State::Ok,
        generation: 0,
        gaps: 0,
        spoilt: true,
        bad_page: BadPage::None,
        held: Held::Not,
        tells_waits: false,
        stalls: 0,
        stalled_at: 0,
        proof_since: None,
        steps_seen: 0,
        warmup_left: 0,
        wishes: Wishes {
            deadline_ms: [0; PHASES],
            floor_ms: 0,
            warmup: 0,
        },
        knowledge: Knowledge::EMPTY,
    };

    /// Registers at `now`, in the sampler's time; once, and before anything else. `tells_waits`:
    /// the rank promises that every wait for other ranks is in `COMM_WAIT`.
    pub fn begin(&mut self, now: u64, wishes: &Wishes, tells_waits: bool, rules: &Rules) {
        self.since = now;
        self.tells_waits = tells_waits;
        self.warmup_left = match wishes.warmup {
            0 => rules.warmup,
            steps => steps,
        };
        self.wishes = *wishes;
        self.set_deadline(rules);
    }

    fn set_deadline(&mut self, rules: &Rules) {
        self.deadline = self.knowledge.deadline(self.phase, &self.wishes, rules);
        self.suspect_ns = (self.deadline.proven_ns / 100)
            .saturating_mul(rules.suspect_percent.into())
            .min(self.deadline.proven_ns);
        self.generation = rules.generation;
    }

    /// The sampler looks at the rank.
    #[inline]
    pub fn sample(&mut self, look: &Look, sight: &Sight, rules: &Rules) -> Option<Change> {
        let phase = Phase::from_page(sight.phase);
        if sight.step != self.step || sight.progress != self.progress || phase != self.phase {
            return self.moved(look, sight, phase, rules);
        }
        if rules.generation != self.generation {
            self.set_deadline(rules);
        }
        if look.now < self.grace_until {
            return self.recover(look.now, phase);
        }
        self.climb(look.now, sight.thread, rules)
    }

    /// A sign of life.
    fn moved(&mut self, look: &Look, sight: &Sight, phase: Phase, rules: &Rules) -> Option<Change> {
        let was = self.phase;
        if sight.step != self.step {
            self.steps_seen = self.steps_seen.saturating_add(1);
            self.warmup_left = self.warmup_left.saturating_sub(1);
        }
        self.learn(look, was, rules);
        let change = self.recover(look.now, was);
        if Phase::from_raw(sight.phase).is_none() && self.bad_page == BadPage::None {
            self.bad_page = BadPage::Seen;
        }
        self.step = sight.step;
        self.progress = sight.progress;
        self.phase = phase;
        self.since = look.now.saturating_sub(look.half_ns);
        self.gaps = look.gaps;
        self.spoilt = self.warmup_left != 0;
        self.set_deadline(rules);
        change
    }

    /// Learns from the interval that ends now, unless it is no good for that.
    fn learn(&mut self, look: &Look, phase: Phase, rules: &Rules) {
        if self.spoilt || look.gaps != self.gaps || self.since < self.grace_until {
            return;
        }
        let end = look.now.saturating_sub(look.half_ns);
        let interval = end.saturating_sub(self.since);
        if self.state < State::Stalled {
            self.knowledge.learn(phase, look.now, interval);
        } else if self.proof_since.is_none() {
            self.knowledge
                .learn_stall(phase, look.now, interval, &self.deadline, rules);
        }
    }

    /// Back to OK.
    fn recover(&mut self, now: u64, phase: Phase) -> Option<Change> {
        let from = self.state;
        let age_ns = self.age_ns(now);
        self.state = State::Ok;
        self.held = Held::Not;
        self.proof_since = None;
        (from != State::Ok).then_some(Change::Recovered {
            from,
            phase,
            age_ns,
        })
    }

    /// No sign of life.
    #[inline]
    fn climb(&mut self, now: u64, thread: Culprit, rules: &Rules) -> Option<Change> {
        let age = now.saturating_sub(self.since.max(self.grace_until));
        let stalled_for = now.saturating_sub(self.stalled_at);
        let (state, change) = match self.state {
            State::Ok if age >= self.suspect_ns => (State::Suspect, Change::Suspect),
            State::Suspect => {
                let proven = self.proven(now, age, thread);
                if !proven && age < self.deadline.stall_ns {
                    return None;
                }
                self.stalled_at = now;
                self.stalls = self.stalls.saturating_add(1);
                (State::Stalled, Change::Stalled)
            }
            State::Stalled if stalled_for >= ns(rules.no_ack_ms) => (State::NoAck, Change::NoAck),
            State::NoAck | State::Prebite if stalled_for >= ns(rules.bite_ms) => {
                (self.state, Change::Due)
            }
            _ => return None,
        };
        self.state = state;
        Some(change)
    }

    /// Whether the thread was seen to be unable to go on, at every look for at least half of the
    /// time that a suspect has until its proven time: a profiler's short stop proves nothing.
    fn proven(&mut self, now: u64, age: u64, thread: Culprit) -> bool {
        let since = match thread {
            Culprit::Stopped | Culprit::Frozen | Culprit::Exited => {
                *self.proof_since.get_or_insert(now)
            }
            _ => {
                self.proof_since = None;
                return false;
            }
        };
        let rest = self.deadline.proven_ns.saturating_sub(self.suspect_ns);
        age >= self.deadline.proven_ns && now.saturating_sub(since) >= rest / 2
    }

    /// At [`Change::Due`]: whether the node is to be reset for this rank's sake, of which
    /// `found` is known. Tells news only: the same reason to hold back is told once per stall.
    pub fn judge(&mut self, found: u32, node: &Node) -> Option<Verdict> {
        if self.state < State::NoAck {
            return None;
        }
        match node.held(self.phase, self.evidence(found)) {
            Held::Not => {
                self.held = Held::Not;
                let news = self.state != State::Prebite;
                self.state = State::Prebite;
                news.then_some(Verdict::Bite)
            }
            held => {
                self.state = State::NoAck;
                let news = held != self.held;
                self.held = held;
                news.then_some(Verdict::Held(held))
            }
        }
    }

    /// Whether its process is to be sent the policy's signal, now that it is NO_ACK: `found` is
    /// known, and its process was seen doing what `culprit` says.
    pub fn wants_signal(&self, found: u32, culprit: Culprit, node: &Node) -> bool {
        self.state >= State::NoAck && node.signals(self.phase, self.evidence(found), culprit)
    }

    /// Its process exits: what it promised of its phases means nothing any more.
    pub fn release_promise(&mut self) {
        self.tells_waits = false;
    }

    /// From `now` on, in the sampler's time, no deadline for `ms`; 0 ends a grace that is running.
    pub fn grace(&mut self, now: u64, ms: u32) {
        if ms != 0 || now < self.grace_until {
            self.grace_until = now.saturating_add(ns(ms));
        }
    }

    /// Whether the next [`Sight::thread`] is looked at.
    #[inline]
    pub fn wants_thread(&self) -> bool {
        self.state == State::Suspect
    }

    /// All evidence against the node that there is with what was `found`.
    pub fn evidence(&self, found: u32) -> u32 {
        ladder::evidence(self.phase, self.tells_waits, found)
    }

    /// Whether a phase out of range has been seen; true once.
    #[inline]
    pub fn take_bad_page(&mut self) -> bool {
        let news = self.bad_page == BadPage::Seen;
        if news {
            self.bad_page = BadPage::Told;
        }
        news
    }

    /// Its rung.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// As in the page at the last look.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// As in the page at the last look.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// As in the page at the last look.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Time without a sign of life, at `now` in the sampler's time, ns.
    pub fn age_ns(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    /// Its phase's deadline, ns: without a sign of life for so long it is stalled.
    #[inline]
    pub fn deadline_ns(&self) -> u64 {
        self.deadline.stall_ns
    }

    /// What is left of its grace at `now` in the sampler's time, ns.
    pub fn grace_ns(&self, now: u64) -> u64 {
        self.grace_until.saturating_sub(now)
    }

    /// How many changes of its step were seen.
    pub fn steps_seen(&self) -> u64 {
        self.steps_seen
    }

    /// How often it became STALLED.
    pub fn stalls(&self) -> u32 {
        self.stalls
    }
}
