# SPDX-License-Identifier: GPL-2.0
"""System calls on the device, and words for what goes wrong with them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from typing import NoReturn

from . import _abi

ABSENT = {errno.ENOENT, errno.ENODEV, errno.ENXIO}
REFUSED = {errno.EACCES, errno.EPERM}
NO_PLACE = {
    errno.EEXIST: "another process has this rank of the job: does it have a name of its own?",
    errno.ENOSPC: "too many ranks on this node",
}


class WatchdogError(OSError):
    """A call on the stall watchdog failed; `errno` tells why, the text what to do."""


class NoWatchdogError(WatchdogError):
    """There is no stall watchdog on this machine, or not for this user or this rank."""


def fail(error: OSError, what: str, advice: str = "", kind: type[WatchdogError] = WatchdogError) -> NoReturn:
    """Raises `error` again, in words."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    text = f"{what}: {reason}"
    raise kind(error.errno, f"{text}: {advice}" if advice else text) from error


class Device:
    """An open device, and the page of its rank once that is mapped."""

    def __init__(self, path: str) -> None:
        try:
            # Of O_RDWR and O_CLOEXEC.
            self._file = open(path, "r+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            if error.errno in ABSENT:
                fail(error, path, "is the module nullhz_stall loaded?", NoWatchdogError)
            if error.errno in REFUSED:
                fail(error, path, "is the user in the device's group (nullhz)?", NoWatchdogError)
            fail(error, path)
        self._map: mmap.mmap | None = None

    def ioctl(self, command: int, argument: bytes = b"") -> bytes:
        """Issues a command; returns what it wrote."""
        return fcntl.ioctl(self._file, command, argument) if argument else self._plain(command)

    def _plain(self, command: int) -> bytes:
        fcntl.ioctl(self._file, command)
        return b""

    def map_page(self) -> mmap.mmap:
        """The page. Children of fork() do not have it."""
        self._map = mmap.mmap(self._file.fileno(), _abi.PAGE_SIZE)
        self._map.madvise(mmap.MADV_DONTFORK)
        return self._map

    def close(self) -> None:
        """Unmaps and closes; for the module, the end of the rank."""
        mapped, self._map = self._map, None
        if mapped is not None:
            # It holds a descriptor of its own. If a thread is storing to it at the
            # moment, it goes with that thread's view.
            with contextlib.suppress(BufferError):
                mapped.close()
        self._file.close()


def check_version(device: Device, path: str) -> None:
    """Raises unless the file is a stall watchdog that speaks our ABI."""
    try:
        version, page_size, *_ = _abi.INFO.unpack(device.ioctl(_abi.IOC_INFO, bytes(_abi.INFO.size)))
    except OSError as error:
        fail(error, path, "not a stall watchdog?")
    if version != _abi.ABI_VERSION or page_size != _abi.PAGE_SIZE:
        text = f"{path}: the module speaks ABI version {version}, this package {_abi.ABI_VERSION}"
        raise WatchdogError(errno.EPROTO, text)


def register(device: Device, rank: int, request: bytes) -> None:
    """Makes the open file a rank."""
    try:
        device.ioctl(_abi.IOC_REGISTER, request)
    except OSError as error:
        if error.errno in NO_PLACE:
            fail(error, f"rank {rank}", NO_PLACE[error.errno], NoWatchdogError)
        fail(error, f"rank {rank}")
