// SPDX-License-Identifier: GPL-2.0

//! An event that is answered with the flush of another.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};

fn answer<'mine, 'other>(mine: Ticket<'mine>, other: Ticket<'other>) -> Flushed<'mine> {
    let _ = mine.wait();
    other.wait()
}

fn main() {
    let _ = answer;
}
