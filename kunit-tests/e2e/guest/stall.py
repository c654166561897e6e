# SPDX-License-Identifier: GPL-2.0
"""The stall watchdog, /dev/nullhz-stall, from Python: <nullhz/stall.h> in ctypes.

    stall.py info | ranks | checkpoint | answers REQUEST

Prints what the device answers as JSON.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import sys

from bus import Record, s32, u8, u32, u64

DEVICE = "/dev/nullhz-stall"
PAGE_SIZE = 4096
PHASES = 5


class Info(Record):
    _fields_ = [
        (name, u32)
        for name in "abi_version page_size max_ranks ranks period_ms max_grace_ms armed resets".split()
    ]


class Register(Record):
    _fields_ = [
        ("rank", u32),
        ("flags", u32),
        ("name", ctypes.c_char * 32),
        ("deadline_ms", u32 * PHASES),
        ("floor_ms", u32),
        ("warmup", u32),
        ("pad", u32),
    ]


class Grace(Record):
    _fields_ = [("ms", u32), ("pad", u32)]


class Checkpoint(Record):
    _fields_ = [(name, u32) for name in "request asked answered gone".split()]


class Rank(Record):
    _fields_ = [
        ("index", u32),
        ("rank", u32),
        ("name", u8 * 32),
        ("pid", s32),
        ("tid", s32),
        ("state", u32),
        ("phase", u32),
        *((name, u64) for name in "step progress age_ns deadline_ns grace_ns steps_seen".split()),
        ("stalls", u32),
        ("checkpoint_ack", u32),
    ]


class Page(ctypes.Structure):
    _fields_ = [
        ("step", u64),
        ("progress", u64),
        ("phase", u32),
        ("checkpoint_ack", u32),
        ("trainer_reserved", u64 * 5),
        ("checkpoint_request", u32),
        ("state", u32),
        ("incident", u64),
        ("deadline_ns", u64),
        ("sampled_ns", u64),
        ("kernel_reserved", u64 * 4),
    ]


def command(direction, number, record=None):
    """The number of an ioctl command: 1 writes to the device, 2 reads."""
    size = ctypes.sizeof(record) if record else 0
    return direction << 30 | size << 16 | 0xF2 << 8 | number


IOC_INFO = command(2, 0, Info)
IOC_REGISTER = command(1, 1, Register)
IOC_GRACE = command(1, 2, Grace)
IOC_LEAVE = command(0, 3)
IOC_CHECKPOINT = command(2, 4, Checkpoint)
IOC_ANSWERS = command(3, 5, Checkpoint)
IOC_RANK = command(3, 6, Rank)

assert ctypes.sizeof(Register) == 72 and ctypes.sizeof(Rank) == 112 and ctypes.sizeof(Page) == 128


class Device:
    """The device, open; a rank after register()."""

    def __init__(self):
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)

    def info(self):
        info = Info()
        fcntl.ioctl(self.fd, IOC_INFO, info)
        return info

    def register(self, rank, name=b"test", **options):
        deadlines = (u32 * PHASES)(*options.pop("deadline_ms", ()))
        fcntl.ioctl(self.fd, IOC_REGISTER, Register(rank=rank, name=name, deadline_ms=deadlines, **options))

    def map(self):
        """The page; close the mapping (`.buffer`) only after the last use of it."""
        buffer = mmap.mmap(self.fd, PAGE_SIZE)
        page = Page.from_buffer(buffer)
        page.buffer = buffer
        return page

    def leave(self):
        fcntl.ioctl(self.fd, IOC_LEAVE)

    def checkpoint(self):
        checkpoint = Checkpoint()
        fcntl.ioctl(self.fd, IOC_CHECKPOINT, checkpoint)
        return checkpoint

    def answers(self, request):
        checkpoint = Checkpoint(request=request)
        fcntl.ioctl(self.fd, IOC_ANSWERS, checkpoint)
        return checkpoint

    def ranks(self):
        """All registered ranks."""
        index, found = 0, []
        while True:
            rank = Rank(index=index)
            try:
                fcntl.ioctl(self.fd, IOC_RANK, rank)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return found
            found.append(rank)
            index += 1


def main():
    device = Device()
    what, *arguments = sys.argv[1:]
    if what == "ranks":
        name = lambda rank: bytes(rank.name).split(b"\0")[0].decode()  # noqa: E731
        answer = [{**rank.as_dict(), "name": name(rank)} for rank in device.ranks()]
    else:
        answer = getattr(device, what)(*map(int, arguments)).as_dict()
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
