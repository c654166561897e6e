// SPDX-License-Identifier: GPL-2.0
//! The agent's state as a text file for Prometheus.

use std::fmt::Write;

use super::state::{EventCount, State};
use super::stats::Summary;

/// The state in Prometheus' text format.
pub fn text(state: &State) -> String {
    let mut out = Text(String::new());
    out.one(
        "up",
        "gauge",
        "1 while the agent runs; see the update time too.",
        f64::from(u8::from(state.up)),
    );
    out.one(
        "start_time_seconds",
        "gauge",
        "When the agent started.",
        state.started,
    );
    out.one(
        "update_time_seconds",
        "gauge",
        "When this file was written.",
        state.updated,
    );
    out.one(
        "realtime",
        "gauge",
        "1 when the agent's threads are real-time ones.",
        f64::from(u8::from(state.realtime)),
    );

    out.head("event_records_total", "counter", "Fault records read.");
    for event in &state.events {
        out.event("event_records_total", event, event.records);
    }
    out.head(
        "events_total",
        "counter",
        "Fault occurrences that the records stand for.",
    );
    for event in &state.events {
        out.event("events_total", event, event.occurrences);
    }
    out.count(
        "events_lost_total",
        "Records missed because the agent read too slowly.",
        state.events_lost,
    );
    out.count(
        "events_unknown_total",
        "Records of an unknown source or level.",
        state.events_unknown,
    );

    out.count(
        "incidents_opened_total",
        "Incidents found unacknowledged.",
        state.incidents_opened,
    );
    out.count(
        "incidents_acked_total",
        "Incidents acknowledged with a snapshot.",
        state.incidents_acked,
    );
    out.count(
        "incidents_failed_total",
        "Incidents acknowledged as failed, or not at all.",
        state.incidents_failed,
    );
    let last = state.last_incident.as_ref().map_or(0.0, |last| last.time);
    out.one(
        "last_incident_time_seconds",
        "gauge",
        "When the newest incident was dealt with, 0: never.",
        last,
    );

    out.summary(
        "wake",
        "From an event to the agent's being awake.",
        &state.wake,
    );
    out.summary(
        "checkpoint",
        "From a checkpoint request to the last answer waited for.",
        &state.checkpoint,
    );
    out.summary(
        "request_to_snapshot",
        "From a checkpoint request to the snapshot on disk.",
        &state.request_to_snapshot,
    );
    out.summary("preflush", "Pre-flush before a snapshot.", &state.preflush);
    out.summary(
        "snapshot",
        "From the pre-flush to the snapshot on disk.",
        &state.snapshot,
    );
    out.summary(
        "awake_to_durable",
        "From the agent's being awake to the snapshot on disk.",
        &state.awake_to_durable,
    );
    out.one(
        "snapshots_kept",
        "gauge",
        "Valid snapshots on the volume.",
        state.snapshots_kept as f64,
    );
    out.count(
        "snapshots_deleted_total",
        "Snapshots deleted by the rotation.",
        state.snapshots_deleted,
    );
    out.count(
        "degrading_preflushes_total",
        "Pre-flushes because of DEGRADING and SUSPECT events.",
        state.degrading_preflushes,
    );
    out.count(
        "checkpoint_requests_total",
        "Requests to the ranks for a checkpoint.",
        state.checkpoint_requests,
    );

    if let Some(stall) = &state.stall {
        for (name, help, value) in [
            (
                "ranks",
                "Ranks that the stall watchdog watches.",
                stall.ranks,
            ),
            (
                "ranks_stalled",
                "Of those, the stalled ones.",
                stall.stalled,
            ),
            (
                "stall_watchdog_armed",
                "1 when a hardware watchdog will reset the node.",
                stall.armed.into(),
            ),
            (
                "watchdog_resets",
                "Watchdog resets within the budget's window.",
                stall.resets,
            ),
        ] {
            out.one(name, "gauge", help, value.into());
        }
    }

    out.head("hook_runs_total", "counter", "Hooks by how they ended.");
    for (result, value) in [
        ("ok", state.hooks_ok),
        ("failed", state.hooks_failed),
        ("timeout", state.hooks_timed_out),
    ] {
        out.line(&format!("hook_runs_total{{result=\"{result}\"}} {value}"));
    }
    out.count(
        "hooks_dropped_total",
        "Occasions without hooks: too many waited.",
        state.hooks_dropped,
    );

    out.head(
        "previous_boot_fatal_time_seconds",
        "gauge",
        "When the fault that ended the previous boot happened.",
    );
    if let Some(reason) = &state.reset_reason {
        let source = escape(&reason.source);
        out.line(&format!(
            "previous_boot_fatal_time_seconds{{source=\"{source}\"}} {}",
            reason.time
        ));
    }
    out.0
}

/// Every name begins so.
const PREFIX: &str = "nullhz_agent_";

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(PREFIX);
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"
        );
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.line(&format!("{name} {value}"));
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(&format!("{name} {value}"));
    }

    fn event(&mut self, name: &str, event: &EventCount, value: u64) {
        let (source, level) = (escape(&event.source), escape(&event.level));
        self.line(&format!(
            "{name}{{source=\"{source}\",level=\"{level}\"}} {value}"
        ));
    }

    fn summary(&mut self, name: &str, help: &str, summary: &Summary) {
        let seconds = |ms: f64| (ms * 1e3).round() / 1e6;
        self.head(&format!("{name}_seconds"), "summary", help);
        for (quantile, ms) in [
            ("0.5", summary.p50_ms),
            ("0.99", summary.p99_ms),
            ("1", summary.max_ms),
        ] {
            let value = match summary.count {
                0 => f64::NAN,
                _ => seconds(ms),
            };
            self.line(&format!(
                "{name}_seconds{{quantile=\"{quantile}\"}} {value}"
            ));
        }
        self.line(&format!("{name}_seconds_sum {}", seconds(summary.sum_ms)));
        self.line(&format!("{name}_seconds_count {}", summary.count));
        self.one(
            &format!("{name}_last_seconds"),
            "gauge",
            &format!("{help} The newest."),
            seconds(summary.last_ms),
        );
    }
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::state::tests::state;

    #[test]
    fn the_text_file_is_as_documented() {
        assert_eq!(text(&state()), include_str!("state.golden.prom"));
    }

    #[test]
    fn the_format_is_valid() {
        let text = text(&state());
        assert!(text.ends_with('\n'));
        let mut typed = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(typed.insert(name.to_owned()), "{name} twice");
            } else if !line.starts_with("# HELP ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let name = name.split('{').next().unwrap();
                let base = name.trim_end_matches("_sum").trim_end_matches("_count");
                assert!(
                    typed.contains(name) || typed.contains(base),
                    "{name} has no type"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
