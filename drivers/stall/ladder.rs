// SPDX-License-Identifier: GPL-2.0

//! Whether the node is reset, or a rank's process signalled. Pure logic.
//!
//! In synchronous training one stuck rank stops all others, on every node. Only the node that has
//! it may be reset, so a reset needs *local* evidence:
//!
//! - In `COMM_WAIT` a rank waits for a peer, whatever else is known: never a reset.
//! - Another phase is evidence by itself if the rank works alone in it, and that it must have
//!   promised: any other rank may be waiting in any phase, also one that was in `COMM_WAIT`
//!   before. Programs mark their barriers and forget what a framework does within a step.
//! - In `INIT` it may wait for peers too, and nothing has been computed yet: only a sign that this
//!   machine is at fault counts: a thread stuck in D state, or a housekeeping CPU that does not
//!   run.
//! - Otherwise any such sign counts, and that nobody on the node has acknowledged the incident in
//!   time, if somebody there used to: where no agent runs, its silence says nothing.
//!
//! An operator chooses which evidence counts at all. Signals follow the same rules: what must not
//! reset the nodes of a job must not kill its ranks either.

use super::abi::{evidence, Culprit, Held, Phase};

/// What the node allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// A hardware watchdog is there, and resets are wanted.
    pub armed: bool,
    /// The budget of resets is used up ([`super::budget::Ledger::exhausted`]).
    pub exhausted: bool,
    /// The evidence that counts: [`mod@evidence`] bits.
    pub counts: u32,
}

/// News about a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rank is at PREBITE: keep the reason and shut the gate.
    Bite,
    /// It would be, but for this; a rank that was at PREBITE is at NO_ACK again.
    Held(Held),
}

/// All evidence against the node: `found`, and what `phase` says of a rank that promised to tell
/// its waits (`tells_waits`), or did not.
pub fn evidence(phase: Phase, tells_waits: bool, found: u32) -> u32 {
    match phase {
        Phase::Step | Phase::Checkpoint | Phase::Eval if tells_waits => found | evidence::PHASE,
        _ => found & !evidence::PHASE,
    }
}

impl Node {
    /// Whether this node, and not a peer, is at fault for a rank that is stalled in `phase`, with
    /// all the evidence there is ([`evidence()`]).
    fn at_fault(&self, phase: Phase, all: u32) -> bool {
        let counts = all & self.counts;
        match phase {
            Phase::CommWait => false,
            Phase::Init => counts & (evidence::DISK | evidence::HOUSEKEEPING) != 0,
            Phase::Step | Phase::Checkpoint | Phase::Eval => counts != 0,
        }
    }

    /// Whether the process of a rank that is stalled in `phase`, and does what `culprit` says, is
    /// sent a signal: not for a peer's sake. That it has been stopped is its own trouble, even if
    /// nothing else is known against the node.
    pub(super) fn signals(&self, phase: Phase, all: u32, culprit: Culprit) -> bool {
        let stopped = phase != Phase::CommWait && culprit == Culprit::Stopped;
        stopped || self.at_fault(phase, all)
    }

    /// What holds back a reset for a rank that is stalled in `phase`, with all the evidence there
    /// is ([`evidence()`]).
    pub(super) fn held(&self, phase: Phase, all: u32) -> Held {
        // Without a budget the node is not armed either, and that is why.
        match (self.at_fault(phase, all), self.exhausted, self.armed) {
            (false, _, _) => Held::NoEvidence,
            (true, true, _) => Held::Budget,
            (true, false, false) => Held::Disarmed,
            (true, false, true) => Held::Not,
        }
    }
}
