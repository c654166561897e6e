// SPDX-License-Identifier: GPL-2.0

//! A ticket that another thread waits for.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};
use std::thread;

fn finish<'e>(ticket: Ticket<'e>) -> Flushed<'e> {
    thread::scope(|scope| scope.spawn(|| ticket.wait()).join().unwrap())
}

fn main() {
    let _ = finish;
}
