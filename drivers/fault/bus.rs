// SPDX-License-Identifier: GPL-2.0

//! The bus at run time: what sources call, and the thread that tells the readers.
//!
//! A report is put on the ring under a raw spinlock, and wakes the bus thread; that is all that
//! happens in the source's context. The thread does what sleeps on PREEMPT_RT or takes long: it
//! wakes readers, sends signals, expires incidents, sums up storms and starts the helper.

use crate::{
    abi::{self, source, Ack, Incident, Level},
    device::Reader,
    ffi,
    hub::{Fresh, Hub, Tick},
    incident::{Refusal, Times},
    persist::LastWords,
    privilege,
    report::Report,
    ring::Storage,
    stores::Stores,
};
use core::mem::swap;
use kernel::{
    alloc::AllocError,
    kthread::{Handler, Next, Waker},
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        new_mutex,
        poll::{new_poll_condvar, PollCondVar, PollEvent},
        raw::{new_raw_spinlock, RawSpinLock},
        Arc, Mutex, SetOnce,
    },
    time::Delta,
    umh, //
};

/// Arrays on the kernel's heap.
pub(crate) struct Heap;

impl Storage for Heap {
    type Of<T> = KVVec<T>;
    type Error = AllocError;

    fn filled<T: Copy>(value: T, len: usize) -> Result<KVVec<T>, AllocError> {
        KVVec::from_elem(value, len, GFP_KERNEL)
    }
}

/// Open files, but for those of who has CAP_SYS_ADMIN: each costs the bus's thread, which is
/// FIFO, some time, and memory that no cgroup is charged for.
const MAX_READERS: usize = 1024;

/// What the bus needs to know in NMI context, where the hub's lock must not be taken.
struct LastState {
    incident: Atomic<u64>,
    snapshot: Atomic<u64>,
    number: Atomic<u64>,
}

/// The bus.
#[pin_data]
pub(crate) struct Bus {
    #[pin]
    hub: RawSpinLock<Hub<Heap>>,
    boot_id: [u8; 16],
    /// How often there were news. Changed before `readable` is notified: who has seen the count,
    /// found nothing to read and finds the count unchanged can sleep without missing anything.
    #[pin]
    news: Mutex<u64>,
    #[pin]
    pub(crate) readable: PollCondVar,
    /// The open files.
    #[pin]
    readers: Mutex<KVec<Arc<Reader>>>,
    /// The registered sources.
    #[pin]
    sources: Mutex<KVec<(u16, CString)>>,
    pub(crate) stores: Stores,
    /// The program to be started when an incident opens and nobody has the device open.
    #[pin]
    pub(crate) helper: Mutex<Option<CString>>,
    last: LastState,
    /// The newest incident that the bus thread knows of.
    seen: Atomic<u64>,
    waker: SetOnce<Waker>,
}

impl Bus {
    /// A bus whose ring has room for `1 << order` records, and those of a previous boot, which stay
    /// in the stores as well. It has no thread yet.
    pub(crate) fn new(order: u32) -> Result<impl PinInit<Self>> {
        let boot_id = ffi::make_boot_id();
        let mut hub = Hub::new(order, boot_id, Times::DEFAULT)?;
        let stores = Stores::find();
        for words in stores.read()? {
            let event = &words.event;
            pr_warn!(
                "the previous boot died of source={} kind={} cpu={} incident={} snapshot={}\n",
                event.source,
                event.kind,
                event.cpu,
                words.incident,
                words.snapshot_id
            );
            hub.restore(&words);
        }
        Ok(pin_init!(Self {
            hub <- new_raw_spinlock!(hub, "nullhz_fault_hub"),
            boot_id,
            news <- new_mutex!(0, "nullhz_fault_news"),
            readable <- new_poll_condvar!("nullhz_fault_readable"),
            readers <- new_mutex!(KVec::new(), "nullhz_fault_readers"),
            sources <- new_mutex!(KVec::new(), "nullhz_fault_sources"),
            stores,
            helper <- new_mutex!(None, "nullhz_fault_helper"),
            last: LastState {
                incident: Atomic::new(0),
                snapshot: Atomic::new(0),
                number: Atomic::new(0),
            },
            seen: Atomic::new(0),
            waker: SetOnce::new(),
        }))
    }

    /// Names the thread to be woken.
    pub(crate) fn set_waker(&self, waker: Waker) {
        self.waker.populate(waker);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.as_ref() {
            waker.wake();
        }
    }

    /// Calls `f` with the hub locked: raw spinlock, interrupts off.
    pub(crate) fn with_hub<R>(&self, f: impl FnOnce(&mut Hub<Heap>) -> R) -> R {
        self.hub.with(f)
    }

    /// Puts a fault on the ring, and tells its incident, 0: none. Any context but NMI.
    fn report(&self, source: u16, report: &Report<'_>) -> Result<u64> {
        let now = ffi::now();
        let mut event = report.event(source, self.boot_id, now).ok_or(EINVAL)?;
        let (outcome, opened) = self.hub.with(|hub| {
            let outcome = hub.report(&mut event, now);
            let opened = outcome.opened.and_then(|id| hub.incidents().get(id));
            if let Some(incident) = opened {
                self.last.incident.store(incident.incident, Relaxed);
            }
            (outcome, opened.copied())
        });
        ffi::trace_event(&event);
        if let Some(incident) = opened {
            ffi::trace_incident(&incident);
        }
        if outcome.wake {
            self.wake();
        }
        Ok(event.incident)
    }

    /// Keeps a fault for the next boot. Any context, also on several CPUs at once: the stores need
    /// no exclusion, or have a lock of their own that they only try.
    fn persist(&self, source: u16, report: &Report<'_>) -> Result {
        let report = Report {
            level: Level::Fatal,
            ..*report
        };
        let event = report
            .event(source, self.boot_id, ffi::now())
            .ok_or(EINVAL)?;
        let words = LastWords {
            number: self.last.number.fetch_add(1, Relaxed).wrapping_add(1),
            incident: self.last.incident.load(Relaxed),
            snapshot_id: self.last.snapshot.load(Relaxed),
            event,
        };
        let result = self.stores.write(&words);
        // For kdump and pstore, which keep the log: `key=value` after a fixed prefix. Last, as it
        // takes longest and is needed least; printk() itself is safe in NMI context.
        pr_emerg!(
            "fatal source={} kind={} cpu={} node={} incident={} snapshot={}\n",
            event.source,
            event.kind,
            event.cpu,
            event.node,
            words.incident,
            words.snapshot_id
        );
        result
    }

    /// Takes back what `source` has kept for the next boot so far. Process context.
    fn withdraw(&self, source: u16) -> Result {
        let last = self.last.number.load(Relaxed);
        self.stores.remove(&|words: &LastWords| {
            words.event.source == source
                && words.event.boot_id == self.boot_id
                && words.number <= last
        })
    }

    /// Acknowledges an incident on behalf of process `acker`.
    pub(crate) fn ack(&self, ack: &Ack, acker: u32) -> Result {
        let now = ffi::now();
        let incident = self.hub.with(|hub| {
            let incident = hub.ack(ack, acker, now);
            let snapshot = hub.incidents().last_snapshot();
            self.last.snapshot.store(snapshot, Relaxed);
            incident
        });
        let incident = incident.map_err(|refusal| match refusal {
            Refusal::Unknown => ENOENT,
            Refusal::Already => EALREADY,
        })?;
        ffi::trace_incident(&incident);
        self.wake();
        Ok(())
    }

    /// The count of news, to be taken before looking for something to read.
    pub(crate) fn news(&self) -> u64 {
        *self.news.lock()
    }

    /// Waits until there have been news since `seen`. [`ERESTARTSYS`] when a signal is pending.
    pub(crate) fn wait(&self, seen: u64) -> Result {
        let mut news = self.news.lock();
        while *news == seen {
            if self.readable.wait_interruptible(&mut news) {
                return Err(ERESTARTSYS);
            }
        }
        Ok(())
    }

    /// Makes all who wait for something to read look again.
    pub(crate) fn announce(&self, urgent: bool) {
        let mut news = self.news.lock();
        *news = news.wrapping_add(1);
        drop(news);
        let mut events = PollEvent::In | PollEvent::RdNorm;
        if urgent {
            events |= PollEvent::Pri;
        }
        self.readable.notify_poll(events);
    }

    fn tell(&self, fresh: &Fresh) {
        let urgent = fresh.iter().skip(Level::Imminent as usize);
        self.announce(urgent.fold(0, |all, sources| all | sources) != 0);
        for reader in self.readers.lock().iter() {
            reader.signal(fresh);
        }
    }

    /// Starts the helper for incidents that nobody else can hear of.
    fn help(&self) {
        let last = self.last.incident.load(Relaxed);
        let seen = self.seen.load(Relaxed);
        self.seen.store(last, Relaxed);
        if seen == last || !self.readers.lock().is_empty() {
            return;
        }
        if let Some(path) = &*self.helper.lock() {
            for id in seen.saturating_add(1)..=last {
                let incident = self.hub.with(|hub| hub.incidents().get(id).copied());
                let started = incident.map_or(Ok(()), |incident| start(path, &incident));
                if let Err(error) = started {
                    pr_warn!("incident {id}: the helper cannot be started: {error:?}\n");
                }
            }
        }
    }

    /// Adds an open file. [`ENFILE`]: there are [`MAX_READERS`], and the caller is not privileged.
    ///
    /// The bus thread takes the same lock, and must not wait for memory: so none is allocated
    /// while it is held.
    pub(crate) fn attach(&self, reader: &Arc<Reader>) -> Result {
        let mut new = KVec::new();
        loop {
            let mut readers = self.readers.lock();
            if readers.len() >= MAX_READERS && privilege::check().is_err() {
                return Err(ENFILE);
            }
            if new.capacity() > readers.capacity() {
                for reader in readers.drain_all() {
                    new.push_within_capacity(reader).map_err(|_| ENOMEM)?;
                }
                swap(&mut *readers, &mut new);
            }
            if readers.push_within_capacity(reader.clone()).is_ok() {
                return Ok(());
            }
            let room = 2 * readers.capacity() + 8;
            drop(readers);
            new = KVec::with_capacity(room, GFP_KERNEL)?;
        }
    }

    /// Removes an open file.
    pub(crate) fn detach(&self, reader: &Arc<Reader>) {
        self.readers
            .lock()
            .retain(|other| !Arc::ptr_eq(other, reader));
    }

    /// Calls `f` for each open file, until it fails.
    pub(crate) fn try_for_each_reader<E>(
        &self,
        f: impl FnMut(&Arc<Reader>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.readers.lock().iter().try_for_each(f)
    }

    /// Calls `f` with id and name of each registered source, until it fails.
    pub(crate) fn for_each_source(&self, mut f: impl FnMut(u16, &CStr) -> Result) -> Result {
        let sources = self.sources.lock();
        sources.iter().try_for_each(|(id, name)| f(*id, name))
    }

    /// The registered sources as a mask.
    fn source_mask(&self) -> u64 {
        let sources = self.sources.lock();
        sources.iter().fold(0, |mask, (id, _)| mask | 1 << id)
    }

    /// What the INFO ioctl says.
    pub(crate) fn info(&self) -> abi::Info {
        let sources = self.source_mask();
        self.hub.with(|hub| abi::Info {
            abi_version: abi::ABI_VERSION.into(),
            event_size: abi::EVENT_SIZE as u32,
            ring_events: hub.ring().capacity() as u32,
            open_incidents: hub.incidents().unacked(),
            head_seq: hub.ring().head(),
            sources,
            last_incident: hub.incidents().last(),
            last_snapshot_id: hub.incidents().last_snapshot(),
            boot_id: hub.boot_id(),
        })
    }
}

/// Runs `path` with the numbers of the incident and of its source.
fn start(path: &CStr, incident: &Incident) -> Result {
    let id = CString::try_from_fmt(fmt!("{}", incident.incident))?;
    let source = CString::try_from_fmt(fmt!("{}", incident.source))?;
    let env = [c"HOME=/", c"PATH=/sbin:/usr/sbin:/bin:/usr/bin"];
    umh::call_no_wait(path, &[&id, &source], &env)
}

impl Handler for Bus {
    fn run(&self) -> Next {
        let now = ffi::now();
        let (due, fresh) = loop {
            match self.hub.with(|hub| hub.tick(now)) {
                Tick::Expired(incident) => ffi::trace_incident(&incident),
                Tick::Summed => {}
                Tick::Idle { due, fresh } => break (due, fresh),
            }
        };
        if fresh.iter().any(|sources| *sources != 0) {
            self.tell(&fresh);
        }
        self.help();
        match due.map(|due| due.saturating_sub(now.mono)) {
            Some(ns) => Next::After(Delta::from_nanos(i64::try_from(ns).unwrap_or(i64::MAX))),
            None => Next::UntilWoken,
        }
    }
}

/// A registered source.
pub(crate) struct Source {
    bus: Arc<Bus>,
    id: u16,
}

/// Longest name of a source, in bytes.
const NAME_MAX: usize = 31;

impl Source {
    /// Registers source `id`.
    pub(crate) fn register(bus: Arc<Bus>, id: u16, name: &CStr) -> Result<Self> {
        let bytes = name.to_bytes();
        let printable = bytes.iter().all(|byte| byte.is_ascii_graphic());
        if id == source::BUS || id > source::MAX {
            pr_warn!("source {id} is none of 1 to {}\n", source::MAX);
            return Err(EINVAL);
        }
        if bytes.is_empty() || bytes.len() > NAME_MAX || !printable {
            pr_warn!("source {id}: a name is 1 to {NAME_MAX} printable ASCII characters\n");
            return Err(EINVAL);
        }
        let name = CString::try_from(name)?;
        let mut sources = bus.sources.lock();
        if let Some((_, other)) = sources.iter().find(|(other, _)| *other == id) {
            pr_warn!("source {id} is {} already\n", &**other);
            return Err(EBUSY);
        }
        sources.push((id, name), GFP_KERNEL)?;
        drop(sources);
        Ok(Self { bus, id })
    }

    /// `nullhz_fault_report_incident()`.
    pub(crate) fn report(&self, report: &Report<'_>) -> Result<u64> {
        self.bus.report(self.id, report)
    }

    /// `nullhz_fault_incident_get()`.
    pub(crate) fn incident(&self, id: u64) -> Option<Incident> {
        self.bus.with_hub(|hub| hub.incidents().get(id).copied())
    }

    /// `nullhz_fault_acknowledged()`.
    pub(crate) fn acknowledged(&self) -> bool {
        self.bus.with_hub(|hub| hub.incidents().acknowledged())
    }

    /// `nullhz_fault_persist()`.
    pub(crate) fn persist(&self, report: &Report<'_>) -> Result {
        self.bus.persist(self.id, report)
    }

    /// `nullhz_fault_withdraw()`.
    pub(crate) fn withdraw(&self) -> Result {
        self.bus.withdraw(self.id)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut sources = self.bus.sources.lock();
        sources.retain(|(other, _)| *other != self.id);
    }
}
