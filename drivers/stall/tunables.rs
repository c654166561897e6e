// SPDX-License-Identifier: GPL-2.0

//! What can be set while the module runs, and what it has counted.

use crate::abi::evidence;
use crate::deadline::Rules;
use kernel::{
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
    task::Signal, //
};

/// Period of the sampler, ms.
pub(crate) const PERIOD_MS: u32 = 10;
/// The same, ns.
pub(crate) const PERIOD_NS: u64 = PERIOD_MS as u64 * 1_000_000;

/// All that can speak against this node.
pub(crate) const ALL_EVIDENCE: u32 =
    evidence::PHASE | evidence::DISK | evidence::HOUSEKEEPING | evidence::AGENT;

/// What a rank's process is sent at NO_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    None,
    Continue,
    Abort,
    Kill,
}

impl Policy {
    /// All of them, with their names in sysfs.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Policy::None, "none"),
        (Policy::Continue, "cont"),
        (Policy::Abort, "abort"),
        (Policy::Kill, "kill"),
    ];

    /// The signal.
    pub(crate) fn signal(self) -> Option<Signal> {
        match self {
            Policy::None => None,
            Policy::Continue => Some(Signal::Continue),
            Policy::Abort => Some(Signal::Abort),
            Policy::Kill => Some(Signal::Kill),
        }
    }
}

macro_rules! rules {
    ($($name:ident,)*) => {
        /// What the detector goes by. Each value is one of its own: whoever changes two of them is
        /// seen in between.
        pub(crate) struct LiveRules {
            generation: Atomic<u32>,
            $(pub(crate) $name: Atomic<u32>,)*
        }

        impl LiveRules {
            const fn new() -> Self {
                Self {
                    generation: Atomic::new(0),
                    $($name: Atomic::new(Rules::DEFAULT.$name),)*
                }
            }

            /// Takes over what has changed.
            pub(crate) fn refresh(&self, rules: &mut Rules) {
                // Pairs with `set()`: who sees the generation sees the value.
                let generation = self.generation.load(Acquire);
                if generation != rules.generation {
                    *rules = Rules {
                        generation,
                        $($name: self.$name.load(Relaxed),)*
                    };
                }
            }
        }
    };
}

rules! {
    floor_ms,
    pause_floor_ms,
    wait_floor_ms,
    default_ms,
    slack,
    warmup,
    suspect_percent,
    no_ack_ms,
    bite_ms,
}

impl LiveRules {
    /// Sets one of the values.
    pub(crate) fn set(&self, rule: &Atomic<u32>, value: u32) {
        rule.store(value, Relaxed);
        self.generation.fetch_add(1, Release);
    }
}

/// Everything else that can be set.
pub(crate) struct Tunables {
    pub(crate) rules: LiveRules,
    /// Longest grace, ms.
    pub(crate) max_grace_ms: Atomic<u32>,
    /// How long a whole pass permits pings for, ms.
    pub(crate) permit_ms: Atomic<u32>,
    /// Whether a reset is wanted at all.
    pub(crate) reset: Atomic<u32>,
    /// Whether a hardware watchdog that nobody feeds is started and fed.
    pub(crate) feed: Atomic<u32>,
    /// The timeout that it gets, s; 0: its own.
    pub(crate) feed_timeout_s: Atomic<u32>,
    /// What a reboot may take before the watchdog ends it, s; 0: not watched.
    pub(crate) reboot_s: Atomic<u32>,
    /// The evidence that counts: `NULLHZ_STALL_E_*` bits.
    pub(crate) evidence: Atomic<u32>,
    /// Resets within the window that make the node stop resetting itself.
    pub(crate) budget: Atomic<u32>,
    /// An index into [`Policy::ALL`].
    pub(crate) policy: Atomic<u32>,
    /// Threads of a suspect whose stacks are logged; 0: none.
    pub(crate) stack_threads: Atomic<u32>,
    /// Suspects per minute whose stacks are logged.
    pub(crate) stacks_per_minute: Atomic<u32>,
    /// Whether a stalled rank's thread that runs on a CPU is interrupted for its stack.
    pub(crate) backtrace: Atomic<u32>,
}

impl Tunables {
    /// The defaults.
    pub(crate) const fn new(reset: u32, budget: u32) -> Self {
        Self {
            rules: LiveRules::new(),
            max_grace_ms: Atomic::new(3_600_000),
            permit_ms: Atomic::new(1_000),
            reset: Atomic::new(reset),
            feed: Atomic::new(1),
            feed_timeout_s: Atomic::new(10),
            reboot_s: Atomic::new(60),
            evidence: Atomic::new(ALL_EVIDENCE),
            budget: Atomic::new(budget),
            policy: Atomic::new(0),
            stack_threads: Atomic::new(8),
            stacks_per_minute: Atomic::new(16),
            backtrace: Atomic::new(0),
        }
    }

    /// What a rank's process is sent at NO_ACK.
    pub(crate) fn policy(&self) -> Policy {
        let index = self.policy.load(Relaxed) as usize;
        Policy::ALL
            .get(index)
            .map_or(Policy::None, |(policy, _)| *policy)
    }
}

/// A number of events since the module was loaded.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Counter(Atomic::new(0))
    }

    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Keeps the larger one. Called by one thread at a time.
    pub(crate) fn raise(&self, n: u64) {
        if n > self.get() {
            self.0.store(n, Relaxed);
        }
    }

    /// The number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the module has counted since it was loaded.
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// All 0.
            pub(crate) const fn new() -> Self {
                Self { $($name: Counter::new(),)* }
            }
        }
    };
}

counters! {
    registered,
    left,
    crashed,
    suspect,
    stalled,
    no_ack,
    prebite,
    recovered,
    held,
    bad_page,
    /// Gaps of the sampler.
    late,
    /// Passes that another CPU's thread had to take over.
    takeovers,
    /// Whole passes.
    passes,
    /// Time of all passes, ns.
    pass_ns,
    /// The longest pass, ns.
    pass_max_ns,
    /// Suspects whose stacks were logged.
    stacks,
    /// Suspects whose stacks were not logged, because of the rate.
    stacks_skipped,
    /// Signals that were sent.
    signals,
    /// Events that the bus refused.
    refused,
}
