// SPDX-License-Identifier: GPL-2.0

//! Model-specific codes of Intel's power control units.
//!
//! SDM volume 3B, tables "Machine Check Error Codes for IA32_MC4_STATUS" (Granite Rapids: bank 6).

use super::intel::Table;
use core::ops::RangeInclusive;

/// Skylake server, `MCi_STATUS` 31:24.
pub(super) const SKYLAKE: &Table = &[
    (0x0d, "DMI training time-out"),
    (0x0f, "DMI CPU reset acknowledgement time-out"),
    (0x10, "more than one LT agent"),
    (0x1e, "BIOS reset sequence"),
    (0x1f, "BIOS package state configuration"),
    (0x25, "message channel time-out"),
    (0x27, "message channel power management request time-out"),
    (0x30, "package C-state direct wake time-out"),
    (0x31, "package C-state response from PCH"),
    (0x33, "package C-state watchdog, CBZ down"),
    (0x34, "package C-state watchdog, CBZ up"),
    (0x38, "package C-state watchdog, C3 up"),
    (0x40, "VCCIN regulator current limit"),
    (0x41, "SVID command time-out"),
    (0x42, "VCCIN regulator voltage"),
    (0x43, "CPU regulator capability"),
    (0x44, "critical regulator failed"),
    (0x45, "SVID inverse temperature dependence"),
    (0x46, "SVID register read"),
    (0x47, "SVID register write"),
    (0x48, "SVID package C-state initialization"),
    (0x49, "SVID package C-state configuration"),
    (0x4a, "SVID package C-state request"),
    (0x4b, "SVID current monitor request"),
    (0x4c, "SVID alert request"),
    (0x4d, "multi-chip regulator absent or ramp"),
    (0x4e, "unexpected multi-chip regulator"),
    (0x51, "integrated regulator over-voltage"),
    (0x52, "integrated regulator over-current"),
    (0x58, "package C-state watchdog, slave"),
    (0x59, "package C-state watchdog, master"),
    (0x5a, "package S-state watchdog, master"),
    (0x61, "package S-state CPD time-out"),
    (0x63, "package S-state request from PCH"),
    (0x64, "package S-state internal request"),
    (0x65, "package S-state internal response"),
    (0x6b, "package S-state SMBus pause time-out"),
    (0x81, "die too hot"),
];

/// Skylake server, `MCACOD` of bank 4.
pub(super) const SKYLAKE_MCACOD: &Table = &[
    (0x0402, "internal errors"),
    (0x0403, "internal errors"),
    (0x0406, "TXT errors"),
    (0x0407, "other UBOX internal errors"),
];

/// Ice Lake and Sapphire Rapids, `MCi_STATUS` 31:24.
pub(super) const ICE_LAKE: &Table = &[
    (0x0d, "cache self-test time-out"),
    (0x0e, "DMI training time-out"),
    (0x0f, "DMI strap set time-out"),
    (0x10, "DMI CPU reset acknowledgement time-out"),
    (0x11, "more than one LT agent"),
    (0x14, "incompatible PCH"),
    (0x1e, "BIOS reset sequence"),
    (0x1f, "BIOS package state configuration"),
    (0x2d, "maximum power calibration"),
    (0x2e, "TSC synchronization time-out"),
    (0x3a, "general sideband time-out"),
    (0x3b, "power management sideband time-out"),
    (0x3e, "sideband power management request time-out"),
    (0x40, "VCCIN regulator current limit"),
    (0x42, "VCCIN regulator voltage"),
    (0x43, "CPU regulator capability"),
    (0x44, "critical regulator failed"),
    (0x45, "SVID inverse temperature dependence"),
    (0x46, "SVID register read"),
    (0x47, "SVID register write"),
    (0x4a, "SVID package C-state request"),
    (0x4b, "SVID current monitor request"),
    (0x4c, "SVID alert request"),
    (0x4d, "multi-chip regulator ramp"),
    (0x56, "integrated regulator hard error"),
    (0x58, "package C-state watchdog, slave"),
    (0x59, "package C-state watchdog, master"),
    (0x5a, "package S-state watchdog, master"),
    (0x5b, "message channel watchdog"),
    (0x5c, "bulk register watchdog"),
    (0x5d, "sideband watchdog"),
    (0x60, "package S-state save point time-out"),
    (0x61, "package S-state CPD time-out"),
    (0x62, "package S-state request from PCH"),
    (0x63, "package S-state internal request"),
    (0x64, "package S-state internal response"),
    (0x7b, "SMBus VPP pause time-out"),
    (0x7c, "SMBus MCP pause time-out"),
    (0x7d, "SMBus SPD pause time-out"),
    (0x80, "package C-state dispatcher time-out"),
    (0x81, "package C-state response from PCH"),
    (0x83, "package C-state watchdog, CBZ down"),
    (0x84, "package C-state watchdog, CBZ up"),
    (0x87, "package C-state watchdog, C2 block master"),
    (0x88, "package C-state watchdog, C2 limit"),
    (0x89, "package C-state watchdog, dispatcher"),
    (0x8b, "package C-state L1 grant"),
    (0x90, "die too hot"),
    (0xa0, "asynchronous DRAM refresh signal time-out"),
    (0xa1, "base clock above its limit"),
    (0xb0, "dispatcher busy time-out"),
];

/// Ice Lake and Sapphire Rapids, `MCi_STATUS` 31:24: one code for each unit that did not get ready.
pub(super) const ICE_LAKE_RESET_PREPARATION: RangeInclusive<u16> = 0x65..=0x7a;

/// Ice Lake and Sapphire Rapids, `MCi_STATUS` 23:20.
pub(super) const ICE_LAKE_MIDDLE: &Table = &[
    (0x04, "clock or power response time-out"),
    (0x05, "SMBus controller raised an SMI"),
    (
        0x09,
        "power management controller got an invalid transaction",
    ),
];

/// Ice Lake and Sapphire Rapids, `MCi_STATUS` 19:16.
pub(super) const ICE_LAKE_LOW: &Table = &[
    (0x01, "microcontroller instruction address"),
    (0x02, "microcontroller double-bit error, instruction fetch"),
    (0x03, "microcontroller opcode"),
    (0x04, "microcontroller stack underflow"),
    (0x05, "microcontroller stack overflow"),
    (0x06, "microcontroller data address"),
    (0x07, "microcontroller double-bit error, data"),
];

/// Granite Rapids, `MCi_STATUS` 23:16.
pub(super) const GRANITE_LOW: &Table = &[
    (0x02, "microcontroller double-bit error"),
    (0x03, "microcontroller double-bit error"),
    (0x08, "microcontroller error"),
    (0x09, "microcontroller error"),
    (0x0a, "microcontroller patch load"),
    (0x0b, "microcontroller request valid"),
    (0x10, "microcontroller telemetry RAM double-bit error"),
    (0x20, "power management agent signalled an error"),
    (0x80, "S3M signalled an error"),
    (0xa0, "HPM RAM double-bit error"),
    (0xb0, "TPMI RAM double-bit error"),
];

/// Granite Rapids, `MCi_STATUS` 31:24.
pub(super) const GRANITE_HIGH: &Table = &[
    (0x09, "TSC download time-out"),
    (0x0b, "general sideband time-out"),
    (0x0c, "power management sideband time-out"),
    (0x10, "maximum power calibration"),
    (0x1a, "dispatcher busy time-out"),
    (0x1d, "more than one LT agent"),
    (0x23, "SVID"),
    (0x35, "SVID load line"),
    (0x36, "SVID maximum current"),
    (0x40, "SVID maximum VID"),
    (0x41, "SVID voltage ramp"),
    (0x48, "inverse temperature dependence fuses"),
    (0x49, "SVID DC load line"),
    (0x4a, "integrated regulator hard error"),
    (0x4c, "HPM double-bit error"),
    (0x56, "SVID active VID fuses"),
];
