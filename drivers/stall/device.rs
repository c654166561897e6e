// SPDX-License-Identifier: GPL-2.0

//! `/dev/nullhz-stall`.

use crate::abi::{self, event, flag, ioc, Held, NAME_SIZE};
use crate::deadline::Wishes;
use crate::ffi;
use crate::member::Member;
use crate::monitor::Monitor;
use crate::rank::Rank;
use crate::tunables::PERIOD_MS;
use kernel::{
    cred::{capable, Capability},
    fs::File,
    ioctl::{_IOC_NR, _IOC_TYPE},
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    mm::virt::VmaNew,
    prelude::*,
    sync::{atomic::Relaxed, new_mutex, Arc, ArcBorrow, Mutex},
    uaccess::{UserPtr, UserSlice}, //
};

/// What an open file is.
enum Role {
    /// Nothing yet: it can look, and become a rank.
    Observer,
    /// A rank, and whether its page has been mapped.
    Rank(Arc<Member>, bool),
    /// It was a rank.
    Former,
}

/// An open file.
#[pin_data]
pub(crate) struct Handle {
    monitor: Arc<Monitor>,
    /// User memory is not touched while it is held: `mmap()` takes it with `mmap_lock` held.
    #[pin]
    role: Mutex<Role>,
}

/// The job's name as it is kept: zeros follow the terminating one.
fn check_name(raw: &[u8; NAME_SIZE]) -> Result<[u8; NAME_SIZE]> {
    let text = abi::text(raw);
    let printable = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || text.len() == NAME_SIZE || !printable {
        return Err(EINVAL);
    }
    let mut name = [0; NAME_SIZE];
    for (to, from) in name.iter_mut().zip(text) {
        *to = *from;
    }
    Ok(name)
}

impl Handle {
    /// The rank that this file is.
    fn member(&self) -> Result<Arc<Member>> {
        match &*self.role.lock() {
            Role::Rank(member, _) => Ok(member.clone()),
            Role::Observer | Role::Former => Err(EINVAL),
        }
    }

    fn info(&self) -> abi::Info {
        let Monitor {
            watchdog, tunables, ..
        } = &*self.monitor;
        abi::Info {
            abi_version: abi::ABI_VERSION,
            page_size: abi::PAGE_SIZE as u32,
            max_ranks: self.monitor.max_ranks,
            ranks: self.monitor.table.lock().len(),
            period_ms: PERIOD_MS,
            max_grace_ms: tunables.max_grace_ms.load(Relaxed),
            armed: u32::from(watchdog.held() == Held::Not),
            resets: watchdog.resets(),
        }
    }

    fn register(&self, raw: &abi::Register) -> Result {
        if raw.flags & !flag::TELLS_WAITS != 0 || raw.pad != 0 {
            return Err(EINVAL);
        }
        let name = check_name(&raw.name)?;
        let wishes = Wishes {
            deadline_ms: raw.deadline_ms,
            floor_ms: raw.floor_ms,
            warmup: raw.warmup,
        };
        // Before anything is allocated for a file that cannot be one.
        if !matches!(*self.role.lock(), Role::Observer) {
            return Err(EBUSY);
        }
        let member = Arc::new(Member::new(raw.rank, name)?, GFP_KERNEL)?;
        let mut rank = KBox::new(Rank::BLANK, GFP_KERNEL)?;
        let table = self.monitor.table.lock();
        let now = table.clock.at(ffi::monotonic_ns());
        let tells_waits = raw.flags & flag::TELLS_WAITS != 0;
        rank.begin(now, &wishes, tells_waits, &table.rules);
        drop(table);

        let mut role = self.role.lock();
        if !matches!(*role, Role::Observer) {
            return Err(EBUSY);
        }
        self.monitor.register(&member, rank)?;
        *role = Role::Rank(member, false);
        Ok(())
    }

    fn grace(&self, raw: &abi::Grace) -> Result {
        let max = self.monitor.tunables.max_grace_ms.load(Relaxed);
        if raw.pad != 0 || raw.ms > max {
            return Err(EINVAL);
        }
        let member = self.member()?;
        let mut table = self.monitor.table.lock();
        let now = table.clock.at(ffi::monotonic_ns());
        // A rank whose process is dead is none any more.
        let index = table.find(&member).ok_or(EINVAL)?;
        let entry = table.entries.get_mut(index).ok_or(EINVAL)?;
        entry.rank.grace(now, raw.ms);
        Ok(())
    }

    fn leave(&self) -> Result {
        let mut role = self.role.lock();
        let Role::Rank(member, _) = &*role else {
            return Err(EINVAL);
        };
        let member = member.clone();
        *role = Role::Former;
        drop(role);
        match self.monitor.unregister(&member, event::LEFT) {
            true => Ok(()),
            false => Err(EINVAL),
        }
    }

    fn answers(&self, raw: &abi::Checkpoint) -> Result<abi::Checkpoint> {
        let status = self.monitor.table.lock().checkpoint();
        if raw.request == 0 || raw.request != status.request {
            return Err(ENOENT);
        }
        Ok(status)
    }

    fn rank(&self, index: u32) -> Result<abi::Rank> {
        let table = self.monitor.table.lock();
        let entry = table.entries.get(index as usize).ok_or(ENOENT)?;
        let now = table.clock.at(ffi::monotonic_ns());
        let (member, rank) = (&entry.member, &entry.rank);
        Ok(abi::Rank {
            index,
            rank: member.rank,
            name: member.name,
            pid: member.task.tgid_nr_ns(None),
            tid: member.task.pid_nr_ns(None),
            state: rank.state() as u32,
            phase: rank.phase() as u32,
            step: rank.step(),
            progress: rank.progress(),
            age_ns: rank.age_ns(now),
            deadline_ns: rank.deadline_ns(),
            grace_ns: rank.grace_ns(now),
            steps_seen: rank.steps_seen(),
            stalls: rank.stalls(),
            checkpoint_ack: member.checkpoint_ack(),
        })
    }
}

/// Reads an ioctl's argument.
fn from_user<const N: usize>(arg: UserPtr) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    UserSlice::new(arg, N).reader().read_slice(&mut bytes)?;
    Ok(bytes)
}

/// Writes an ioctl's argument.
fn to_user(arg: UserPtr, bytes: &[u8]) -> Result {
    UserSlice::new(arg, bytes.len()).writer().write_slice(bytes)
}

/// The number of the last ioctl.
const LAST_IOC: u32 = _IOC_NR(ioc::RANK);

#[vtable]
impl MiscDevice for Handle {
    type Ptr = Arc<Self>;
    type RegistrationData = Arc<Monitor>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        let monitor = misc.data().clone();
        Arc::pin_init(
            pin_init!(Self {
                monitor,
                role <- new_mutex!(Role::Observer, "nullhz_stall_role"),
            }),
            GFP_KERNEL,
        )
    }

    fn release(handle: Arc<Self>, _file: &File) {
        match handle.member() {
            // It may hang in the release of another file: it has crashed when it is gone.
            Ok(member) if !member.is_exiting() => {
                // It is not there if its process died before.
                handle.monitor.unregister(&member, event::CRASHED);
            }
            _ => {}
        }
    }

    fn mmap(handle: ArcBorrow<'_, Self>, _file: &File, vma: &VmaNew) -> Result {
        let mut role = handle.role.lock();
        let Role::Rank(member, mapped) = &mut *role else {
            return Err(EINVAL);
        };
        if *mapped {
            return Err(EBUSY);
        }
        member.page().map(vma)?;
        *mapped = true;
        Ok(())
    }

    fn ioctl(handle: ArcBorrow<'_, Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        match cmd {
            ioc::INFO => to_user(arg, &handle.info().to_bytes())?,
            ioc::REGISTER => handle.register(&abi::Register::from_bytes(&from_user(arg)?))?,
            ioc::GRACE => handle.grace(&abi::Grace::from_bytes(&from_user(arg)?))?,
            ioc::LEAVE => handle.leave()?,
            ioc::CHECKPOINT if !capable(Capability::SysAdmin) => return Err(EPERM),
            ioc::CHECKPOINT => {
                let mut table = handle.monitor.table.lock();
                table.request_checkpoint();
                let status = table.checkpoint();
                drop(table);
                to_user(arg, &status.to_bytes())?;
            }
            ioc::ANSWERS => {
                let asked = abi::Checkpoint::from_bytes(&from_user(arg)?);
                to_user(arg, &handle.answers(&asked)?.to_bytes())?;
            }
            ioc::RANK => {
                let asked = abi::Rank::from_bytes(&from_user(arg)?);
                to_user(arg, &handle.rank(asked.index)?.to_bytes())?;
            }
            _ if _IOC_TYPE(cmd) == ioc::MAGIC && _IOC_NR(cmd) <= LAST_IOC => return Err(EINVAL),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
