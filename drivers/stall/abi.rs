// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! The user-space ABI of the stall watchdog in Rust.
//!
//! Mirrors `drivers/include/uapi/nullhz/stall.h`, which documents every field. The kernel module,
//! the host tests and user space include this file by `#[path]`, so it needs nothing but `core`,
//! holds no `unsafe` and cannot panic.

// Each consumer uses its own part, and may keep it to itself.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A crate that speaks two ABIs has the records' foundation in each.
#![allow(clippy::duplicate_mod)]

#[path = "../include/nullhz/record.rs"]
mod record;
pub(crate) use record::{record, Field, Unread, Unwritten};

/// `NULLHZ_STALL_ABI_VERSION`.
pub const ABI_VERSION: u32 = 1;
/// `NULLHZ_STALL_PAGE_SIZE`, bytes.
pub const PAGE_SIZE: usize = 4096;
/// `NULLHZ_STALL_NAME_SIZE`, bytes, the terminating NUL included.
pub const NAME_SIZE: usize = 32;
/// `NULLHZ_STALL_FEEDER`: no [`Stall::rank`], but the program that pings the standard watchdog.
pub const FEEDER: u32 = u32::MAX;
/// `NULLHZ_STALL_PHASES`: how many phases there are.
pub const PHASES: usize = 5;

/// Declares an enumeration of the ABI, which travels as a `u32`.
macro_rules! values {
    (
        $(#[$attr:meta])*
        pub enum $name:ident {
            $($(#[$variant_attr:meta])* $variant:ident = $value:literal $text:literal,)*
        }
    ) => {
        $(#[$attr])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_attr])* $variant = $value,)*
        }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// All of them, by value: 0, 1, ...
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The one that `raw` stands for; [`None`] for a value that the ABI does not know.
            pub const fn from_raw(raw: u32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name in sysfs, logs and JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

values! {
    /// `NULLHZ_STALL_PHASE_*`: what a rank is doing (`nullhz_stall_page.phase`).
    pub enum Phase {
        /// Loading, compiling; never learned.
        Init = 0 "init",
        /// A training step.
        Step = 1 "step",
        /// Waits for other ranks: never leads to a reset.
        CommWait = 2 "comm-wait",
        /// Writes a checkpoint.
        Checkpoint = 3 "checkpoint",
        /// Evaluates.
        Eval = 4 "eval",
    }
}

const _: () = assert!(Phase::COUNT == PHASES);

impl Phase {
    /// The phase that a page means by `raw`: one out of range is taken as [`Phase::Step`].
    pub const fn from_page(raw: u32) -> Self {
        match Self::from_raw(raw) {
            Some(phase) => phase,
            None => Phase::Step,
        }
    }
}

values! {
    /// `NULLHZ_STALL_*`: rungs of the ladder (`nullhz_stall_page.state`); ordered, higher is worse.
    pub enum State {
        /// It makes progress.
        Ok = 0 "ok",
        /// Most of its deadline has passed.
        Suspect = 1 "suspect",
        /// The deadline has passed: incident, snapshot.
        Stalled = 2 "stalled",
        /// Still stalled: signals by policy.
        NoAck = 3 "no-ack",
        /// Reason kept for the next boot, permit shut.
        Prebite = 4 "prebite",
    }
}

values! {
    /// `NULLHZ_STALL_C_*`: what the rank's process was seen doing (`nullhz_fault_stall.culprit`).
    pub enum Culprit {
        /// Not known.
        Unknown = 0 "unknown",
        /// On a CPU, or runnable.
        Spinning = 1 "spinning",
        /// Interruptible: waits for something.
        Sleeping = 2 "sleeping",
        /// D state: in the kernel, uninterruptible.
        Disk = 3 "disk",
        /// SIGSTOP or traced.
        Stopped = 4 "stopped",
        /// Cgroup or system freezer.
        Frozen = 5 "frozen",
        /// Dead or a zombie.
        Exited = 6 "exited",
    }
}

values! {
    /// `NULLHZ_STALL_H_*`: why a node is not reset (`nullhz_fault_stall.held`).
    pub enum Held {
        /// It is not held.
        Not = 0 "not",
        /// No hardware watchdog, or reset=0.
        Disarmed = 1 "disarmed",
        /// Too many resets within the window.
        Budget = 2 "budget",
        /// Only a peer is to blame.
        NoEvidence = 3 "no-evidence",
    }
}

/// `NULLHZ_STALL_F_*`: bits of `nullhz_stall_register.flags`.
pub mod flag {
    /// Every wait for other ranks is in [`Phase::CommWait`](super::Phase::CommWait).
    pub const TELLS_WAITS: u32 = 0x01;
}

/// `NULLHZ_STALL_E_*`: bits of `nullhz_fault_stall.evidence`: why this node, not a peer.
pub mod evidence {
    /// The rank works by itself: it promised to tell its waits, and is in none.
    pub const PHASE: u32 = 0x01;
    /// A thread of it is stuck in D state.
    pub const DISK: u32 = 0x02;
    /// A housekeeping CPU does not run its threads.
    pub const HOUSEKEEPING: u32 = 0x04;
    /// Nobody acknowledged the incident in time, as somebody did an earlier one.
    pub const AGENT: u32 = 0x08;
}

/// `NULLHZ_STALL_EV_*`: kinds of the stall watchdog's events; the payload is a [`Stall`].
///
/// [`Stall`]: super::Stall
pub mod event {
    /// `WATCH`: stacks are in the kernel log.
    pub const SUSPECT: u16 = 1;
    /// `IMMINENT`.
    pub const STALLED: u16 = 2;
    /// `DEGRADING`.
    pub const NO_ACK: u16 = 3;
    /// `FATAL`: kept for the next boot; the node resets.
    pub const PREBITE: u16 = 4;
    /// `WATCH`: progress again, `state` is where it was.
    pub const RECOVERED: u16 = 5;
    /// `WATCH`.
    pub const REGISTERED: u16 = 6;
    /// `WATCH`: clean end.
    pub const LEFT: u16 = 7;
    /// `DEGRADING`: closed or exited without [`LEAVE`](super::ioc::LEAVE).
    pub const CRASHED: u16 = 8;
    /// `DEGRADING`: would reset; `held` says why it does not.
    pub const HELD: u16 = 9;
    /// `FATAL`, of the boot before: a watchdog reset, no last words.
    pub const RESET: u16 = 10;
    /// `WATCH`: phase out of range; once per registration.
    pub const BAD_PAGE: u16 = 11;
    /// `DEGRADING`: the sampler itself was held up, for `age_ns`.
    pub const LATE_SAMPLER: u16 = 12;
}

record! {
    /// `struct nullhz_stall_page`: the head of the shared page; the rest of it is zeros.
    Page: 128 {
        /// The trainer's: the heartbeat, any change of it is progress.
        step: u64,
        /// The trainer's: progress within a step, optional; any change counts.
        progress: u64,
        /// The trainer's: [`Phase`].
        phase: u32,
        /// The trainer's: the last `checkpoint_request` that was answered.
        checkpoint_ack: u32,
        /// The trainer's.
        trainer_reserved: [u64; 5],
        /// The kernel's: not `checkpoint_ack`: a checkpoint is wanted now.
        checkpoint_request: u32,
        /// The kernel's: [`State`].
        state: u32,
        /// The kernel's: of the fault bus, 0: none.
        incident: u64,
        /// The kernel's: of the phase: without progress for so long, a stall.
        deadline_ns: u64,
        /// The kernel's: `CLOCK_MONOTONIC` of the sampler's last look.
        sampled_ns: u64,
        /// The kernel's.
        kernel_reserved: [u64; 4],
    }
}

record! {
    /// `struct nullhz_stall_info`.
    Info: 32 {
        /// [`ABI_VERSION`].
        abi_version: u32,
        /// [`PAGE_SIZE`].
        page_size: u32,
        /// Registrations at a time on this node.
        max_ranks: u32,
        /// Registered now.
        ranks: u32,
        /// Of the sampler, ms.
        period_ms: u32,
        /// Bound of [`ioc::GRACE`], ms.
        max_grace_ms: u32,
        /// 1: a hardware watchdog will reset the node.
        armed: u32,
        /// Watchdog resets within the budget's window.
        resets: u32,
    }
}

record! {
    /// `struct nullhz_stall_register`.
    Register: 72 {
        /// Global rank; no other of the job has it on the node.
        rank: u32,
        /// [`mod@flag`].
        flags: u32,
        /// Job, NUL-terminated, printable ASCII, not empty.
        name: [u8; NAME_SIZE],
        /// By [`Phase`], ms; 0: learned.
        deadline_ms: [u32; PHASES],
        /// No learned deadline is shorter, ms; 0: the module's.
        floor_ms: u32,
        /// Steps that are not learned from; 0: the module's.
        warmup: u32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_stall_grace`: no deadline for so long.
    Grace: 8 {
        /// At most [`Info::max_grace_ms`]; 0 ends it.
        ms: u32,
        /// 0.
        pad: u32,
    }
}

record! {
    /// `struct nullhz_stall_checkpoint`.
    Checkpoint: 16 {
        /// [`ioc::CHECKPOINT`]: out; [`ioc::ANSWERS`]: in. Never 0.
        request: u32,
        /// Out: ranks that were registered at the request.
        asked: u32,
        /// Out: of those, how many have answered.
        answered: u32,
        /// Out: of those, how many have left or crashed since.
        gone: u32,
    }
}

record! {
    /// `struct nullhz_stall_rank`.
    Rank: 112 {
        /// In: 0, 1, ... until `ENOENT`.
        index: u32,
        /// As registered.
        rank: u32,
        /// As registered.
        name: [u8; NAME_SIZE],
        /// Of the process, in the caller's namespace; 0: not visible, or gone.
        pid: i32,
        /// Of the thread that registered.
        tid: i32,
        /// [`State`].
        state: u32,
        /// [`Phase`].
        phase: u32,
        /// Of the page.
        step: u64,
        /// Of the page.
        progress: u64,
        /// Since the last progress, ns.
        age_ns: u64,
        /// Of its phase, ns.
        deadline_ns: u64,
        /// Left, ns; 0: none.
        grace_ns: u64,
        /// Changes of `step` that were seen.
        steps_seen: u64,
        /// Times that it reached [`State::Stalled`].
        stalls: u32,
        /// As in its page: the last request that it answered.
        checkpoint_ack: u32,
    }
}

record! {
    /// `struct nullhz_fault_stall`: payload of the stall watchdog's events.
    Stall: 136 {
        /// Of the rank.
        step: u64,
        /// Of the rank.
        progress: u64,
        /// Since the last progress, ns.
        age_ns: u64,
        /// Of its phase, ns.
        deadline_ns: u64,
        /// That the stall opened or joined, 0: none.
        incident: u64,
        /// As registered.
        rank: u32,
        /// [`Phase`].
        phase: u32,
        /// [`State`].
        state: u32,
        /// [`Culprit`].
        culprit: u32,
        /// [`mod@evidence`].
        evidence: u32,
        /// [`Held`].
        held: u32,
        /// In the initial namespace.
        pid: i32,
        /// Of the thread that `culprit` and `comm` tell of.
        tid: i32,
        /// Registered.
        ranks: u32,
        /// Of those, [`State::Stalled`] or worse.
        stalled: u32,
        /// Watchdog resets within the budget's window.
        resets: u32,
        /// Of the hardware watchdog, ms, 0: none.
        timeout_ms: u32,
        /// As registered.
        name: [u8; NAME_SIZE],
        /// Of the thread.
        comm: [u8; 16],
    }
}

/// The text in a NUL-padded field: up to the first NUL, else all of it.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// `NULLHZ_STALL_IOC_*` as `_IOC()` of `<asm-generic/ioctl.h>` encodes them.
pub mod ioc {
    use super::{Checkpoint, Grace, Info, Rank, Register};

    /// `NULLHZ_STALL_IOC_MAGIC`.
    pub const MAGIC: u32 = 0xF2;

    const WRITE: u32 = 1;
    const READ: u32 = 2;

    const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
        (dir << 30) | ((size as u32) << 16) | (MAGIC << 8) | nr
    }

    /// Reads an [`Info`].
    pub const INFO: u32 = ioc(READ, 0, Info::SIZE);
    /// Writes a [`Register`].
    pub const REGISTER: u32 = ioc(WRITE, 1, Register::SIZE);
    /// Writes a [`Grace`].
    pub const GRACE: u32 = ioc(WRITE, 2, Grace::SIZE);
    /// A clean end: what is closed without it has crashed.
    pub const LEAVE: u32 = ioc(0, 3, 0);
    /// Reads a [`Checkpoint`].
    pub const CHECKPOINT: u32 = ioc(READ, 4, Checkpoint::SIZE);
    /// Writes the request of, and reads, a [`Checkpoint`].
    pub const ANSWERS: u32 = ioc(READ | WRITE, 5, Checkpoint::SIZE);
    /// Writes the index of, and reads, a [`Rank`].
    pub const RANK: u32 = ioc(READ | WRITE, 6, Rank::SIZE);
}
