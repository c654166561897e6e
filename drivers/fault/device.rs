// SPDX-License-Identifier: GPL-2.0

//! `/dev/nullhz-fault`.

use crate::{
    abi::{self, ioc, seek, Event, Level, EVENT_SIZE},
    bus::{Bus, Heap},
    ffi,
    hub::{ack_is_valid, Fresh},
    ring::{Cursor, Filter, Found},
};
use kernel::{
    cred::{capable, Capability},
    fs::{
        fasync::{Band, FasyncQueue, FasyncRequest},
        File, Kiocb,
    },
    ioctl::{_IOC_NR, _IOC_TYPE},
    iov::IovIterDest,
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    prelude::*,
    sync::{
        new_mutex, new_spinlock,
        poll::{PollEvent, PollEvents, PollTable},
        Arc, ArcBorrow, Mutex, SpinLock,
    },
    task::Pid,
    uaccess::{UserPtr, UserSlice}, //
};

/// Where an open file is in the stream, and the record that it is about to deliver.
struct Place {
    cursor: Cursor<Heap>,
    event: Event,
}

/// An open file.
#[pin_data]
pub(crate) struct Reader {
    bus: Arc<Bus>,
    /// Held while user memory is written, which may take as long as its owner likes. So the bus
    /// thread never takes it.
    #[pin]
    place: Mutex<Place>,
    /// The cursor's filter, for the bus thread.
    #[pin]
    wants: SpinLock<Filter>,
    signals: FasyncQueue,
    pid: Pid,
}

/// What debugfs shows of a reader.
pub(crate) struct Progress {
    /// Its process, when it opened the file.
    pub(crate) pid: Pid,
    /// The next record that it looks at and what it has missed; [`None`] while it reads.
    pub(crate) place: Option<(u64, u64)>,
    /// What it wants.
    pub(crate) filter: Filter,
}

impl Reader {
    /// Sends the file's owner a signal if something of `fresh` is for him.
    pub(crate) fn signal(&self, fresh: &Fresh) {
        let filter = *self.wants.lock();
        if filter.at_least(Level::Imminent).passes_any(fresh) {
            self.signals.notify(Band::Pri);
        } else if filter.passes_any(fresh) {
            self.signals.notify(Band::In);
        }
    }

    /// For debugfs.
    pub(crate) fn progress(&self) -> Progress {
        let place = self.place.try_lock();
        Progress {
            pid: self.pid,
            place: place.map(|place| (place.cursor.next(), place.cursor.lost())),
            filter: *self.wants.lock(),
        }
    }

    /// Copies as many records to `iov` as there are and as fit; how many bytes.
    fn drain(&self, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let mut place = self.place.lock();
        let Place { cursor, event } = &mut *place;
        let mut copied = 0;
        while iov.len() >= EVENT_SIZE {
            match self.bus.with_hub(|hub| hub.find(cursor, event)) {
                Found::Record => {}
                Found::More => continue,
                Found::Nothing => break,
            }
            if iov.copy_to_iter(&event.to_bytes()) < EVENT_SIZE {
                return if copied == 0 { Err(EFAULT) } else { Ok(copied) };
            }
            cursor.consume(event);
            copied += EVENT_SIZE;
        }
        Ok(copied)
    }

    fn set_filter(&self, raw: &abi::Filter) -> Result {
        let filter = Filter::from_abi(raw).ok_or(EINVAL)?;
        let mut place = self.place.lock();
        self.bus
            .with_hub(|hub| hub.set_filter(&mut place.cursor, filter));
        *self.wants.lock() = filter;
        drop(place);
        // Somebody may wait for what passes only now.
        self.bus.announce(true);
        Ok(())
    }

    fn seek(&self, raw: &abi::Seek) -> Result {
        if raw.pad != 0 || (raw.whence != seek::SEQ && raw.seq != 0) {
            return Err(EINVAL);
        }
        let mut place = self.place.lock();
        let cursor = &mut place.cursor;
        match raw.whence {
            seek::OLDEST => self.bus.with_hub(|hub| hub.ring().seek_oldest(cursor)),
            seek::NEWEST => self.bus.with_hub(|hub| hub.ring().seek_newest(cursor)),
            seek::SEQ => {
                self.bus.with_hub(|hub| hub.ring().seek_oldest(cursor));
                while !self.bus.with_hub(|hub| hub.ring().seek_on(cursor, raw.seq)) {}
            }
            _ => return Err(EINVAL),
        }
        drop(place);
        self.bus.announce(true);
        Ok(())
    }

    fn ack(&self, raw: &abi::Ack) -> Result {
        if !ack_is_valid(raw) {
            return Err(EINVAL);
        }
        self.bus.ack(raw, current!().tgid() as u32)
    }

    fn incident(&self, id: u64) -> Result<abi::Incident> {
        let found = self.bus.with_hub(|hub| hub.incidents().get(id).copied());
        found.ok_or(ENOENT)
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
const LAST_IOC: u32 = _IOC_NR(ioc::INCIDENT);

#[vtable]
impl MiscDevice for Reader {
    type Ptr = Arc<Self>;
    type RegistrationData = Arc<Bus>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        let bus = misc.data().clone();
        let mut cursor = Cursor::new()?;
        bus.with_hub(|hub| hub.ring().seek_oldest(&mut cursor));
        let reader = Arc::pin_init(
            pin_init!(Self {
                place <- new_mutex!(
                    Place {
                        cursor,
                        event: Event::ZERO,
                    },
                    "nullhz_fault_place"
                ),
                wants <- new_spinlock!(Filter::ALL, "nullhz_fault_wants"),
                signals: FasyncQueue::new(),
                pid: current!().tgid(),
                bus,
            }),
            GFP_KERNEL,
        )?;
        reader.bus.attach(&reader)?;
        Ok(reader)
    }

    fn release(reader: Arc<Self>, _file: &File) {
        reader.bus.detach(&reader);
    }

    fn read_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        if iov.len() < EVENT_SIZE {
            return Err(EINVAL);
        }
        let reader = kiocb.file();
        loop {
            let seen = reader.bus.news();
            let copied = reader.drain(iov)?;
            if copied != 0 {
                return Ok(copied);
            }
            if ffi::nowait(&kiocb) {
                return Err(EAGAIN);
            }
            reader.bus.wait(seen)?;
        }
    }

    fn poll(reader: ArcBorrow<'_, Self>, file: &File, table: &PollTable<'_>) -> PollEvents {
        table.register_wait(file, &reader.bus.readable);
        let mut place = reader.place.lock();
        let ready = reader.bus.with_hub(|hub| hub.ready(&mut place.cursor));
        let mut events = PollEvents::default();
        if ready.any {
            events |= PollEvent::In | PollEvent::RdNorm;
        }
        if ready.urgent {
            events |= PollEvent::Pri;
        }
        events
    }

    fn fasync(reader: ArcBorrow<'_, Self>, _file: &File, request: FasyncRequest<'_>) -> Result {
        request.apply(&reader.signals)
    }

    fn ioctl(reader: ArcBorrow<'_, Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        match cmd {
            ioc::INFO => to_user(arg, &reader.bus.info().to_bytes())?,
            ioc::FILTER => reader.set_filter(&abi::Filter::from_bytes(&from_user(arg)?))?,
            ioc::SEEK => reader.seek(&abi::Seek::from_bytes(&from_user(arg)?))?,
            ioc::ACK if !capable(Capability::SysAdmin) => return Err(EPERM),
            ioc::ACK => reader.ack(&abi::Ack::from_bytes(&from_user(arg)?))?,
            ioc::INCIDENT => {
                let wanted = abi::Incident::from_bytes(&from_user(arg)?);
                to_user(arg, &reader.incident(wanted.incident)?.to_bytes())?;
            }
            _ if _IOC_TYPE(cmd) == ioc::MAGIC && _IOC_NR(cmd) <= LAST_IOC => return Err(EINVAL),
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}
