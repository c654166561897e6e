// SPDX-License-Identifier: GPL-2.0
//! Events of the stall watchdog in words and as JSON.

use nullhz_stall::abi::{event, evidence, text, Culprit, Held, Phase, Stall, State};
use serde::Serialize;

use crate::view::duration;

/// An event's payload.
#[derive(Debug, Serialize)]
pub struct StallView {
    rank: u32,
    /// The job.
    name: String,
    pid: i32,
    state: String,
    phase: String,
    step: u64,
    progress: u64,
    age_ns: u64,
    deadline_ns: u64,
    incident: u64,
    culprit: String,
    tid: i32,
    /// Of the thread `tid`.
    comm: String,
    evidence: Vec<&'static str>,
    held: String,
    ranks: u32,
    stalled: u32,
    resets: u32,
    timeout_ms: u32,
}

impl StallView {
    /// The view of a payload.
    pub fn new(stall: &Stall) -> Self {
        Self {
            rank: stall.rank,
            name: word(&stall.name),
            pid: stall.pid,
            state: state_name(stall.state),
            phase: phase_name(stall.phase),
            step: stall.step,
            progress: stall.progress,
            age_ns: stall.age_ns,
            deadline_ns: stall.deadline_ns,
            incident: stall.incident,
            culprit: name(
                stall.culprit,
                Culprit::from_raw(stall.culprit).map(Culprit::name),
            ),
            tid: stall.tid,
            comm: word(&stall.comm),
            evidence: evidence_names(stall.evidence),
            held: name(stall.held, Held::from_raw(stall.held).map(Held::name)),
            ranks: stall.ranks,
            stalled: stall.stalled,
            resets: stall.resets,
            timeout_ms: stall.timeout_ms,
        }
    }
}

/// An event's kind.
pub fn kind_name(kind: u16) -> &'static str {
    match kind {
        event::SUSPECT => "suspect",
        event::STALLED => "stalled",
        event::NO_ACK => "no_ack",
        event::PREBITE => "prebite",
        event::RECOVERED => "recovered",
        event::REGISTERED => "registered",
        event::LEFT => "left",
        event::CRASHED => "crashed",
        event::HELD => "held",
        event::RESET => "reset",
        event::BAD_PAGE => "bad_page",
        event::LATE_SAMPLER => "late_sampler",
        _ => "",
    }
}

/// A rank's state.
pub fn state_name(state: u32) -> String {
    name(state, State::from_raw(state).map(State::name))
}

/// A rank's phase. The module passes on only those that there are.
pub fn phase_name(phase: u32) -> String {
    name(phase, Phase::from_raw(phase).map(Phase::name))
}

fn name(value: u32, known: Option<&'static str>) -> String {
    known.map_or_else(|| value.to_string(), Into::into)
}

/// Text from a record: what does not print must not reach a terminal.
fn word(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(text(field));
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn evidence_names(bits: u32) -> Vec<&'static str> {
    [
        (evidence::PHASE, "phase"),
        (evidence::DISK, "disk"),
        (evidence::HOUSEKEEPING, "housekeeping"),
        (evidence::AGENT, "agent"),
    ]
    .into_iter()
    .filter_map(|(bit, name)| (bits & bit != 0).then_some(name))
    .collect()
}

/// What happened, in words.
pub fn text_of(kind: u16, stall: &Stall) -> String {
    let Stall {
        rank,
        pid,
        step,
        ranks,
        stalled,
        resets,
        ..
    } = stall;
    let who = format!("rank {rank} of {}", word(&stall.name));
    let age = duration(stall.age_ns);
    let timeout = duration(u64::from(stall.timeout_ms) * 1_000_000);
    let phase = phase_name(stall.phase);
    let since = format!(
        "no progress for {age} in phase {phase}, step {step} (deadline {})",
        duration(stall.deadline_ns)
    );
    match kind {
        event::SUSPECT => format!("{who}, pid {pid}: {since}; {}", culprit_text(stall)),
        event::STALLED => format!(
            "{who}, pid {pid}, has stalled: {since}; {}; {stalled} of {ranks} ranks stalled",
            culprit_text(stall)
        ),
        event::NO_ACK => format!(
            "{who}, pid {pid}, is still stalled: {since}; {}",
            culprit_text(stall)
        ),
        event::PREBITE => format!(
            "the hardware watchdog resets the node within {timeout}, because of {who}, pid {pid}: \
             {since}; {}; {}",
            culprit_text(stall),
            evidence_text(stall.evidence)
        ),
        event::RECOVERED => format!(
            "{who}, pid {pid}, goes on at step {step}, phase {phase}, after {age}; it was {}",
            state_name(stall.state)
        ),
        event::REGISTERED => format!("{who}, pid {pid}, is watched now; {ranks} ranks"),
        event::LEFT => format!("{who}, pid {pid}, left at step {step}; {ranks} ranks"),
        event::CRASHED => {
            format!("{who}, pid {pid}, ended at step {step} without leaving; {ranks} ranks")
        }
        event::HELD => format!(
            "the node is not reset because of {who}, pid {pid}: {}; {since}",
            match Held::from_raw(stall.held) {
                Some(Held::Disarmed) => "the watchdog is not armed".into(),
                Some(Held::Budget) => format!("{resets} resets lately are enough"),
                Some(Held::NoEvidence) => "only a peer is to blame".into(),
                Some(Held::Not) | None => format!("reason {}", stall.held),
            }
        ),
        event::RESET => format!(
            "a watchdog reset the node (or somebody did), without last words; {resets} resets lately"
        ),
        event::BAD_PAGE => format!("{who}, pid {pid}: there is no such phase; taken as step"),
        event::LATE_SAMPLER => format!("nobody looked at the ranks for {age}"),
        _ => format!("kind {kind}, {who}, pid {pid}"),
    }
}

fn culprit_text(stall: &Stall) -> String {
    let does = match Culprit::from_raw(stall.culprit) {
        Some(Culprit::Spinning) => "is running",
        Some(Culprit::Sleeping) => "sleeps",
        Some(Culprit::Disk) => "is stuck in the kernel (D state)",
        Some(Culprit::Stopped) => "is stopped",
        Some(Culprit::Frozen) => "is frozen",
        Some(Culprit::Exited) => "has exited",
        Some(Culprit::Unknown) | None => return "what it does is not known".into(),
    };
    format!("thread {} ({}) {does}", stall.tid, word(&stall.comm))
}

fn evidence_text(bits: u32) -> String {
    match evidence_names(bits).join(", ") {
        none if none.is_empty() => "no evidence".into(),
        names => format!("evidence: {names}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stall() -> Stall {
        let mut stall = Stall {
            step: 120,
            age_ns: 1_512_000_000,
            deadline_ns: 1_500_000_000,
            incident: 7,
            rank: 3,
            phase: Phase::Step as u32,
            state: State::Stalled as u32,
            culprit: Culprit::Disk as u32,
            evidence: evidence::PHASE | evidence::DISK,
            pid: 412,
            tid: 415,
            ranks: 4,
            stalled: 1,
            timeout_ms: 8_000,
            ..Stall::ZERO
        };
        stall.name[..7].copy_from_slice(b"trainer");
        stall.comm[..6].copy_from_slice(b"worker");
        stall
    }

    #[test]
    fn a_stall_reads_well() {
        let text = "rank 3 of trainer, pid 412, has stalled: no progress for 1.5 s in phase step, \
                    step 120 (deadline 1.5 s); thread 415 (worker) is stuck in the kernel \
                    (D state); 1 of 4 ranks stalled";
        assert_eq!(text_of(event::STALLED, &stall()), text);
        let text = text_of(event::PREBITE, &stall());
        assert!(
            text.starts_with("the hardware watchdog resets the node within 8.0 s"),
            "{text}"
        );
        assert!(text.ends_with("evidence: phase, disk"), "{text}");
        let held = Stall {
            held: Held::Budget as u32,
            resets: 3,
            ..stall()
        };
        let text = text_of(event::HELD, &held);
        assert!(text.contains("3 resets lately are enough"), "{text}");
    }

    #[test]
    fn every_kind_has_a_name_and_words() {
        for kind in event::SUSPECT..=event::LATE_SAMPLER {
            assert!(!kind_name(kind).is_empty(), "{kind}");
            assert!(!text_of(kind, &stall()).starts_with("kind "), "{kind}");
        }
        assert_eq!(kind_name(99), "");
        assert!(text_of(99, &stall()).starts_with("kind 99, rank 3"));
    }

    proptest! {
        #[test]
        fn any_payload_is_shown_on_one_line(bytes: [u8; 136], kind in 0u16..20) {
            let bytes: [u8; Stall::SIZE] = bytes;
            let text = text_of(kind, &Stall::from_bytes(&bytes));
            prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
        }
    }
}
