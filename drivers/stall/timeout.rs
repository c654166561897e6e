// SPDX-License-Identifier: GPL-2.0

//! The timeout that a hardware watchdog is given for a restart. Pure logic.

/// Gives a device that has a timeout of `own` seconds the longest one of at most `wanted`; which.
/// One whose timeouts are all longer than `wanted` keeps its own.
///
/// `set` tries one, and tells whether it is in the device's range, which nobody tells otherwise.
/// The last one that was in range is what the device has in the end. [`None`]: it takes none, not
/// even its own.
pub fn set_longest<E>(
    wanted: u32,
    own: u32,
    mut set: impl FnMut(u32) -> Result<bool, E>,
) -> Result<Option<u32>, E> {
    if set(wanted)? {
        return Ok(Some(wanted));
    }
    let (mut fits, mut too_long) = (own, wanted.max(own));
    while too_long - fits > 1 {
        let between = fits.midpoint(too_long);
        match set(between)? {
            true => fits = between,
            false => too_long = between,
        }
    }
    Ok(set(fits)?.then_some(fits))
}
