// SPDX-License-Identifier: GPL-2.0

//! Each misuse does not compile, for the reason in its `.stderr`; what differs from it by a line or
//! two does, and runs.

#[test]
fn misuse_does_not_compile_and_use_does() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/misuse/*.rs");
    tests.pass("tests/right/*.rs");
}
