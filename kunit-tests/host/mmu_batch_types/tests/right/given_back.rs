// SPDX-License-Identifier: GPL-2.0

//! The library gives them back.

use nullhz_mmu_batch_types_host::mmu_batch::{DriverUnmap, Lease, Space};
use nullhz_mmu_batch_types_host::{PinnedPages, Table, VaLease};

fn main() {
    let space = Space::new(Table([3].into()));
    let pages = PinnedPages(1);
    let unmap = DriverUnmap::new(pages, VaLease(0..10)).unwrap();
    unmap.defer(&*space, |table, _, lease| table.clear(lease.range()));
    space.drain();
}
