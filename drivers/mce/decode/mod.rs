// SPDX-License-Identifier: GPL-2.0

//! What a machine-check record says.
//!
//! Pure functions from the registers of a bank to values: no allocation, no state, no panic,
//! nothing but `core`. The kernel module grades and locates with them, `nullhz-agent decode` prints
//! with them, and the host tests walk every code. A crate includes this file by `#[path]`.
//!
//! Sources: Intel SDM volume 3B, chapters "Machine-Check Architecture" and "Interpreting
//! Machine-Check Error Codes"; AMD APM volume 2, chapter "Machine Check Architecture", and the
//! processor programming references; arch/x86/kernel/cpu/mce/ and drivers/edac/ of Linux 7.3.

pub(crate) mod intel;
pub(crate) mod location;
pub(crate) mod mcacod;
pub(crate) mod pcu;
pub(crate) mod record;
pub(crate) mod severity;
pub(crate) mod smca;
pub(crate) mod smca_text;
mod smca_text_io;
pub(crate) mod text;
