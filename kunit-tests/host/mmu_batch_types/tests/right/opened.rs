// SPDX-License-Identifier: GPL-2.0

//! They can be looked at.

use nullhz_mmu_batch_types_host::mmu_batch::{DriverUnmap, Lease, Space};
use nullhz_mmu_batch_types_host::{PinnedPages, Table, VaLease};

fn main() {
    let space = Space::new(Table([3].into()));
    let unmap = DriverUnmap::new(PinnedPages(1), VaLease(0..10)).unwrap();
    let pages = unmap.pages().0;
    unmap.defer(&*space, |table, _, lease| table.clear(lease.range()));
    assert_eq!(pages, 1);
}
