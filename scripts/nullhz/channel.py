# SPDX-License-Identifier: GPL-2.0
"""The host's end of the command channel; the node's end is node/usr/lib/nullhz/channel."""

import itertools
import queue
import socket
import threading
import time
from dataclasses import dataclass

from . import frames
from .errors import CommandError, NodeGone, TimedOut

# QEMU makes a socket and listens to it a moment later.
CONNECT_S = 10


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    argv: list
    rc: int
    """Exit status; negative: ended by that signal."""
    stdout: str
    stderr: str
    seconds: float

    def __str__(self):
        command = " ".join(self.argv)
        return f"`{command}` -> {self.rc}\n{self.stdout}{self.stderr}".rstrip()


class Command:
    """A command that runs in the node."""

    def __init__(self, channel, ident, argv):
        self._channel = channel
        self._ident = ident
        self._frames = queue.SimpleQueue()
        self._output = {"out": bytearray(), "err": bytearray()}
        self._started = time.monotonic()
        self._cut = 0
        self._result = None
        self._patience = channel.patience
        self.argv = argv

    def _take(self, timeout):
        """Handles one frame; False when none came within `timeout` seconds."""
        try:
            header, payload = self._frames.get(timeout=timeout)
        except queue.Empty:
            return False
        operation = header["op"]
        if operation in self._output:
            self._output[operation] += payload
        elif operation == "exit":
            self._result = Result(
                self.argv,
                header["rc"],
                self._output["out"].decode("utf-8", "replace"),
                self._output["err"].decode("utf-8", "replace"),
                time.monotonic() - self._started,
            )
            if header["timeout"]:
                raise TimedOut(f"ran out of time: {self._result}")
        elif operation == "gone":
            raise NodeGone(f"{header['message']} while `{' '.join(self.argv)}` ran")
        else:
            raise CommandError(f"`{' '.join(self.argv)}`: {header['message']}")
        return True

    def wait(self, timeout=30):
        """Waits for the end of the command; returns its Result."""
        end = time.monotonic() + timeout * self._patience
        while self._result is None:
            left = end - time.monotonic()
            if left <= 0 or not self._take(left):
                raise TimedOut(f"`{' '.join(self.argv)}` did not end within {timeout} s")
        return self._result

    def read_line(self, timeout=30):
        """The next line of standard output, without its end; None after the last."""
        end = time.monotonic() + timeout * self._patience
        out = self._output["out"]
        while True:
            newline = out.find(b"\n", self._cut)
            if newline >= 0:
                line = out[self._cut : newline]
                self._cut = newline + 1
                return line.decode("utf-8", "replace")
            if self._result is not None:
                line = out[self._cut :]
                self._cut = len(out)
                return line.decode("utf-8", "replace") or None
            left = end - time.monotonic()
            if left <= 0 or not self._take(left):
                raise TimedOut(f"`{' '.join(self.argv)}` printed no line within {timeout} s")

    def lines(self, timeout=30):
        """All further lines of standard output as they come; `timeout` for each."""
        while (line := self.read_line(timeout)) is not None:
            yield line

    @property
    def raw_stdout(self):
        """Standard output so far, as bytes."""
        return bytes(self._output["out"])

    def kill(self, number=15):
        """Sends a signal to the command's process group."""
        self._channel.send({"op": "kill", "id": self._ident, "signal": number})


class Channel:
    """Runs commands in the node; usable from several threads.

    All timeouts of commands are multiplied with `patience`.
    """

    def __init__(self, path, patience=1):
        self.patience = patience
        self._socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + CONNECT_S
        while self._socket.connect_ex(path):
            if time.monotonic() > end:
                raise NodeGone("nobody listens at the node's command channel")
            time.sleep(0.01)
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._idents = itertools.count(1)
        self._commands = {}
        self._changed = threading.Condition(self._lock)
        self._hellos = []
        self._up = False
        self._closed = False
        self._thread = threading.Thread(target=self._receive, name="channel", daemon=True)
        self._thread.start()

    def _receive(self):
        reader = frames.Reader()
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                break
            for header, payload in reader.feed(data):
                self._dispatch(header, payload)
        with self._lock:
            self._closed = True
        self.lost("the virtual machine ended")

    def _dispatch(self, header, payload):
        if header["op"] == "hello":
            # A server that says hello knows nothing of earlier commands.
            self.lost("the node's command server was started again")
            with self._changed:
                report = (time.monotonic(), header)
                if not self._hellos or self._hellos[-1][1]["boot_id"] != header["boot_id"]:
                    self._hellos.append(report)
                self._up = True
                self._changed.notify_all()
            return
        with self._lock:
            command = self._commands.get(header.get("id"))
            if command and header["op"] not in ("out", "err"):
                del self._commands[header["id"]]
        if command:
            command._frames.put((header, payload))

    def lost(self, message):
        """The node will answer nothing that was asked before now."""
        with self._changed:
            self._up = False
            commands = list(self._commands.values())
            self._commands.clear()
            self._changed.notify_all()
        for command in commands:
            command._frames.put(({"op": "gone", "message": message}, b""))

    @property
    def up(self):
        """Whether the node's command server has reported and was not lost since."""
        with self._lock:
            return self._up

    def wait_boot(self, count, timeout, alive=lambda: True):
        """Waits for the first report of boot number `count` (from 1); None if
        it does not come. Returns (host's monotonic time, report)."""
        end = time.monotonic() + timeout
        with self._changed:
            while len(self._hellos) < count:
                left = end - time.monotonic()
                if left <= 0 or self._closed or not alive():
                    return None
                self._changed.wait(min(left, 0.5))
            return self._hellos[count - 1]

    def send(self, header, payload=b""):
        data = frames.encode(header, payload)
        with self._send_lock:
            try:
                self._socket.sendall(data)
            except OSError as error:
                raise NodeGone("the virtual machine has ended") from error

    def start(self, argv, stdin, timeout, **options):
        """Starts a command; the node kills it after `timeout` seconds (None: never).

        `options`: env, cwd, user, groups; see the node's end.
        """
        with self._lock:
            if not self._up:
                raise NodeGone("the node's command server is not up")
            ident = next(self._idents)
            command = Command(self, ident, argv)
            self._commands[ident] = command
        if timeout is not None:
            timeout *= self.patience
        self.send({"op": "run", "id": ident, "argv": argv, "timeout": timeout, **options}, stdin)
        return command

    def close(self):
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._socket.close()
