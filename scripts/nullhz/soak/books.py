# SPDX-License-Identifier: GPL-2.0
"""What is written down during a soak: what was made, and what came out at the other end."""

import json
import signal
import threading
import time
from collections import Counter

from nullhz import bus, guest
from nullhz.errors import NodeError, TimedOut

# Pages above all RAM; every machine check of the generator has one of its own.
NUMBERED = 0x12_0000_0000
# Those that QEMU raises, beyond.
RAISED = 0x40_0000_0000
PAGE = 4096
GENERATORS = 4

# Of nullhz_mce: what is in no record.
MCE_COUNTERS = ("boot_lost", "lost", "refused")
# Of nullhz_stall, by the kind of event that each counts.
STALL_COUNTERS = {
    bus.EV_REGISTERED: "registered",
    bus.EV_LEFT: "left",
    bus.EV_CRASHED: "crashed",
    bus.EV_SUSPECT: "suspect",
    bus.EV_STALLED: "stalled",
    bus.EV_NO_ACK: "no_ack",
    bus.EV_PREBITE: "prebite",
    bus.EV_RECOVERED: "recovered",
}


class Tail:
    """Lines of JSON that a program in the node prints, as they come."""

    def __init__(self, vm, command, name):
        self._vm = vm
        self._command = vm.spawn(command, timeout=None)
        self._changed = threading.Condition()
        self.lines = []
        self._ended = None
        ready = self._command.read_line(60)
        if not ready:
            raise NodeError(f"{name} does not start: {self._command.wait()}")
        self._thread = threading.Thread(target=self._collect, name=name, daemon=True)
        self._thread.start()

    def _collect(self):
        ended = "it ended"
        try:
            for line in self._command.lines(timeout=24 * 3600):
                with self._changed:
                    self.lines.append(json.loads(line))
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            ended = str(error)
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    @property
    def position(self):
        with self._changed:
            return len(self.lines)

    def all(self, where=lambda line: True, since=0):
        with self._changed:
            return [line for line in self.lines[since:] if where(line)]

    def wait(self, where, since=0, timeout=30):
        """The first line since a position for which `where` holds; None if none comes in time."""
        end = time.monotonic() + timeout * self._vm.patience
        with self._changed:
            while True:
                if found := next((line for line in self.lines[since:] if where(line)), None):
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    return None
                if self._ended:
                    raise NodeError(f"{self._thread.name}: {self._ended}")
                self._changed.wait(left)

    def signal(self, number):
        self._command.kill(number)


class Made:
    """What the actions have done so far; they write to it from several threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.actions = Counter()
        # Machine checks with a number, over all boots and of this one.
        self.checks = 0
        self.first_check = 0
        self.raised = {}
        self.reports = [0] * GENERATORS
        self.stalls = Counter()
        self.counters = Counter()
        self.kernel_lost = Counter()
        self.excuses = []
        self.notes = Counter()
        self.problems = []

    def take_checks(self, count):
        """Numbers for so many machine checks; returns the address of the first one."""
        with self.lock:
            first = self.checks
            self.checks += count
            return NUMBERED + first * PAGE

    def begin_boot(self):
        with self.lock:
            self.first_check = self.checks
            self.raised = {}
            self.reports = [0] * GENERATORS
            self.counters = Counter()
            self.kernel_lost = Counter()
            self.excuses = []

    def add(self, name, count=1):
        with self.lock:
            self.actions[name] += count

    def note(self, name, count=1):
        with self.lock:
            self.notes[name] += count

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def excuse(self):
        """A time in which no snapshot can be made: begins now, and ends with end()."""
        excuse = Excuse()
        with self.lock:
            self.excuses.append(excuse)
        return excuse


class Excuse:
    # The agent may have begun before, and may find out later.
    SLACK_S = 35

    def __init__(self):
        self.begin, self.last = time.monotonic(), None

    def end(self):
        self.last = time.monotonic()

    def covers(self, when):
        return self.begin <= when and (self.last is None or when <= self.last + self.SLACK_S)


class Books:
    """One boot's ledger and snapshot watcher in the node."""

    def __init__(self, vm, made, forget=None, spoil=None):
        self.vm, self.made = vm, made
        program = guest.put_program(vm, "ledger")
        command = ["chrt", "-f", "60", program, hex(NUMBERED), str(made.first_check)]
        self.ledger = Tail(vm, command + ([str(forget)] if forget is not None else []), "ledger")
        watcher = ["python3", "-S", guest.put_script(vm, "snapshots.py")]
        self.snapshots = Tail(vm, watcher + ([str(spoil)] if spoil is not None else []), "snapshots")
        self.offset = guest.clock_offset(vm)

    def events(self, since=0, **fields):
        """Records with these fields, of the record or of its payload."""
        return self.ledger.all(lambda line: matches(line, fields), since)

    def wait(self, since=0, timeout=30, where=lambda line: True, **fields):
        return self.ledger.wait(lambda line: matches(line, fields) and where(line), since, timeout)

    def account(self):
        """The ledger's own account, when all that there is has been read."""
        since = self.ledger.position
        self.ledger.signal(signal.SIGUSR1)
        line = self.ledger.wait(lambda line: "account" in line, since, 60)
        if line is None:
            raise TimedOut("the ledger gives no account")
        return line["account"]

    def host(self, mono_ns):
        """The host's time of a time in the node."""
        return mono_ns / 1e9 + self.offset


def matches(line, fields):
    if "seq" not in line:
        return False
    payload = line.get("mce") or line.get("stall") or line.get("bus") or {}
    return all(line.get(name, payload.get(name)) == value for name, value in fields.items())


def live(line):
    """A record of this boot of the bus, not of what the last one left."""
    return "seq" in line and not line["flags"] & bus.F_PREVIOUS_BOOT
