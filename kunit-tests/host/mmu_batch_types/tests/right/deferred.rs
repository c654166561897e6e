// SPDX-License-Identifier: GPL-2.0

//! What can be deferred is an unmap of the driver's own, of which it holds the addresses.

use nullhz_mmu_batch_types_host::mmu_batch::{DriverUnmap, Lease, Space};
use nullhz_mmu_batch_types_host::{PinnedPages, Table, VaLease};

fn main() {
    let space = Space::new(Table([3].into()));
    let unmap = DriverUnmap::new(PinnedPages(1), VaLease(0..10)).unwrap();
    unmap.defer(&*space, |table, _, lease| table.clear(lease.range()));
    space.drain();
}
