// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! Records of a user-space ABI: structures without padding, and their byte form.
//!
//! Part of every mirror of a UAPI header (`drivers/*/abi.rs`) by `#[path]`, under the same terms:
//! nothing but `core`, no `unsafe`, no panics. A record is turned into bytes and back field by
//! field, which the compiler melts into plain copies.

use core::mem::take;

/// The part of a record's bytes that has not been written yet.
pub(crate) struct Unwritten<'a>(pub(crate) &'a mut [u8]);

/// The part of a record's bytes that has not been read yet.
pub(crate) struct Unread<'a>(pub(crate) &'a [u8]);

/// A value with a fixed place in a record.
pub(crate) trait Field: Sized {
    /// All bits zero.
    const ZERO: Self;

    /// Writes the value at the front of `out`.
    fn put(&self, out: &mut Unwritten<'_>);

    /// Reads the value at the front of `input`.
    fn get(input: &mut Unread<'_>) -> Self;
}

macro_rules! int_field {
    ($($int:ty),*) => {$(
        impl Field for $int {
            const ZERO: Self = 0;

            #[inline]
            fn put(&self, out: &mut Unwritten<'_>) {
                self.to_ne_bytes().put(out);
            }

            #[inline]
            fn get(input: &mut Unread<'_>) -> Self {
                <$int>::from_ne_bytes(Field::get(input))
            }
        }

        impl<const N: usize> Field for [$int; N] {
            const ZERO: Self = [0; N];

            #[inline]
            fn put(&self, out: &mut Unwritten<'_>) {
                for word in self {
                    word.put(out);
                }
            }

            #[inline]
            fn get(input: &mut Unread<'_>) -> Self {
                Self::ZERO.map(|_| Field::get(input))
            }
        }
    )*};
}

int_field!(u16, u32, i32, u64);

impl Field for u8 {
    const ZERO: Self = 0;

    #[inline]
    fn put(&self, out: &mut Unwritten<'_>) {
        [*self].put(out);
    }

    #[inline]
    fn get(input: &mut Unread<'_>) -> Self {
        let [byte] = Field::get(input);
        byte
    }
}

impl<const N: usize> Field for [u8; N] {
    const ZERO: Self = [0; N];

    #[inline]
    fn put(&self, out: &mut Unwritten<'_>) {
        // The sizes below are checked when a record is declared, so there always is room.
        if let Some((head, tail)) = take(&mut out.0).split_first_chunk_mut() {
            *head = *self;
            out.0 = tail;
        }
    }

    #[inline]
    fn get(input: &mut Unread<'_>) -> Self {
        match input.0.split_first_chunk() {
            Some((head, tail)) => {
                input.0 = tail;
                *head
            }
            None => Self::ZERO,
        }
    }
}

/// Declares a record, proves that it has no padding, and gives it its byte form.
macro_rules! record {
    (
        $(#[$attr:meta])*
        $name:ident: $size:literal {
            $($(#[$field_attr:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attr])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_attr])* pub $field: $type,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(0 $(+ size_of::<$type>())* == $size);
        };

        // Not every record is used in every way.
        #[allow(dead_code)]
        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = $size;
            /// All bits zero.
            pub const ZERO: Self = Self { $($field: <$type as Field>::ZERO,)* };

            /// The record as it lies in memory.
            // By reference: the largest is 320 bytes.
            #[allow(clippy::wrong_self_convention)]
            #[inline]
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut bytes = [0; $size];
                let mut out = Unwritten(&mut bytes);
                $(self.$field.put(&mut out);)*
                bytes
            }

            /// The record that lies in `bytes`; any bits are valid.
            #[inline]
            pub fn from_bytes(bytes: &[u8; $size]) -> Self {
                let mut input = Unread(bytes);
                Self { $($field: Field::get(&mut input),)* }
            }

            /// The record at the start of `bytes`; [`None`] when they are too few.
            #[inline]
            pub fn from_prefix(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(Self::from_bytes)
            }
        }
    };
}

pub(crate) use record;
