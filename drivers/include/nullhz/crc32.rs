// SPDX-License-Identifier: GPL-2.0

//! The checksum of what is kept across a reset.

/// CRC-32 (IEEE 802.3) of `bytes`.
///
/// Bit by bit: it runs a few times in a node's life, and a table would be one more thing to be
/// damaged.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}
