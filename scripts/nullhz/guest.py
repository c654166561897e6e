# SPDX-License-Identifier: GPL-2.0
"""What tests, demo and benchmarks bring into a node, and readers of its fault bus."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

from . import bus
from .errors import CommandError, SetupError, TimedOut
from .qemu import build_dir

TOP = Path(__file__).resolve().parents[2]
SOURCES = TOP / "kunit-tests" / "e2e" / "guest"
HOME = "/root/e2e"


OPTIONS = ("-std=gnu11", "-O2", "-static", f"-I{TOP}/drivers/include/uapi")
STRICT = ("-Wall", "-Wextra", "-Werror")
CC = ("cc", "-pthread", *OPTIONS, *STRICT)
# For sources that are not ours.
CC_LENIENT = ("cc", *OPTIONS)
# 32 bit, without a C library: the machine that compiles need not have one.
CC32 = (
    "clang-19",
    "--target=i386-linux-gnu",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pic",
)
CC32 += ("-fuse-ld=lld", "-I/usr/include/x86_64-linux-gnu", *OPTIONS, *STRICT)


def compile_program(name, compiler=CC, source=None):
    """A program of kunit-tests/e2e/guest, of one file or a folder of them, or from another source.

    Static, so that it runs in any image.
    """
    folder = SOURCES / name
    sources = [source] if source else sorted(folder.glob("*.c")) or [folder.with_suffix(".c")]
    program = build_dir() / "e2e" / name
    inputs = [*sources, *folder.glob("*.h"), *SOURCES.glob("*.h")]
    inputs += TOP.glob("drivers/include/uapi/nullhz/*.h")
    newest = max(path.stat().st_mtime for path in inputs)
    if not program.exists() or program.stat().st_mtime < newest:
        program.parent.mkdir(parents=True, exist_ok=True)
        # Two runs may do this at the same time.
        part = program.with_suffix(f".{os.getpid()}")
        command = [*compiler, "-o", part, *sources]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f"cannot compile {name}:\n{done.stderr}")
        part.rename(program)
    return program


def put_program(vm, name, **options):
    """Compiles a program and puts it into the node; returns its path there."""
    return put_once(vm, compile_program(name, **options), name, 0o755)


def put_script(vm, name):
    """Puts a Python file of kunit-tests/e2e/guest, or bus.py, into the node."""
    source = SOURCES / name
    return put_once(vm, source if source.exists() else Path(__file__).parent / name, name, 0o644)


def put_once(vm, source, name, mode):
    """Puts a file into the node unless it is there from an earlier call in this boot."""
    path = f"{HOME}/{name}"
    version = (source, source.stat().st_mtime_ns)
    if vm.files.get(path) != version:
        # An earlier version may be running.
        vm.put(source, f"{path}.new", mode)
        vm.run(["mv", f"{path}.new", path])
        vm.files[path] = version
    return path


def bus_command(vm, *arguments, **options):
    """Runs a command of bus.py in the node; returns its answer."""
    path = put_script(vm, "bus.py")
    result = vm.run(["python3", path, *map(str, arguments)], **options)
    return json.loads(result.stdout) if result.stdout else None


def info(vm):
    """What IOC_INFO answers in the node."""
    return bus_command(vm, "info")


def incident(vm, number):
    """What IOC_INCIDENT answers in the node."""
    return bus_command(vm, "incident", number)


def clock_offset(vm):
    """Host's monotonic clock minus the node's, in seconds; too large by the
    shortest way of a message, well below a millisecond."""
    script = (
        "import time\nfor _ in range(50):\n    print(time.monotonic(), flush=True)\n    time.sleep(0.002)\n"
    )
    running = vm.spawn(["python3", "-S", "-c", script])
    return min(time.monotonic() - float(line) for line in running.lines())


class Reader:
    """Reads the fault bus of a node from now on, or from the oldest record.

    Every record is a dictionary with the fields of struct nullhz_fault_event,
    "mce", "stall" or "bus" for its payload, "awake_ns" (the node's monotonic clock when
    the reader was awake) and "host_s" (the host's when the record was here).
    """

    def __init__(self, vm, *, newest=True, min_level=bus.WATCH, sources=None, fifo=0, wrap=(), timeout=600):
        command = ["python3", "-S", put_script(vm, "bus.py"), "read", "--min-level", str(min_level)]
        if newest:
            command += ["--newest"]
        if sources is not None:
            command += ["--sources", str(sources)]
        if fifo:
            command = ["chrt", "-f", str(fifo), *command]
        self._patience = vm.patience
        self._command = vm.spawn([*wrap, *command], timeout=timeout)
        self._changed = threading.Condition()
        self._events = []
        self._ended = None
        ready = self._command.read_line(60)
        if ready is None:
            raise CommandError(str(self._command.wait()))
        self.ready_ns = json.loads(ready)["ready"]
        self._thread = threading.Thread(target=self._collect, name="reader", daemon=True)
        self._thread.start()

    def _collect(self):
        ended = "the reader ended"
        try:
            for line in self._command.lines(timeout=3600):
                event = {**json.loads(line), "host_s": time.monotonic()}
                with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            ended = str(error)
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    @property
    def position(self):
        """Number of records so far: pass it to `wait` to see only what follows."""
        with self._changed:
            return len(self._events)

    def events(self, since=0, **fields):
        """The records from number `since` on that have these fields."""
        with self._changed:
            return [event for event in self._events[since:] if matches(event, fields)]

    def wait(self, timeout=30, since=0, count=1, where=None, **fields):
        """The first record, or with `count` the list of that many, with these fields."""
        end = time.monotonic() + timeout * self._patience
        with self._changed:
            while True:
                found = [event for event in self._events[since:] if matches(event, fields)]
                found = [event for event in found if where is None or where(event)]
                if len(found) >= count:
                    return found[0] if count == 1 else found[:count]
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    seen = "\n".join(f"  | {describe(event)}" for event in self._events[-20:])
                    why = self._ended or f"not within {timeout} s"
                    raise TimedOut(f"no {count} record(s) with {fields}: {why}; records:\n{seen}")
                self._changed.wait(left)

    def close(self):
        """Ends the reader in the node."""
        self._command.kill()
        self._thread.join(10)


def matches(event, fields):
    """Whether a record has all these values; a name may be that of a payload's field."""
    payload = payload_of(event)
    return all(event.get(name, payload.get(name)) == value for name, value in fields.items())


def payload_of(event):
    """The decoded payload of a record; empty for a source that is not known here."""
    return next((event[name] for name, _ in bus.PAYLOADS.values() if name in event), {})


def describe(event):
    """A record in one line, for messages."""
    payload = payload_of(event)
    detail = f"status {payload['status']:#x} addr {payload['addr']:#x}" if "status" in payload else payload
    return (
        f"seq {event['seq']} {bus.LEVELS[event['level']]} source {event['source']} kind {event['kind']} "
        f"flags {event['flags']:#x} incident {event['incident']} count {event['count']} {detail}"
    )


def interrupts(vm, cpus):
    """{row of /proc/interrupts: its sum over `cpus`}"""
    head, *rows = vm.run(["cat", "/proc/interrupts"]).stdout.splitlines()
    columns = len(head.split())
    counts = {}
    for row in rows:
        name, *words = row.split()
        if len(words) >= columns and all(word.isdigit() for word in words[:columns]):
            counts[name.rstrip(":")] = sum(int(words[cpu]) for cpu in cpus)
    return counts


def leaks(vm):
    """What kmemleak finds that nobody has a pointer to any more; debug kernel only."""
    place = "/sys/kernel/debug/kmemleak"
    # It believes that of nothing that is younger than 5 s, nor at first sight.
    vm.run(f"sleep 6; echo scan > {place}; echo scan > {place}", 120)
    return vm.read(place)
