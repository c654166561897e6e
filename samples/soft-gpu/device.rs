// SPDX-License-Identifier: GPL-2.0

//! `/dev/nullhz-soft-gpu`.

use crate::abi::{self, ioc};
use crate::context::Context;
use crate::Gpu;
use kernel::{
    cred::{capable, Capability},
    fs::File,
    ioctl::{_IOC_NR, _IOC_TYPE},
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    prelude::*,
    sync::{Arc, ArcBorrow},
    uaccess::{UserPtr, UserSlice}, //
};

/// An open file.
pub(crate) struct Handle;

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

/// Reads an argument as a record.
macro_rules! read {
    ($record:ident, $arg:ident) => {
        &abi::$record::from_bytes(&from_user($arg)?)
    };
}

/// The number of the last ioctl.
const LAST_IOC: u32 = _IOC_NR(ioc::FAULTS);

/// What any process may ask.
fn ask(context: &Context, cmd: u32, arg: UserPtr) -> Result<bool> {
    match cmd {
        ioc::INFO => to_user(arg, &context.info().to_bytes())?,
        ioc::STOP => to_user(arg, &context.stop(read!(Stop, arg))?.to_bytes())?,
        ioc::VIOLATION => {
            let asked = read!(Violation, arg);
            let violation = context.shared.kept(asked.index).ok_or(ENOENT)?;
            to_user(arg, &violation.to_bytes())?;
        }
        ioc::COUNTERS => to_user(arg, &context.counters().to_bytes())?,
        ioc::CPU => {
            let asked = read!(Cpu, arg);
            let tlb = context.shared.hardware.tlb(asked.cpu).ok_or(EINVAL)?;
            to_user(arg, &tlb.count(asked.cpu).to_bytes())?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

#[vtable]
impl MiscDevice for Handle {
    type Ptr = Arc<Context>;
    type RegistrationData = Gpu;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Context>> {
        Context::new(misc.data())
    }

    fn release(context: Arc<Context>, _file: &File) {
        context.close();
    }

    fn ioctl(context: ArcBorrow<'_, Context>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        if ask(&context, cmd, arg)? {
            return Ok(0);
        }
        if _IOC_TYPE(cmd) != ioc::MAGIC || _IOC_NR(cmd) > LAST_IOC {
            return Err(ENOTTY);
        }
        let task = current!();
        let mm = context.check_mm(task)?;
        match cmd {
            ioc::MODE => context.mode(read!(Mode, arg), mm)?,
            ioc::REGISTER => context.register(read!(Range, arg), mm)?,
            ioc::UNREGISTER => context.unregister(read!(Range, arg))?,
            ioc::PREFETCH => {
                to_user(arg, &context.prefetch(read!(Prefetch, arg))?.to_bytes())?;
            }
            ioc::ORACLE => context.judge(read!(Oracle, arg))?,
            ioc::RUN => {
                let run = Context::run(&context.into(), read!(Run, arg))?;
                if let Err(error) = to_user(arg, &run.to_bytes()) {
                    // Nobody knows of it.
                    let unknown = abi::Stop {
                        run: run.run,
                        ..abi::Stop::ZERO
                    };
                    context.stop(&unknown)?;
                    return Err(error);
                }
            }
            ioc::ACCESS => {
                to_user(arg, &context.access_once(read!(Access, arg))?.to_bytes())?;
            }
            ioc::BIND => context.bind(read!(Bind, arg))?,
            ioc::UNBIND => context.unbind(read!(Bind, arg))?,
            ioc::SUBMIT => context.submit(),
            ioc::FAULTS if !capable(Capability::SysAdmin) => return Err(EPERM),
            ioc::FAULTS => context.shared.hardware.misbehave(read!(Faults, arg))?,
            // A known number with another size.
            _ => return Err(EINVAL),
        }
        Ok(0)
    }
}
