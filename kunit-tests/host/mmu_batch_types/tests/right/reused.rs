// SPDX-License-Identifier: GPL-2.0

//! Before they are unmapped they can be used.

use nullhz_mmu_batch_types_host::mmu_batch::{DriverUnmap, Lease, Space};
use nullhz_mmu_batch_types_host::{PinnedPages, Table, VaLease};

fn main() {
    let space = Space::new(Table([3].into()));
    let unmap = DriverUnmap::new(PinnedPages(1), VaLease(0..10)).unwrap();
    space.lock().0.insert(unmap.lease().range().start);
    unmap.defer(&*space, |table, _, lease| table.clear(lease.range()));
}
