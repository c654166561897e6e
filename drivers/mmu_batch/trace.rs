// SPDX-License-Identifier: GPL-2.0

//! Names of what the tracepoints tell; `glue.h` has the same.

/// What came of an event for a notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something was zapped: the event goes on after a flush that begins from now on.
    Ticket = 0,
    /// There was nothing to zap, and nothing in flight.
    Elided = 1,
    /// There was nothing to zap, but somebody else's zap is still in flight.
    Joined = 2,
    /// The event must not block, and would have to.
    WouldBlock = 3,
}
