// SPDX-License-Identifier: GPL-2.0

//! Its own thread does.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};

fn finish<'e>(ticket: Ticket<'e>) -> Flushed<'e> {
    ticket.wait()
}

fn main() {
    let _ = finish;
}
