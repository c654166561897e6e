// SPDX-License-Identifier: GPL-2.0
//! Named points at which a test may have the agent killed. Without the cargo
//! feature `crash-points` there is nothing here but an empty function.

/// Dies here, as by SIGKILL, when `NULLHZ_AGENT_CRASH_AT` names this point.
#[cfg(feature = "crash-points")]
pub fn point(name: &str) {
    use nix::sys::signal::{raise, Signal};

    if std::env::var("NULLHZ_AGENT_CRASH_AT").is_ok_and(|at| at == name) {
        // Only an invalid signal number would make this return.
        let _ = raise(Signal::SIGKILL);
    }
}

/// Does nothing.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &str) {}
