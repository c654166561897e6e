# SPDX-License-Identifier: GPL-2.0
"""The node's serial console: kept with the host's time of every line."""

import re
import threading
import time
from typing import NamedTuple

# Terminal control sequences: the BIOS and shells colour their output.
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1bc|[\x00-\x08\x0b-\x1f\x7f]")


class Line(NamedTuple):
    time: float
    """Host's time.monotonic() when the line was complete, in seconds."""
    text: str


class Console(threading.Thread):
    """Reads the console from a pipe until its end.

    Every line goes to `path` with the seconds since `start`, at once, so that
    a log is there whatever happens to this process. `earlier`: lines that the
    node printed before, in the machine that this one goes on from.
    """

    def __init__(self, pipe, path, start, earlier=()):
        super().__init__(name="console", daemon=True)
        self._pipe = pipe
        self._path = path
        self._start = start
        self._changed = threading.Condition()
        self._lines = [Line(start, text) for text in earlier]
        self._notes = []
        self._ended = False
        self.start()

    def run(self):
        rest = b""
        with open(self._path, "w", encoding="utf-8") as log:
            for line in self._lines:
                log.write(f"{'before':>10} {line.text}\n")
            while data := self._pipe.read1(65536):
                now = time.monotonic()
                *complete, rest = (rest + data).split(b"\n")
                lines = [Line(now, self._clean(raw)) for raw in complete]
                self._add(lines, log)
            if rest:
                self._add([Line(time.monotonic(), self._clean(rest))], log)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def note(self, text):
        """Writes a line to the log that the node has not printed, between its lines."""
        with self._changed:
            self._notes.append(Line(time.monotonic(), text))

    @staticmethod
    def _clean(raw):
        return _CONTROL.sub(b"", raw).decode("utf-8", "replace").rstrip()

    def _add(self, lines, log):
        with self._changed:
            notes, self._notes = self._notes, []
        for line in sorted(notes + lines, key=lambda line: line.time):
            log.write(f"{line.time - self._start:10.6f} {line.text}\n")
        log.flush()
        with self._changed:
            self._lines += lines
            self._changed.notify_all()

    @property
    def position(self):
        """Number of lines so far: pass it to `wait` to see only what follows."""
        with self._changed:
            return len(self._lines)

    def lines(self, since=0):
        """The lines from number `since` on."""
        with self._changed:
            return self._lines[since:]

    def tail(self, count=40):
        """The last lines as text, for messages."""
        return "\n".join(f"  | {line.text}" for line in self.lines()[-count:]) or "  | (nothing)"

    def wait(self, pattern, timeout, since=0):
        """Waits for a line that `pattern` is found in; returns (Line, Match).

        None when the time is over or the console has ended.
        """
        regex = re.compile(pattern)
        end = time.monotonic() + timeout
        while True:
            with self._changed:
                new = self._lines[since:]
                if not new:
                    left = end - time.monotonic()
                    if left <= 0 or self._ended:
                        return None
                    self._changed.wait(left)
                    continue
                since += len(new)
            for line in new:
                if match := regex.search(line.text):
                    return line, match
