// SPDX-License-Identifier: GPL-2.0

//! Who may change what concerns the whole node: the modules' attributes.
//!
//! The files are root's, but a container's root is often the same user without its powers. So the
//! capability counts, as it does for the ioctls.

use kernel::{
    cred::{capable, Capability},
    prelude::*, //
};

/// [`EPERM`] unless the calling process has CAP_SYS_ADMIN in the initial user namespace. Process
/// context.
pub(crate) fn check() -> Result {
    match capable(Capability::SysAdmin) {
        true => Ok(()),
        false => Err(EPERM),
    }
}
