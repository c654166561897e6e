// SPDX-License-Identifier: GPL-2.0

//! Other processes: copies of this one, and how they are killed.

#![allow(unsafe_code)]

use anyhow::{bail, Result};
use rustix::io::{self, Errno};
use rustix::pipe::pipe;
use rustix::process::{waitpid, Pid, WaitOptions};
use std::os::fd::{AsRawFd, OwnedFd};

/// The two sides after fork().
pub enum Fork {
    /// Here.
    Parent(Child),
    /// In the copy, which must end with [`Parent::exit`].
    Child(Parent),
}

/// A copy of this process, as its parent sees it.
pub struct Child {
    pid: Pid,
    to: OwnedFd,
    from: OwnedFd,
}

/// The parent, as the copy sees it.
pub struct Parent {
    to: OwnedFd,
    from: OwnedFd,
}

impl Fork {
    /// Copies this process, which has one thread.
    pub fn now() -> Result<Self> {
        let (child_reads, to_child) = pipe()?;
        let (parent_reads, to_parent) = pipe()?;
        // SAFETY: There is only this thread, so that the copy finds every lock free.
        match unsafe { libc::fork() } {
            0 => Ok(Self::Child(Parent {
                to: to_parent,
                from: child_reads,
            })),
            pid => match Pid::from_raw(pid) {
                Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok(Self::Parent(Child {
                    pid,
                    to: to_child,
                    from: parent_reads,
                })),
                _ => Err(std::io::Error::last_os_error().into()),
            },
        }
    }
}

impl Child {
    /// Lets it go on.
    pub fn tell(&self) -> Result<()> {
        rustix::io::write(&self.to, b".")?;
        Ok(())
    }

    /// Waits for its [`Parent::tell`].
    pub fn wait(&self) -> Result<()> {
        let mut byte = [0];
        if rustix::io::read(&self.from, &mut byte)? != 1 {
            bail!("the child has died");
        }
        Ok(())
    }

    /// Waits for its end.
    pub fn join(self) -> Result<()> {
        match waitpid(Some(self.pid), WaitOptions::empty())? {
            Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
            status => bail!("the child ended with {status:?}"),
        }
    }
}

impl Parent {
    /// Waits for [`Child::tell`]; ends with the parent.
    pub fn wait(&self) {
        let mut byte = [0];
        if !matches!(rustix::io::read(&self.from, &mut byte), Ok(1)) {
            self.exit();
        }
    }

    /// Lets the parent go on.
    pub fn tell(&self) {
        if rustix::io::write(&self.to, b".").is_err() {
            self.exit();
        }
    }

    /// Ends the copy, and nothing else: what is flushed or freed at an exit is the parent's.
    pub fn exit(&self) -> ! {
        // SAFETY: It does not return, and runs nothing of this process.
        unsafe { libc::_exit(0) }
    }
}

/// Frees the memory of a process that was killed, on behalf of the caller.
pub fn mrelease(pidfd: &OwnedFd) -> io::Result<()> {
    // SAFETY: A descriptor and no flags.
    let answer = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) };
    if answer == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
