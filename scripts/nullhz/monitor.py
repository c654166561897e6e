# SPDX-License-Identifier: GPL-2.0
"""QEMU's monitor (QMP), for callers without asyncio."""

import asyncio
import contextlib
import threading
import time
from typing import NamedTuple

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, StateError

from .errors import NodeError, NodeGone, TimedOut

CONNECT_S = 10


class Event(NamedTuple):
    time: float
    """Host's time.monotonic() when the event was received, in seconds."""
    name: str
    data: dict


class Monitor:
    """A connection to QEMU's monitor with all events kept in order."""

    def __init__(self, path, on_event=lambda event: None, patience=1):
        self._on_event = on_event
        # What wait() multiplies its timeout with.
        self._patience = patience
        self._changed = threading.Condition()
        self._events = []
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._qmp = QMPClient("nullhz")
        # QEMU 10 acknowledges every command on its own; so does this client.
        self._qmp.logger.disabled = True
        self._listener = EventListener()
        self._qmp.register_listener(self._listener)
        end = time.monotonic() + CONNECT_S
        while True:
            try:
                self._await(self._qmp.connect(path), CONNECT_S)
                break
            except (ConnectError, TimedOut) as error:
                # QEMU makes the socket and listens to it a moment later.
                if isinstance(error, TimedOut) or time.monotonic() > end:
                    self._stop()
                    raise NodeError(f"cannot reach QEMU's monitor: {error}") from error
                time.sleep(0.01)
        self._pump = asyncio.run_coroutine_threadsafe(self._collect(), self._loop)

    def _await(self, coroutine, timeout):
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError as error:
            future.cancel()
            raise TimedOut(f"QEMU's monitor did not answer within {timeout} s") from error

    async def _collect(self):
        async for message in self._listener:
            event = Event(time.monotonic(), message["event"], dict(message.get("data", {})))
            self._on_event(event)
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()

    def execute(self, command, timeout=10, **arguments):
        """Runs a QMP command and returns its result."""
        try:
            return self._await(self._qmp.execute(command, arguments or None), timeout)
        except ExecuteError as error:
            raise NodeError(f"QMP {command}: {error}") from error
        except (StateError, EOFError, OSError) as error:
            raise NodeGone(f"QMP {command}: the virtual machine has ended") from error

    def human(self, line):
        """Runs a command of the human monitor; returns what it prints."""
        return self.execute("human-monitor-command", **{"command-line": line})

    @property
    def position(self):
        """Number of events so far: pass it to `wait` to see only what follows."""
        with self._changed:
            return len(self._events)

    def events(self, since=0):
        with self._changed:
            return self._events[since:]

    def wait(self, name, timeout, since=0):
        """The first event called `name` from number `since` on."""
        end = time.monotonic() + timeout * self._patience
        with self._changed:
            while True:
                for event in self._events[since:]:
                    if event.name == name:
                        return event
                since = len(self._events)
                left = end - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"no {name} event from QEMU within {timeout} s")
                self._changed.wait(left)

    def close(self):
        if self._closed:
            return
        self._closed = True
        self._pump.cancel()
        with contextlib.suppress(Exception):
            self._await(self._qmp.disconnect(), 2)
        self._stop()

    def _stop(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
