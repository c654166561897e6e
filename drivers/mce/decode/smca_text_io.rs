// SPDX-License-Identifier: GPL-2.0

//! The extended error codes of AMD's embedded processors, I/O and links; see
//! [`smca_text`](super::smca_text).

/// What the codes from 0 on mean. An empty text is a reserved code.
pub(super) type Table = &'static [&'static str];

pub(super) const PSP: Table = &["RAM ECC or parity"];

pub(super) const PSP_V2: Table = &[
    "high RAM ECC or parity",
    "low RAM ECC or parity",
    "instruction cache bank 0 ECC or parity",
    "instruction cache bank 1 ECC or parity",
    "instruction tag RAM 0 parity",
    "instruction tag RAM 1 parity",
    "data cache bank 0 ECC or parity",
    "data cache bank 1 ECC or parity",
    "data cache bank 2 ECC or parity",
    "data cache bank 3 ECC or parity",
    "data tag bank 0 parity",
    "data tag bank 1 parity",
    "data tag bank 2 parity",
    "data tag bank 3 parity",
    "dirty data RAM parity",
    "TLB bank 0 parity",
    "TLB bank 1 parity",
    "system hub read buffer ECC or parity",
    "fuse RAM ECC or parity",
    "PCRU fuse RAM ECC or parity",
    "SIB RAM parity",
    "secure memory controller",
    "core hang",
    "SIB watchdog",
];

pub(super) const SMU: Table = &["RAM ECC or parity"];

const SMU_V2: Table = &[
    "high RAM ECC or parity",
    "low RAM ECC or parity",
    "data cache bank A ECC or parity",
    "data cache bank B ECC or parity",
    "data tag bank A ECC or parity",
    "data tag bank B ECC or parity",
    "instruction cache bank A ECC or parity",
    "instruction cache bank B ECC or parity",
    "instruction tag bank A ECC or parity",
    "instruction tag bank B ECC or parity",
    "system hub read buffer ECC or parity",
    "PHY RAM ECC",
];

pub(super) fn smu_v2(code: u8) -> Option<&'static str> {
    match code {
        58 => Some("correctable error of a graphics block"),
        59 => Some("fatal error of a graphics block"),
        62 => Some("poison of a graphics block"),
        code => SMU_V2.get(usize::from(code)).copied(),
    }
}

pub(super) const MP5: Table = &[
    "high RAM ECC or parity",
    "low RAM ECC or parity",
    "data cache bank A ECC or parity",
    "data cache bank B ECC or parity",
    "data tag bank A ECC or parity",
    "data tag bank B ECC or parity",
    "instruction cache bank A ECC or parity",
    "instruction cache bank B ECC or parity",
    "instruction tag bank A ECC or parity",
    "instruction tag bank B ECC or parity",
    "fuse RAM ECC or parity",
];

/// The codes of one of the DMA processor's three cores, from 4, 12 and 20 on.
const MPDMA_CORE: Table = &[
    "data cache bank A ECC or parity",
    "data cache bank B ECC or parity",
    "data tag bank A ECC or parity",
    "data tag bank B ECC or parity",
    "instruction cache bank A ECC or parity",
    "instruction cache bank B ECC or parity",
    "instruction tag bank A ECC or parity",
    "instruction tag bank B ECC or parity",
];

/// From 28 on.
const MPDMA_REST: Table = &[
    "system hub read buffer ECC or parity",
    "DVSEC memory ECC or parity",
    "mailbox 0 ECC or parity",
    "mailbox 1 ECC or parity",
    "doorbell memory ECC or parity",
    "fabric slave memory 0 ECC or parity",
    "fabric slave memory 1 ECC or parity",
    "fabric slave memory 2 ECC or parity",
    "fabric master memory 0 ECC or parity",
    "fabric master memory 1 ECC or parity",
    "fabric master memory 2 ECC or parity",
    "fabric master memory 3 ECC or parity",
    "fabric master memory 4 ECC or parity",
    "fabric master memory 5 ECC or parity",
    "fabric master memory 6 ECC or parity",
    "fabric watchdog",
    "PTE command FIFO ECC or parity",
    "PTE hub data FIFO ECC or parity",
    "PTE internal data FIFO ECC or parity",
    "PTE command memory DMA ECC or parity",
    "PTE command memory internal ECC or parity",
    "fabric master memory 7 ECC or parity",
];

pub(super) fn mpdma(code: u8) -> Option<&'static str> {
    match code {
        0..=3 => Some("main RAM ECC or parity"),
        4..=27 => MPDMA_CORE.get(usize::from((code - 4) % 8)).copied(),
        code => MPDMA_REST.get(usize::from(code - 28)).copied(),
    }
}

pub(super) const NBIO: Table = &[
    "ECC or parity",
    "PCIe error",
    "external fabric error event",
    "outgoing poison",
    "internal poison",
    "internal fatal error event",
];

pub(super) const PCIE: Table = &[
    "CCIX error message",
    "CCIX read response, non-data error",
    "CCIX write response, non-data error",
    "CCIX read response, data error",
    "CCIX write response, data error",
];

pub(super) const PCIE_V2: Table = &["fabric port data parity"];

pub(super) const NBIF: Table = &[
    "GMI time-out",
    "RAM ECC",
    "NTB error event",
    "fabric port parity",
];

pub(super) const SATA: Table = &[
    "parity, port 0",
    "parity, port 1",
    "parity, port 2",
    "parity, port 3",
    "parity, port 4",
    "parity, port 5",
    "parity, port 6",
    "parity, port 7",
];

pub(super) const USB: Table = &[
    "S0 RAM 0 parity or ECC",
    "S0 RAM 1 parity or ECC",
    "S0 RAM 2 parity or ECC",
    "PHY RAM 0 parity",
    "PHY RAM 1 parity",
    "AXI slave response",
];

pub(super) const PHY: Table = &[
    "RAM ECC",
    "ARC instruction buffer parity",
    "ARC data buffer parity",
    "peripheral bus",
];

pub(super) const XGMI_PCS: Table = &[
    "data loss",
    "training",
    "flow control acknowledgement",
    "receive FIFO underflow",
    "receive FIFO overflow",
    "CRC",
    "bit error rate exceeded",
    "transmit channel id",
    "replay buffer parity",
    "data parity",
    "replay FIFO overflow",
    "replay FIFO underflow",
    "elastic FIFO overflow",
    "deskew",
    "flow control CRC",
    "data start-up limit",
    "flow control initialization time-out",
    "recovery time-out",
    "ready serial time-out",
    "ready serial attempts",
    "recovery attempts",
    "recovery relock attempts",
    "replay attempts",
    "sync header",
    "transmit replay time-out",
    "receive replay time-out",
    "transmit sub-link time-out",
    "receive sub-link time-out",
    "received command packet",
];

pub(super) const GMI_PCS: Table = &[
    "data loss",
    "training",
    "replay parity",
    "receive FIFO underflow",
    "receive FIFO overflow",
    "CRC",
    "bit error rate exceeded",
    "transmit FIFO underflow",
    "replay buffer parity",
    "transmit overflow",
    "replay FIFO overflow",
    "replay FIFO underflow",
    "elastic FIFO overflow",
    "deskew",
    "offline",
    "data start-up limit",
    "flow control initialization time-out",
    "recovery time-out",
    "ready serial time-out",
    "ready serial attempts",
    "recovery attempts",
    "recovery relock attempts",
    "deskew abort",
    "receive buffer",
    "receive LFDS FIFO overflow",
    "receive LFDS FIFO underflow",
    "transmit sub-link time-out",
    "receive sub-link time-out",
    "received command packet",
    "LFDS training time-out",
    "LFDS flow control initialization time-out",
    "data loss",
];

pub(super) const USR_DP: Table = &[
    "master command",
    "master receive FIFO",
    "master deskew",
    "master detection time-out",
    "master flow control",
    "master data-valid FIFO",
    "link state",
    "deskew",
    "initialization time-out",
    "initialization attempts",
    "recovery time-out",
    "recovery attempts",
    "eye training time-out",
    "data start-up limit",
    "LS0 exit",
    "PLL power state time-out",
    "receive FIFO",
    "link control unit",
    "converter, correctable ECC",
    "converter, uncorrectable ECC",
    "",
    "received data loss",
    "replay, correctable ECC",
    "replay, uncorrectable ECC",
    "CRC",
    "bit error rate exceeded",
    "flow control initialization time-out",
    "flow control initialization attempts",
    "replay time-out",
    "replay attempts",
    "replay underflow",
    "replay overflow",
];

pub(super) const USR_CP: Table = &[
    "packet type",
    "receive FIFO",
    "deskew",
    "receive detection time-out",
    "data parity",
    "data loss",
    "link control unit",
    "first handshake time-out",
    "second handshake time-out",
    "clock sleep response time-out",
    "clock wake response time-out",
    "reset attack",
    "fatal error of the other side",
];
