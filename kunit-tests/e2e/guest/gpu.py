# SPDX-License-Identifier: GPL-2.0
"""The software GPU from Python: soft_gpu.h in ctypes, the part that mistakes need."""

import ctypes
import os

DEVICE = "/dev/nullhz-soft-gpu"
MAGIC, LAST = 0xF4, 15
PAGE = 4096
B0, B1, B2, BATCHED, TYPED = range(5)
WRITE, RANDOM, WAIT = 1, 2, 1


def record(name, *fields):
    """A structure of u64 and, where the name ends in /4, u32 fields."""
    shapes = {"": ctypes.c_uint64, "4": ctypes.c_uint32}
    pairs = [(field.partition("/")[0], shapes[field.partition("/")[2]]) for field in fields]
    return type(name, (ctypes.Structure,), {"_fields_": pairs})


Info = record(
    "Info",
    *("abi_version/4", "modes/4", "features/4", "mode/4", "cpus/4", "tlb_entries/4", "context/4", "pad/4"),
    *("aperture", "aperture_size"),
)
Mode = record("Mode", "mode/4", "pad/4")
Range = record("Range", "start", "length", "interval")
PAGES = ("start", "stride", "count")
Prefetch = record("Prefetch", *PAGES, "flags/4", "pad/4", "filled", "refused")
Oracle = record("Oracle", *PAGES, "table", "owner")
Run = record("Run", *PAGES, "accesses", "seed", "flags/4", "cpu/4", "run/4", "pad/4")
Stop = record("Stop", "run/4", "flags/4", *(f"count{index}" for index in range(15)))
STAMP = ("magic", "owner", "stamped", "generation")
Access = record("Access", "address", "flags/4", "cpu/4", "outcome/4", "kind/4", "hit/4", "faults/4", *STAMP)
Violation = record(
    "Violation", "index/4", "kind/4", "cpu/4", "hit/4", "mono_ns", "address", "minimum", "pfn", *STAMP
)
Bind = record("Bind", "user", "device", "pages/4", "count/4")
Counters = record("Counters", *(f"count{index}" for index in range(26)))
Cpu = record("Cpu", "cpu/4", "valid/4", "handled", "interrupted", "filled", "dropped")
Faults = record(
    "Faults", "unanswered/4", "failed_resets/4", "flush_delay_us/4", "walk_delay_us/4", "mutant/4", "pad/4"
)

# Numbered in their order. (name, direction: 1 in, 2 out, record)
_COMMANDS = (
    *(("INFO", 2, Info), ("MODE", 1, Mode), ("REGISTER", 1, Range), ("UNREGISTER", 1, Range)),
    *(("PREFETCH", 3, Prefetch), ("ORACLE", 1, Oracle), ("RUN", 3, Run), ("STOP", 3, Stop)),
    *(("ACCESS", 3, Access), ("VIOLATION", 3, Violation), ("BIND", 1, Bind), ("UNBIND", 1, Bind)),
    *(("SUBMIT", 0, None), ("COUNTERS", 2, Counters), ("CPU", 3, Cpu), ("FAULTS", 1, Faults)),
)
COMMANDS = {
    name.lower(): (
        direction << 30 | (ctypes.sizeof(kind) if kind else 0) << 16 | MAGIC << 8 | number,
        kind,
    )
    for number, (name, direction, kind) in enumerate(_COMMANDS)
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, *[ctypes.c_size_t] * 2, *[ctypes.c_int] * 2, ctypes.c_size_t)


def memory(pages):
    """Address of new pages, anonymous and shared."""
    address = _libc.mmap(None, pages * PAGE, 3, 0x21, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return address


class Gpu:
    """An open file of the device."""

    def __init__(self, path=DEVICE):
        self.fd = os.open(path, os.O_RDWR)

    def __getattr__(self, name):
        """gpu.register(start=..., ...): the ioctl; returns its record."""
        command, kind = COMMANDS[name]

        def call(**fields):
            argument = kind(**fields) if kind else None
            address = ctypes.addressof(argument) if kind else 0
            if _libc.ioctl(self.fd, ctypes.c_ulong(command), ctypes.c_void_p(address)) < 0:
                raise OSError(ctypes.get_errno(), name)
            return argument

        return call

    def close(self):
        os.close(self.fd)
