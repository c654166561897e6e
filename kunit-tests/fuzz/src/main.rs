// SPDX-License-Identifier: GPL-2.0

//! The fuzzer: libFuzzer around the target that NULLHZ_FUZZ_TARGET names.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<nullhz_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("NULLHZ_FUZZ_TARGET").unwrap_or_default();
    let target = nullhz_fuzz::TARGETS.iter().find(|target| target.0 == name);
    target.unwrap_or_else(|| panic!("no target {name:?}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (*TARGET)(data));
