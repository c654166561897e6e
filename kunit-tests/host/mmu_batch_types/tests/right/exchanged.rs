// SPDX-License-Identifier: GPL-2.0

//! Each event is answered with its own.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};

fn answer<'mine, 'other>(mine: Ticket<'mine>, other: Ticket<'other>) -> Flushed<'mine> {
    let _ = other.wait();
    mine.wait()
}

fn main() {
    let _ = answer;
}
