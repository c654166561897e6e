# SPDX-License-Identifier: GPL-2.0
"""A rank and its heartbeat."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NoReturn

from . import _abi, _device
from ._abi import Phase, State

_MAX_MS = 2**32 - 1


class Heartbeat:
    """A rank of this process, made by `register()`.

    `beat()`, `progress()`, `phase` and the checkpoint calls are loads and stores
    of memory and may be used by any thread. Without a watchdog they do nothing.

    As a context manager it ends cleanly when its block does, and as a crash
    when an exception ends the block. A process that ends without `leave()` has
    crashed, as far as the watchdog can tell.

    In a child of fork(), such as a worker of a DataLoader, the heartbeat goes
    nowhere: a child does not beat as its parent.
    """

    # Few and fixed: beat() is to be fast.
    __slots__ = ("_words", "_halves", "_device", "__weakref__")

    def __init__(self, device: _device.Device | None) -> None:
        self._device: _device.Device | None = None
        self._look_at(bytearray(_abi.PAGE_SIZE))
        if device is not None:
            self._look_at(device.map_page())
            self._device = device

    def _look_at(self, page: object) -> None:
        view = memoryview(page)  # type: ignore[arg-type]
        self._words = view.cast("Q")
        self._halves = view.cast("I")

    def _close(self) -> None:
        """From here on nobody watches."""
        device = self._device
        self._device = None
        # The views of the page are not released: another thread may be just about to
        # store to one. They are gone when nobody has them any more.
        self._look_at(bytearray(_abi.PAGE_SIZE))
        if device is not None:
            device.close()

    def beat(self, step: int) -> None:
        """The heartbeat. `step`, 0 to 2**64 - 1, is the number of the step that
        has just been done; any change of it is progress."""
        self._words[0] = step

    def progress(self, progress: int) -> None:
        """Progress within a step or a phase that takes long (micro-batches,
        layers, bytes written), 0 to 2**64 - 1: any change counts. Optional."""
        self._words[1] = progress

    @property
    def phase(self) -> Phase:
        """What the rank does. Set it to change that."""
        return Phase(self._halves[_abi.PHASE])

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._halves[_abi.PHASE] = phase

    @contextlib.contextmanager
    def enter(self, phase: Phase) -> Iterator[None]:
        """Another phase for the block: `with heartbeat.enter(Phase.EVAL): ...`"""
        before = self.phase
        self.phase = phase
        try:
            yield
        finally:
            self.phase = before

    def checkpoint_wanted(self) -> int | None:
        """The request for a checkpoint that is to be written now, because the
        node may not live much longer; None: there is none. Ask between steps,
        and answer with `checkpoint_done()`."""
        halves = self._halves
        request = halves[16]
        return None if request == halves[5] else request

    def checkpoint_done(self, request: int) -> None:
        """The checkpoint is on disk: call it after fsync() of its files and
        folders (`sync_tree()`), since the node may be reset right afterwards. A
        request that came meanwhile is still wanted."""
        self._halves[_abi.CHECKPOINT_ACK] = request

    def grace(self, seconds: float) -> None:
        """No deadline for so long, in whatever phase; 0 ends that. For a pause
        that is known beforehand and in no phase's deadline.

        Raises WatchdogError (EINVAL) for more than the module allows.
        """
        ms = _milliseconds(seconds, "grace")
        if self._device is None:
            return
        try:
            self._device.ioctl(_abi.IOC_GRACE, _abi.GRACE.pack(ms, 0))
        except OSError as error:
            advice = "longer than the module allows?" if error.errno == errno.EINVAL else ""
            _device.fail(error, f"grace of {seconds} s", advice)

    @property
    def watched(self) -> bool:
        """Whether a watchdog sees the heartbeats."""
        return self._device is not None

    @property
    def state(self) -> State:
        """How the watchdog sees this rank."""
        return State(self._halves[_abi.STATE])

    @property
    def incident(self) -> int | None:
        """The incident of the fault bus that concerns the rank now."""
        return self._words[_abi.INCIDENT] or None

    @property
    def deadline(self) -> float:
        """Of the phase, in seconds, fixed or as it was learned; 0: none yet."""
        return self._words[_abi.DEADLINE_NS] / 1e9

    def leave(self) -> None:
        """A clean end. The heartbeat may still be used, but nobody watches."""
        device = self._device
        if device is None:
            return
        try:
            device.ioctl(_abi.IOC_LEAVE)
        except OSError as error:
            _device.fail(error, "leave")
        finally:
            self._close()

    def abandon(self) -> None:
        """The end of a rank that has failed, reported as a crash at once. Only
        for processes that live on: one that ends needs no call."""
        self._close()

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is None or (isinstance(value, SystemExit) and not value.code):
            self.leave()
        else:
            self.abandon()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a heartbeat belongs to one process: register where it is to be used")


def _milliseconds(seconds: float, what: str) -> int:
    """Rounded up: a short time must not become 0, which has a meaning of its own."""
    if not 0 <= seconds <= _MAX_MS / 1000:
        raise ValueError(f"{what}: {seconds!r} s is not within 0..{_MAX_MS // 1000} s")
    # 0.1 is a little more than a tenth; that shall not make it 101 ms.
    return math.ceil(round(seconds * 1000, 6))


def _request(
    rank: int, name: str, deadlines: Mapping[Phase, float], floor: float, warmup: int, tells_waits: bool
) -> bytes:
    """struct nullhz_stall_register."""
    if not 0 <= rank < 2**32:
        raise ValueError(f"rank: {rank} is not within 0..2**32-1")
    if not 0 <= warmup < 2**32:
        raise ValueError(f"warmup: {warmup} is not within 0..2**32-1")
    if not 0 < len(name) < _abi.NAME_SIZE or not (name.isascii() and name.isprintable()):
        raise ValueError(f"name: {name!r} does not have 1 to {_abi.NAME_SIZE - 1} printable ASCII characters")
    fixed = [0] * _abi.PHASES
    for phase, seconds in deadlines.items():
        fixed[Phase(phase)] = _milliseconds(seconds, f"deadline of {Phase(phase).name}")
    floor_ms = _milliseconds(floor, "floor")
    flags = _abi.TELLS_WAITS if tells_waits else 0
    return _abi.REGISTER.pack(rank, flags, name.encode(), *fixed, floor_ms, warmup, 0)


def _environment_rank() -> int:
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        value = os.environ.get(variable, "")
        if value.isdecimal():
            return int(value)
    return 0


def _environment_name() -> str:
    for variable in ("NULLHZ_JOB", "SLURM_JOB_NAME", "TORCHELASTIC_RUN_ID"):
        value = os.environ.get(variable, "").strip()
        if value and value != "none":
            printable = (c if c.isascii() and c.isprintable() else "?" for c in value)
            return "".join(printable)[: _abi.NAME_SIZE - 1]
    return "training"


_live: weakref.WeakSet[Heartbeat] = weakref.WeakSet()
_warned: set[str] = set()


def _in_child() -> None:
    for heartbeat in list(_live):
        heartbeat._close()
    _live.clear()


os.register_at_fork(after_in_child=_in_child)


def register(
    rank: int | None = None,
    name: str | None = None,
    *,
    deadlines: Mapping[Phase, float] | None = None,
    floor: float = 0,
    warmup: int = 0,
    tells_waits: bool = False,
    missing: str = "warn",
    device: str = _abi.DEVICE,
) -> Heartbeat:
    """Makes this process a rank. Call it from the thread that trains: its state
    and stack are what is looked at first when the rank stalls. The rank is in
    `Phase.INIT` until it says something else.

    rank       global rank; None: as torchrun, Slurm or Open MPI say ($RANK,
               $SLURM_PROCID, $OMPI_COMM_WORLD_RANK), else 0
    name       of the job, 1 to 31 printable ASCII characters; None: $NULLHZ_JOB,
               $SLURM_JOB_NAME, torchrun's run id, else "training". Jobs that share
               a node need different ones
    deadlines  seconds without progress after which a rank has stalled, by phase;
               a phase that is not in it has its deadline learned (INIT: the
               module's default)
    floor      seconds; no learned deadline is shorter; 0: the module's
    warmup     steps that are not learned from; 0: the module's
    tells_waits  a promise: every wait for other ranks, outside of Phase.INIT, is in
               Phase.COMM_WAIT, also those that a framework hides in a backward
               pass or in a checkpoint. Only then is a stall in another phase
               evidence against this node, which may be reset for it; a promise
               that is not kept resets healthy nodes when a peer hangs
    missing    what to do on a machine without the device, when the user may not
               open it, or when another process of the node has this rank of the
               job (EEXIST) or too many are registered (ENOSPC): "warn" once and
               train on unwatched, "ignore", or raise an "error" (NoWatchdogError)

    Raises WatchdogError: another device or version; ValueError: an argument is
    out of range.
    """
    if missing not in ("warn", "ignore", "error"):
        raise ValueError(f'missing: {missing!r} is not "warn", "ignore" or "error"')
    rank = _environment_rank() if rank is None else rank
    name = _environment_name() if name is None else name
    request = _request(rank, name, deadlines or {}, floor, warmup, tells_waits)
    try:
        heartbeat = _open(device, rank, request)
    except _device.NoWatchdogError as error:
        if missing == "error":
            raise
        reason = str(error.strerror)
        if missing == "warn" and reason not in _warned:
            _warned.add(reason)
            warnings.warn(f"training goes on without a stall watchdog: {reason}", stacklevel=2)
        return Heartbeat(None)
    _live.add(heartbeat)
    return heartbeat


def _open(path: str, rank: int, request: bytes) -> Heartbeat:
    device = _device.Device(path)
    try:
        _device.check_version(device, path)
        _device.register(device, rank, request)
        return _first_beat(device)
    except BaseException:
        device.close()
        raise


def _first_beat(device: _device.Device) -> Heartbeat:
    try:
        return Heartbeat(device)
    except OSError as error:
        # It never began: no crash.
        with contextlib.suppress(OSError):
            device.ioctl(_abi.IOC_LEAVE)
        _device.fail(error, "heartbeat page")
