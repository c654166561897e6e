// SPDX-License-Identifier: GPL-2.0

//! A flush of an outer event that is taken for one of the event within: a lifetime that is shorter
//! is not the same one.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};

fn answer<'inner, 'outer: 'inner>(outer: Ticket<'outer>) -> Flushed<'inner> {
    outer.wait()
}

fn main() {
    let _ = answer;
}
