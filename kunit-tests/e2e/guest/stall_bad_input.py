# SPDX-License-Identifier: GPL-2.0
"""Everything that a program can get wrong with the stall watchdog; runs in the node.

Prints one JSON object: for each mistake, what it got (see mistakes.py).
"""

import ctypes
import json
import mmap
import os

import stall
from mistakes import attempt, each_command, ioctl, raw_read, results, unknown_commands

MAX = 0xFFFFFFFF
COMMANDS = {
    "info": (stall.IOC_INFO, stall.Info()),
    "register": (stall.IOC_REGISTER, stall.Register(rank=1, name=b"x")),
    "grace": (stall.IOC_GRACE, stall.Grace(ms=1)),
    "checkpoint": (stall.IOC_CHECKPOINT, stall.Checkpoint()),
    "answers": (stall.IOC_ANSWERS, stall.Checkpoint(request=1)),
    "rank": (stall.IOC_RANK, stall.Rank()),
}


def registrations():
    """Each by a file of its own, which is closed."""
    u32x5 = ctypes.c_uint32 * stall.PHASES
    for name, fields in (
        ("promise", {"flags": 1}),
        ("flags", {"flags": 2}),
        ("flags max", {"flags": MAX}),
        ("no name", {"name": b""}),
        ("endless name", {"name": b"x" * 32}),
        ("longest name", {"name": b"x" * 31}),
        ("newline in the name", {"name": b"a\nb"}),
        ("UTF-8 in the name", {"name": "gro\u00df".encode()}),
        ("control in the name", {"name": b"a\x1b[0m"}),
        ("pad", {"pad": 1}),
        ("rank max", {"rank": MAX}),
        ("deadline max", {"deadline_ms": u32x5(0, MAX)}),
        ("floor max", {"floor_ms": MAX}),
        ("warmup max", {"warmup": MAX}),
    ):
        device = stall.Device()
        record = stall.Register(**{"rank": 7, "name": b"x", **fields})
        attempt(f"register {name}", ioctl, device.fd, stall.IOC_REGISTER, ctypes.addressof(record))
        os.close(device.fd)
    # What follows the name's end is no part of it.
    record = stall.Register(rank=7, name=b"x")
    ctypes.memset(ctypes.addressof(record) + stall.Register.name.offset + 2, 0x41, 29)
    device = stall.Device()
    attempt("register text after the name", ioctl, device.fd, stall.IOC_REGISTER, ctypes.addressof(record))
    os.close(device.fd)


def states():
    """What depends on what was done before."""
    device, other = stall.Device(), stall.Device()

    def call(name, fd, command, record=None):
        attempt(name, ioctl, fd, command, ctypes.addressof(record) if record else 0)

    call("grace of no rank", device.fd, stall.IOC_GRACE, stall.Grace(ms=1))
    call("leave of no rank", device.fd, stall.IOC_LEAVE)
    attempt("map no rank", mmap.mmap, device.fd, 4096)
    device.register(3)
    call("register twice", device.fd, stall.IOC_REGISTER, stall.Register(rank=4, name=b"x"))
    taken = stall.Register(rank=3, name=b"test")
    call("register a rank that is taken", other.fd, stall.IOC_REGISTER, taken)
    another = stall.Device()
    call("the same rank of another job", another.fd, stall.IOC_REGISTER, stall.Register(rank=3, name=b"y"))
    call("it leaves", another.fd, stall.IOC_LEAVE)
    longest = device.info().max_grace_ms
    call("grace longest", device.fd, stall.IOC_GRACE, stall.Grace(ms=longest))
    call("grace too long", device.fd, stall.IOC_GRACE, stall.Grace(ms=longest + 1))
    call("grace end", device.fd, stall.IOC_GRACE, stall.Grace(ms=0))
    call("grace pad", device.fd, stall.IOC_GRACE, stall.Grace(ms=1, pad=1))
    call("answers never asked", device.fd, stall.IOC_ANSWERS, stall.Checkpoint(request=MAX))
    call("answers 0", device.fd, stall.IOC_ANSWERS, stall.Checkpoint(request=0))
    call("rank 0", device.fd, stall.IOC_RANK, stall.Rank(index=0))
    call("rank beyond", device.fd, stall.IOC_RANK, stall.Rank(index=1))
    call("rank max", device.fd, stall.IOC_RANK, stall.Rank(index=MAX))
    call("leave", device.fd, stall.IOC_LEAVE)
    call("leave twice", device.fd, stall.IOC_LEAVE)
    call("rank is free again", other.fd, stall.IOC_REGISTER, taken)
    call("other leaves", other.fd, stall.IOC_LEAVE)
    attempt("read", raw_read, device.fd, 0, 8)
    attempt("write", os.write, device.fd, b"x" * 8)


def main():
    device = stall.Device()
    each_command(device.fd, COMMANDS)
    room = ctypes.create_string_buffer(8)
    sized = stall.IOC_LEAVE | 8 << 16
    attempt("leave long", ioctl, device.fd, sized, ctypes.addressof(room))
    unknown_commands(device.fd, 0xF2, 6)
    registrations()
    states()
    print(json.dumps(results))


main()
