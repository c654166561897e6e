// SPDX-License-Identifier: GPL-2.0

//! What a deferred unmap keeps, where it keeps it.

use super::{
    abi, nullhz_mmu_batch_defer,
    typestate::{Live, Queue},
    Space,
};
use core::ops::{Deref, Range};
use kernel::{error::to_result, ffi::c_void, prelude::*};

/// Why there is no place.
pub type Error = kernel::error::Error;

/// What the library gets the address of.
#[repr(C)]
struct Node<T> {
    raw: abi::Unmap,
    /// Only while it is zapped: how.
    zap: *mut c_void,
    held: T,
}

/// A place for what is kept until a flush.
pub struct Place<T>(KBox<Node<T>>);

impl<T> Place<T> {
    pub(super) fn new(held: T) -> Result<Self, Error> {
        let raw = abi::Unmap {
            start: 0,
            end: 0,
            pages: 0,
            zap: None,
            release: None,
        };
        let zap = core::ptr::null_mut();
        Ok(Self(KBox::new(Node { raw, zap, held }, GFP_KERNEL)?))
    }
}

impl<T> Deref for Place<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.held
    }
}

// SAFETY: `zap` is null except during a call that owns the place.
unsafe impl<T: Send> Send for Place<T> {}
// SAFETY: A shared place gives access to nothing but `held`.
unsafe impl<T: Sync> Sync for Place<T> {}

/// How something is zapped.
struct Zapping<'a, S: Send + 'static, F> {
    space: &'a Space<S>,
    zap: Option<F>,
}

impl<S: Send + 'static> Queue for Space<S> {
    type Shadow = S;

    fn defer<T: Send + 'static>(
        &self,
        place: Place<T>,
        size: impl FnOnce(&T) -> (Range<u64>, u64),
        zap: impl FnOnce(&mut S, &T) -> Live,
    ) {
        let Place(mut node) = place;
        let (range, pages) = size(&node.held);
        let mut zapping = Zapping {
            space: self,
            zap: Some(zap),
        };
        node.raw = abi::Unmap {
            start: range.start,
            end: range.end,
            pages,
            zap: Some(zap_of(&zapping)),
            release: Some(release::<T>),
        };
        node.zap = (&raw mut zapping).cast();
        let node = KBox::into_raw(node);
        // SAFETY: A space by the type's invariant. `raw` is the first field of the node, which is
        // freed by `release()`; `zapping` is used by `zap()` only, before this returns.
        let result = to_result(unsafe { nullhz_mmu_batch_defer(self.raw.as_ptr(), node.cast()) });
        if result.is_err() {
            // An empty range: there is nothing to unmap.
            // SAFETY: Refused, so that it is still ours.
            drop(unsafe { KBox::from_raw(node) });
        }
    }
}

/// The function that zaps with what `zapping` is about.
fn zap_of<S: Send, T, F: FnOnce(&mut S, &T) -> Live>(
    _zapping: &Zapping<'_, S, F>,
) -> unsafe extern "C" fn(*mut abi::Unmap) -> bool {
    zap::<S, T, F>
}

/// # Safety
///
/// `unmap` is the first field of a `Node<T>`, the lock of whose space is held; its `zap` is a
/// `Zapping<S, F>` of that space.
unsafe extern "C" fn zap<S: Send + 'static, T, F: FnOnce(&mut S, &T) -> Live>(
    unmap: *mut abi::Unmap,
) -> bool {
    // SAFETY: As demanded of the caller.
    let node = unsafe { &*unmap.cast::<Node<T>>() };
    // SAFETY: As demanded of the caller; nobody else uses it.
    let zapping = unsafe { &mut *node.zap.cast::<Zapping<'_, S, F>>() };
    // SAFETY: The lock is held, and nobody else has the page table.
    let table = unsafe { &mut *zapping.space.shadow.get() };
    let live = zapping.zap.take().map(|zap| zap(table, &node.held));
    // Never asked twice; if it were, then something might have been there.
    live.is_none_or(Live::any)
}

/// # Safety
///
/// `unmap` is the first field of a `Node<T>` from `KBox::into_raw()` that nobody uses any more.
unsafe extern "C" fn release<T>(unmap: *mut abi::Unmap) {
    // SAFETY: As demanded of the caller.
    drop(unsafe { KBox::from_raw(unmap.cast::<Node<T>>()) });
}
