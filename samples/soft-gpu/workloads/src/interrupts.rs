// SPDX-License-Identifier: GPL-2.0

//! What the kernel itself counts of a broadcast: the rows CAL and TLB of /proc/interrupts.
//!
//! CAL counts function-call interrupts per CPU. The CPU that broadcasts runs the handler
//! without one, so a broadcast to n CPUs that are online adds n - 1. The kernel's own TLB
//! shootdowns come the same way; row TLB tells how many those were.

use anyhow::{Context, Result};
use serde::Serialize;

/// Function-call interrupts, by CPU.
#[derive(Clone)]
pub struct Interrupts {
    calls: Vec<u64>,
    shootdowns: Vec<u64>,
}

/// What came between two readings.
#[derive(Serialize)]
pub struct Delta {
    /// Row CAL, all CPUs.
    pub calls: u64,
    /// Row TLB, all CPUs: part of `calls`.
    pub shootdowns: u64,
    /// Row CAL by CPU, in the order of the columns.
    pub calls_by_cpu: Vec<u64>,
    /// Row TLB by CPU.
    pub shootdowns_by_cpu: Vec<u64>,
}

impl Interrupts {
    /// Reads them now.
    pub fn read() -> Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/interrupts")?)
    }

    fn parse(text: &str) -> Result<Self> {
        let cpus = text.lines().next().unwrap_or("").split_whitespace().count();
        let row = |name: &str| -> Result<Vec<u64>> {
            let line = text
                .lines()
                .find_map(|line| line.trim_start().strip_prefix(name));
            let line = line.with_context(|| format!("no row {name} in /proc/interrupts"))?;
            let counts = line.split_whitespace().take(cpus).map(str::parse);
            counts
                .collect::<Result<_, _>>()
                .with_context(|| format!("row {name}{line}"))
        };
        Ok(Self {
            calls: row("CAL:")?,
            shootdowns: row("TLB:")?,
        })
    }

    /// What came since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Delta {
        let minus = |now: &[u64], then: &[u64]| -> Vec<u64> {
            // The counters are 32 bits wide.
            let pairs = now.iter().zip(then);
            pairs
                .map(|(now, then)| u64::from((*now as u32).wrapping_sub(*then as u32)))
                .collect()
        };
        let calls_by_cpu = minus(&self.calls, &earlier.calls);
        let shootdowns_by_cpu = minus(&self.shootdowns, &earlier.shootdowns);
        Delta {
            calls: calls_by_cpu.iter().sum(),
            shootdowns: shootdowns_by_cpu.iter().sum(),
            calls_by_cpu,
            shootdowns_by_cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "            CPU0       CPU1\n  1:  9  9  i8042\nCAL:  4294967295  7  Function call interrupts\nTLB:  1  2  TLB shootdowns\n";
    const AFTER: &str = "            CPU0       CPU1\nCAL:  4  8  Function call interrupts\nTLB:  1  3  TLB shootdowns\n";

    #[test]
    fn rows_and_wrap() {
        let before = Interrupts::parse(BEFORE).unwrap();
        let delta = Interrupts::parse(AFTER).unwrap().since(&before);
        assert_eq!(
            (delta.calls_by_cpu, delta.calls, delta.shootdowns),
            (vec![5, 1], 6, 1)
        );
    }

    #[test]
    fn a_row_is_missing() {
        assert!(Interrupts::parse("CPU0\nCAL: 1 x\n").is_err());
    }
}
