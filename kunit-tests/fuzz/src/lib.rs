// SPDX-License-Identifier: GPL-2.0

//! Fuzz targets: functions of any bytes that panic where a property does not hold.
//!
//! | target | what | judged by |
//! |---|---|---|
//! | `severity` | grading of machine checks | the kernel's own rules, written down once more |
//! | `decode` | machine checks in words and places | bits, ranges, one printable line |
//! | `buckets` | leaky buckets, columns, their table | exact lists of what fell in, and when |
//! | `predict` | the verdict on a node | exact counts by bank and socket |
//! | `record` | records of the ABI, stored ledgers and last words | round trips, bounds |
//! | `bus` | ring, cursors, incidents, storms | a reader that remembers everything |
//! | `heartbeat` | a hostile page, with any rules | the ladder by its age alone |
//! | `ladder` | fixed deadlines, evidence, resets | the same, and who may be reset |
//! | `learning` | quantiles, longest interval, sampler's clock | sorted lists |
//! | `threads` | who is to blame in a stalled process | the rules, one by one |
//! | `spans` | sets of address ranges | a set of pages |
//! | `combine` | tickets, flushes that fail, resets | a TLB that remembers when it was filled |
//! | `gather` | deferred unmaps | a plain list |
//! | `view` | any record, as the agent shows it | one printable line; JSON that can be read |
//! | `arguments` | the agent's command lines and names | what is accepted is written the same |
//! | `state` | the agent's state file | Prometheus' text format |
//!
//! scripts/fuzz runs them; `tests/replay.rs` repeats the inputs that are kept in `corpus/`.

#![forbid(unsafe_code)]

pub(crate) use nullhz_fault_host::abi;

// As in nullhz_mce, with names for the agent.
#[allow(dead_code)]
#[path = "../../../drivers/mce/decode/mod.rs"]
mod decode;
mod input;
mod mce;
#[path = "../../host/mce/src/reference.rs"]
mod reference;
mod targets;

pub use targets::{Target, TARGETS};
