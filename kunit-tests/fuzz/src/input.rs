// SPDX-License-Identifier: GPL-2.0

//! What a target makes of the fuzzer's bytes.

/// Bytes that are taken one after the other; zeros when there are none left.
pub struct Input<'a>(&'a [u8]);

macro_rules! ints {
    ($($int:ident),*) => {$(
        pub fn $int(&mut self) -> $int {
            $int::from_le_bytes(self.array())
        }
    )*};
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// Whether all are taken: where a sequence of steps ends.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    ints!(u8, u16, u32, i32, u64);

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// 0..`count`, which is at most 256.
    pub fn below(&mut self, count: u16) -> u64 {
        u64::from(u16::from(self.u8()) % count)
    }

    pub fn pick<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u16) as usize]
    }

    /// Mostly small, often next to a power of two, sometimes anything.
    pub fn extreme(&mut self) -> u64 {
        let kind = self.u8();
        let power = 1u64 << (kind & 63);
        match kind >> 6 {
            0 => self.u8().into(),
            1 => power.wrapping_add(self.below(3)).wrapping_sub(1),
            2 => power.wrapping_sub(1).wrapping_neg(),
            _ => self.u64(),
        }
    }

    /// The same in 32 bits.
    pub fn extreme32(&mut self) -> u32 {
        self.extreme() as u32
    }
}
