# SPDX-License-Identifier: GPL-2.0
"""The user-space ABI, a mirror of <nullhz/stall.h>; compared with it by the tests."""

import enum
import struct

DEVICE = "/dev/nullhz-stall"
ABI_VERSION = 1
PAGE_SIZE = 4096
NAME_SIZE = 32
PHASES = 5


class Phase(enum.IntEnum):
    """What a rank is doing; each phase has a deadline of its own."""

    INIT = 0
    """Loading, compiling; its deadline is never learned."""
    STEP = 1
    """A training step."""
    COMM_WAIT = 2
    """Waits for other ranks: never leads to a reset."""
    CHECKPOINT = 3
    """Writes a checkpoint."""
    EVAL = 4
    """Evaluates."""


class State(enum.IntEnum):
    """How the watchdog sees a rank; higher is worse."""

    OK = 0
    SUSPECT = 1
    STALLED = 2
    NO_ACK = 3
    PREBITE = 4


# struct nullhz_stall_page: indices of its words, of 8 bytes or of 4.
STEP = 0
PROGRESS = 1
PHASE = 4
CHECKPOINT_ACK = 5
CHECKPOINT_REQUEST = 16
STATE = 17
INCIDENT = 9
DEADLINE_NS = 10
SAMPLED_NS = 11

# struct nullhz_stall_info: abi_version, page_size, max_ranks, ranks, period_ms,
# max_grace_ms, armed, resets
INFO = struct.Struct("8I")
# nullhz_stall_register.flags
TELLS_WAITS = 0x01

# struct nullhz_stall_register: rank, flags, name, deadline_ms[], floor_ms, warmup, pad
REGISTER = struct.Struct(f"2I{NAME_SIZE}s{PHASES}I3I")
# struct nullhz_stall_grace: ms, pad
GRACE = struct.Struct("2I")

_MAGIC = 0xF2
_WRITE, _READ = 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    """_IOC() of <asm-generic/ioctl.h>."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


IOC_INFO = _ioc(_READ, 0, INFO.size)
IOC_REGISTER = _ioc(_WRITE, 1, REGISTER.size)
IOC_GRACE = _ioc(_WRITE, 2, GRACE.size)
IOC_LEAVE = _ioc(0, 3, 0)
