// SPDX-License-Identifier: GPL-2.0

//! Pages that are taken out of an unmap.

use nullhz_mmu_batch_types_host::mmu_batch::{DriverUnmap, Lease, Space};
use nullhz_mmu_batch_types_host::{PinnedPages, Table, VaLease};

fn main() {
    let space = Space::new(Table([3].into()));
    let unmap = DriverUnmap::new(PinnedPages(1), VaLease(0..10)).unwrap();
    let pages = *unmap.pages();
    unmap.defer(&*space, |table, _, lease| table.clear(lease.range()));
    drop(pages);
}
