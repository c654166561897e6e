// SPDX-License-Identifier: GPL-2.0

//! It is the outer event's.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};

fn answer<'inner, 'outer: 'inner>(outer: Ticket<'outer>, _inner: &'inner ()) -> Flushed<'outer> {
    outer.wait()
}

fn main() {
    let _ = answer;
}
