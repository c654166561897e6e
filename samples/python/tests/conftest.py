# SPDX-License-Identifier: GPL-2.0
"""A stand-in for the device: its page is a file, its ioctls are played.

That is all of the client's logic and none of the kernel module, which is tested
with the real client in the virtual machine (kunit-tests/e2e).
"""

import errno
import os
import struct
import warnings
import weakref

import pytest

from nullhz_stall import _abi, _device, _heartbeat


class Watchdog:
    """The kernel's side."""

    def __init__(self, path):
        self.path = str(path)
        path.write_bytes(bytes(_abi.PAGE_SIZE))
        self.calls = []
        self.errors = {}
        self.version = _abi.ABI_VERSION
        self.max_grace_ms = 600_000
        self.registered = None
        # Of each open file that is a rank.
        self.ranks = weakref.WeakKeyDictionary()

    def ioctl(self, file, command, argument):
        self.calls.append(command)
        if command in self.errors:
            raise OSError(self.errors[command], os.strerror(self.errors[command]))
        if command == _abi.IOC_INFO:
            return _abi.INFO.pack(self.version, _abi.PAGE_SIZE, 1024, 0, 10, self.max_grace_ms, 0, 0)
        if command == _abi.IOC_REGISTER:
            number, _, name = struct.unpack_from("2I32s", argument)
            rank = (number, name)
            if rank in self.ranks.values():
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            self.ranks[file] = rank
            self.poke(0, "128s", b"")
            names = ("rank", "flags", "name", "d0", "d1", "d2", "d3", "d4", "floor_ms", "warmup", "pad")
            self.registered = dict(zip(names, _abi.REGISTER.unpack(argument)))
        elif command == _abi.IOC_GRACE and _abi.GRACE.unpack(argument)[0] > self.max_grace_ms:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return b""

    def page(self):
        """The words of struct nullhz_stall_page."""
        with open(self.path, "rb") as file:
            words = struct.unpack("2Q2I5Q2I3Q4Q", file.read(128))
        names = ("step", "progress", "phase", "checkpoint_ack")
        kernel = ("checkpoint_request", "state", "incident", "deadline_ns", "sampled_ns")
        assert not any(words[4:9]) and not any(words[14:])
        return dict(zip(names + kernel, words[:4] + words[9:14]))

    def poke(self, offset, layout, value):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(struct.pack(layout, value))

    def request(self, number):
        """Asks for a checkpoint."""
        self.poke(64, "I", number)

    @property
    def left(self):
        return self.calls.count(_abi.IOC_LEAVE)

    def is_open(self):
        """Whether this process has the device open or mapped."""
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{descriptor}") == self.path:
                    return True
            except FileNotFoundError:
                continue
        with open("/proc/self/maps") as maps:
            return self.path in maps.read()


@pytest.fixture
def watchdog(tmp_path, monkeypatch):
    """Registered by `register(..., device=watchdog.path)`, and by default."""
    played = Watchdog(tmp_path / "nullhz-stall")

    class PlayedDevice(_device.Device):
        def ioctl(self, command, argument=b""):
            assert not self._file.closed
            return played.ioctl(self, command, argument)

        def close(self):
            super().close()
            played.ranks.pop(self, None)

    monkeypatch.setattr(_device, "Device", PlayedDevice)
    monkeypatch.setitem(_heartbeat.register.__kwdefaults__, "device", played.path)
    return played


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No warning was given yet; the environment names no job."""
    monkeypatch.setattr(_heartbeat, "_warned", set())
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("NULLHZ_JOB", "SLURM_JOB_NAME", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    with warnings.catch_warnings():
        # What is left open is a mistake of ours.
        warnings.simplefilter("error", ResourceWarning)
        yield
