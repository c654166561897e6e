// SPDX-License-Identifier: GPL-2.0

//! Whether the node is reset. Pure logic.
//!
//! In synchronous training one stuck rank stops all others, on every node. Only the node that has
//! it may be reset, so a reset needs *local* evidence: the rank is in a phase in which it works by
//! itself. In `COMM_WAIT` it waits for a peer, whatever else is known: never a reason. In `INIT`
//! it may wait for peers too, and nothing has been computed yet: only together with a sign that
//! this machine is at fault (D state, or a housekeeping CPU that does not run).

use super::abi::{evidence, Held, Phase};

/// What the node allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// A hardware watchdog is there, and resets are wanted.
    pub armed: bool,
    /// The budget of resets is used up ([`super::budget::Ledger::exhausted`]).
    pub exhausted: bool,
}

/// News about a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The rank is at PREBITE: keep the reason and shut the gate.
    Bite,
    /// It would be, but for this; a rank that was at PREBITE is at NO_ACK again.
    Held(Held),
}

/// All evidence against the node: `found` and what the phase itself says.
pub fn evidence(phase: Phase, found: u32) -> u32 {
    match phase {
        Phase::CommWait => found & !evidence::PHASE,
        _ => found | evidence::PHASE,
    }
}

impl Node {
    /// What holds back a reset for a rank that is stalled in `phase`.
    pub(super) fn held(&self, phase: Phase, found: u32) -> Held {
        let enough = match phase {
            Phase::CommWait => false,
            Phase::Init => found & (evidence::DISK | evidence::HOUSEKEEPING) != 0,
            Phase::Step | Phase::Checkpoint | Phase::Eval => true,
        };
        match (enough, self.armed, self.exhausted) {
            (false, _, _) => Held::NoEvidence,
            (true, false, _) => Held::Disarmed,
            (true, true, true) => Held::Budget,
            (true, true, false) => Held::Not,
        }
    }
}
