// SPDX-License-Identifier: GPL-2.0

//! Each misuse does not compile, for the reason in its `.stderr`; what differs from it by a line or
//! two does, and runs.

use nullhz_mmu_batch_types_host::mmu_batch::{Flushed, Ticket};
use static_assertions::assert_not_impl_any;

// Another thread neither waits for an event's ticket nor has its proof. (Here, since what the
// compiler says of it depends on where the standard library's sources are.)
assert_not_impl_any!(Ticket<'static>: Send, Sync);
assert_not_impl_any!(Flushed<'static>: Send, Sync);

#[test]
fn misuse_does_not_compile_and_use_does() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/misuse/*.rs");
    tests.pass("tests/right/*.rs");
}
