# SPDX-License-Identifier: GPL-2.0
"""The fault bus, /dev/nullhz-fault, from Python: <nullhz/fault.h> in ctypes.

The same file decodes records on the host and, copied into a node, reads the
device there:

    bus.py read [--min-level N] [--sources MASK] [--newest] [--count N] [--batch N]
                [--pause S] [--idle S]
        one line of JSON per record; ends after N records, or S seconds without any
    bus.py info | incident N | ack N SNAPSHOT [RESULT]

scripts/check-uapi compares the header with the kernel's side; the sizes are
asserted here as well.
"""

import argparse
import ctypes
import fcntl
import json
import os
import select
import sys
import time
import uuid

DEVICE = "/dev/nullhz-fault"
EVENT_SIZE = 256

WATCH, DEGRADING, IMMINENT, FATAL = range(4)
LEVELS = ("WATCH", "DEGRADING", "IMMINENT", "FATAL")

F_BOOT, F_PREVIOUS_BOOT, F_OPENED, F_SUMMARY, F_INJECTED, F_REPLAYED = (1 << bit for bit in range(6))

SRC_BUS, SRC_MCE, SRC_STALL, SRC_PCIE_AER = range(4)
SRC_PRIVATE = 32

BUS_ACKED, BUS_EXPIRED, BUS_STORM, BUS_LAST_WORDS = range(1, 5)

(
    MCE_INVALID,
    MCE_CORRECTED,
    MCE_DEFERRED,
    MCE_ACTION_OPTIONAL,
    MCE_ACTION_REQUIRED,
    MCE_FATAL,
    MCE_HIDDEN_UC,
) = range(7)

AER_CORRECTABLE, AER_NONFATAL, AER_FATAL = range(1, 4)

R_GRADE, R_PAGE, R_DIMM, R_BANK, R_SOCKET, R_STORM = (1 << bit for bit in range(6))

# <nullhz/stall.h>: kinds, culprits, evidence, why a reset is held, rungs, phases
(
    EV_SUSPECT,
    EV_STALLED,
    EV_NO_ACK,
    EV_PREBITE,
    EV_RECOVERED,
    EV_REGISTERED,
    EV_LEFT,
    EV_CRASHED,
    EV_HELD,
    EV_RESET,
    EV_BAD_PAGE,
    EV_LATE_SAMPLER,
) = range(1, 13)
C_UNKNOWN, C_SPINNING, C_SLEEPING, C_DISK, C_STOPPED, C_FROZEN, C_EXITED = range(7)
E_PHASE, E_DISK, E_HOUSEKEEPING, E_AGENT = (1 << bit for bit in range(4))
H_NOT, H_DISARMED, H_BUDGET, H_NO_EVIDENCE = range(4)
FEEDER = 0xFFFFFFFF
OK, SUSPECT, STALLED, NO_ACK, PREBITE = range(5)
INIT, STEP, COMM_WAIT, CHECKPOINT, EVAL = range(5)

SEEK_OLDEST, SEEK_NEWEST, SEEK_SEQ = range(3)

INCIDENT_OPEN, INCIDENT_ACKED, INCIDENT_EXPIRED = range(1, 4)

u8, u16, u32, u64, s32 = (
    ctypes.c_uint8,
    ctypes.c_uint16,
    ctypes.c_uint32,
    ctypes.c_uint64,
    ctypes.c_int32,
)


class Record(ctypes.Structure):
    """Fields by name, and as a dictionary."""

    def as_dict(self):
        fields = {}
        for name, _ in self._fields_:
            if name == "pad":
                continue
            value = getattr(self, name)
            if isinstance(value, ctypes.Array):
                value = bytes(value).hex()
            fields[name] = value
        return fields


class Bus(Record):
    """Payload of SRC_BUS."""

    _fields_ = [
        ("incident", u64),
        ("snapshot_id", u64),
        ("age_ns", u64),
        ("result", s32),
        ("joined", u32),
        ("source", u32),
        ("acker", u32),
    ]


class Mce(Record):
    """Payload of SRC_MCE."""

    _fields_ = [
        *((name, u64) for name in "status addr misc mcgstatus ip synd ipid synd1 synd2".split()),
        *((name, u64) for name in "mcgcap ppin tsc".split()),
        *((name, u32) for name in "cpuid apicid socketid microcode".split()),
        *((name, u8) for name in "cpuvendor bank cs kernel_severity".split()),
        *((name, u32) for name in "reason page_count dimm_count bank_count socket_count".split()),
        ("smca_type", u32),
        ("pad", u32),
    ]


class Stall(Record):
    """Payload of SRC_STALL."""

    _fields_ = [
        *((name, u64) for name in "step progress age_ns deadline_ns incident".split()),
        *((name, u32) for name in "rank phase state culprit evidence held".split()),
        ("pid", s32),
        ("tid", s32),
        *((name, u32) for name in "ranks stalled resets timeout_ms".split()),
        # As an array of numbers: one of characters would end at the first NUL.
        ("name", u8 * 32),
        ("comm", u8 * 16),
    ]

    def as_dict(self):
        texts = {name: bytes(getattr(self, name)).split(b"\0")[0] for name in ("name", "comm")}
        return {
            **super().as_dict(),
            **{name: text.decode("ascii", "replace") for name, text in texts.items()},
        }


class Aer(Record):
    """Payload of SRC_PCIE_AER."""

    _fields_ = [
        ("status", u32),
        ("advisory", u32),
        ("tlp", u32 * 4),
        ("corrected", u32),
        ("domain", u32),
        ("vendor", u16),
        ("device", u16),
        *((name, u8) for name in "bus devfn has_tlp pad".split()),
    ]

    def as_dict(self):
        return {**super().as_dict(), "tlp": list(self.tlp)}


PAYLOADS = {
    SRC_BUS: ("bus", Bus),
    SRC_MCE: ("mce", Mce),
    SRC_STALL: ("stall", Stall),
    SRC_PCIE_AER: ("aer", Aer),
}


def boot_id(record):
    """As everybody writes it, so that those of records and of IOC_INFO compare."""
    return str(uuid.UUID(bytes=bytes(record.boot_id)))


class Event(Record):
    """A record as read() gives it."""

    _fields_ = [
        ("size", u32),
        ("version", u16),
        ("level", u8),
        ("flags", u8),
        ("seq", u64),
        ("mono_ns", u64),
        ("real_ns", u64),
        ("boot_id", u8 * 16),
        ("source", u16),
        ("kind", u16),
        ("count", u32),
        ("cpu", s32),
        ("node", s32),
        ("incident", u64),
        ("lost", u64),
        ("payload_len", u32),
        ("pad", u32),
        ("payload", u8 * 168),
    ]

    def as_dict(self):
        fields = super().as_dict()
        fields["boot_id"] = boot_id(self)
        fields["payload"] = bytes(self.payload)[: self.payload_len].hex()
        name, payload = PAYLOADS.get(self.source, (None, None))
        if payload and self.payload_len >= ctypes.sizeof(payload):
            fields[name] = payload.from_buffer_copy(bytes(self.payload)).as_dict()
        return fields


class Info(Record):
    """Answer of IOC_INFO."""

    _fields_ = [
        ("abi_version", u32),
        ("event_size", u32),
        ("ring_events", u32),
        ("open_incidents", u32),
        ("head_seq", u64),
        ("sources", u64),
        ("last_incident", u64),
        ("last_snapshot_id", u64),
        ("boot_id", u8 * 16),
    ]

    def as_dict(self):
        return {**super().as_dict(), "boot_id": boot_id(self)}


class Filter(Record):
    """Argument of IOC_FILTER."""

    _fields_ = [("min_level", u32), ("pad", u32), ("source_mask", u64)]


class Seek(Record):
    """Argument of IOC_SEEK."""

    _fields_ = [("whence", u32), ("pad", u32), ("seq", u64)]


class Ack(Record):
    """Argument of IOC_ACK."""

    _fields_ = [("incident", u64), ("snapshot_id", u64), ("result", s32), ("pad", u32)]


class Incident(Record):
    """Argument and answer of IOC_INCIDENT."""

    _fields_ = [
        *((name, u64) for name in "incident opened_ns deadline_ns acked_ns snapshot_id".split()),
        *((name, u64) for name in "first_seq joined".split()),
        ("result", s32),
        *((name, u32) for name in "state source late".split()),
    ]


def command(direction, number, record):
    """The number of an ioctl command: 1 writes to the device, 2 reads."""
    return direction << 30 | ctypes.sizeof(record) << 16 | 0xF1 << 8 | number


IOC_INFO = command(2, 0, Info)
IOC_FILTER = command(1, 1, Filter)
IOC_SEEK = command(1, 2, Seek)
IOC_ACK = command(1, 3, Ack)
IOC_INCIDENT = command(3, 4, Incident)

assert ctypes.sizeof(Event) == EVENT_SIZE
assert ctypes.sizeof(Mce) == 144 and ctypes.sizeof(Bus) == 40 and ctypes.sizeof(Stall) == 136
assert ctypes.sizeof(Aer) == 40
assert ctypes.sizeof(Info) == 64 and ctypes.sizeof(Incident) == 72


class Device:
    """The device, open."""

    def __init__(self, path=DEVICE):
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def info(self):
        info = Info()
        fcntl.ioctl(self.fd, IOC_INFO, info)
        return info

    def filter(self, min_level=WATCH, source_mask=(1 << 64) - 1):
        fcntl.ioctl(self.fd, IOC_FILTER, Filter(min_level=min_level, source_mask=source_mask))

    def seek(self, whence, seq=0):
        fcntl.ioctl(self.fd, IOC_SEEK, Seek(whence=whence, seq=seq))

    def ack(self, incident, snapshot_id, result=0):
        fcntl.ioctl(self.fd, IOC_ACK, Ack(incident=incident, snapshot_id=snapshot_id, result=result))

    def incident(self, number):
        incident = Incident(incident=number)
        fcntl.ioctl(self.fd, IOC_INCIDENT, incident)
        return incident

    def read(self, batch=64):
        """The next records, at most `batch`; none when there are none now."""
        try:
            data = os.read(self.fd, batch * EVENT_SIZE)
        except BlockingIOError:
            return []
        return [Event.from_buffer_copy(data, at) for at in range(0, len(data), EVENT_SIZE)]

    def wait(self, seconds=None):
        """Whether there is something to read, at the latest after `seconds`."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))


def read(arguments):
    """Prints records until there is a reason to end."""
    device = Device()
    device.filter(arguments.min_level, arguments.sources)
    if arguments.newest:
        device.seek(SEEK_NEWEST)
    print(json.dumps({"ready": time.monotonic_ns()}), flush=True)
    left = arguments.count
    while left and device.wait(arguments.idle):
        awake_ns = time.monotonic_ns()
        events = device.read(min(arguments.batch, left))
        left -= len(events)
        for event in events:
            print(json.dumps({**event.as_dict(), "awake_ns": awake_ns}))
        sys.stdout.flush()
        time.sleep(arguments.pause)


def main():
    number = lambda text: int(text, 0)  # noqa: E731
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    reader = commands.add_parser("read")
    reader.add_argument("--min-level", type=number, default=WATCH)
    reader.add_argument("--sources", type=number, default=(1 << 64) - 1)
    reader.add_argument("--newest", action="store_true")
    reader.add_argument("--count", type=number, default=1 << 62)
    reader.add_argument("--batch", type=number, default=64)
    reader.add_argument("--pause", type=float, default=0)
    reader.add_argument("--idle", type=float)
    commands.add_parser("info")
    commands.add_parser("incident").add_argument("incident", type=number)
    ack = commands.add_parser("ack")
    ack.add_argument("incident", type=number)
    ack.add_argument("snapshot", type=number)
    ack.add_argument("result", type=number, nargs="?", default=0)
    arguments = parser.parse_args()
    if arguments.command == "read":
        read(arguments)
    elif arguments.command == "info":
        print(json.dumps(Device().info().as_dict()))
    elif arguments.command == "incident":
        print(json.dumps(Device().incident(arguments.incident).as_dict()))
    else:
        Device().ack(arguments.incident, arguments.snapshot, arguments.result)


if __name__ == "__main__":
    main()
