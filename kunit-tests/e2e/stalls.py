# SPDX-License-Identifier: GPL-2.0
"""Training processes that the scenarios stall, and what the stall watchdog says of them."""

import json

from nullhz import bus, guest

SYSFS = "/sys/class/misc/nullhz-stall"
GENERATOR = "/sys/kernel/debug/nullhz_stall_gen"
# An emulated sampler may come late by this much; real ones do not.
LATE_NS = 250_000_000

NAMES = {getattr(bus, name): name[3:] for name in dir(bus) if name.startswith("EV_")}


def tune(vm, **values):
    """Sets tunables of nullhz_stall."""
    vm.run(
        "set -e; " + "; ".join(f"echo {value} > {SYSFS}/tunables/{name}" for name, value in values.items())
    )


def counter(vm, name):
    return int(vm.read(f"{SYSFS}/counters/{name}"))


def hardware(vm, attribute):
    """An attribute of the hardware watchdog.

    Every one of these machines has a TCO as well, which cannot reset it unless asked for.
    """
    script = (
        "cd /sys/class/watchdog; w=$(grep -l i6300ESB */identity || grep -l iTCO */identity) && "
        'cat "${w%/identity}/$1"'
    )
    return vm.run(["sh", "-c", script, "sh", attribute]).stdout.strip()


def arm(vm, timeout_s):
    """Has nullhz_stall feed the hardware watchdog, which nobody else does, with this timeout."""
    tune(vm, reset=0, feed=1, feed_timeout_s=timeout_s)
    wait_armed(vm, 0)
    tune(vm, reset=1)
    wait_armed(vm, 1)
    assert (hardware(vm, "timeout"), fed(vm)) == (str(timeout_s), timeout_s)


def fed(vm):
    """Timeout of the hardware watchdog that runs, s; 0: none does.

    (`state` in the device's own directory only tells whether user space has it.)
    """
    return int(vm.read(f"{SYSFS}/watchdog_timeout_ms")) // 1000


def wait_armed(vm, armed):
    vm.run(f"until [ $(cat {SYSFS}/armed) = {armed} ]; do sleep 0.1; done", 15)


def wedge(vm, cpus, ms=0):
    """Takes all these CPUs away at a stroke, interrupts off; 0: for ever."""
    text = f"context=irq ms={ms} gather={len(cpus)}"
    return [generator(vm, text, cpu=cpu) for cpu in cpus]


def ask(vm, *command):
    """What guest/stall.py prints."""
    guest.put_script(vm, "bus.py")
    result = vm.run(["python3", "-S", guest.put_script(vm, "stall.py"), *map(str, command)])
    return json.loads(result.stdout)


def state(vm, number):
    """What IOC_RANK tells of a rank."""
    return next(rank for rank in ask(vm, "ranks") if rank["rank"] == number)


def generator(vm, text, cpu=None, **options):
    """Stalls a process of its own in the kernel, through nullhz_stall_gen; returns at once."""
    vm.run("modprobe nullhz_stall_gen")
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    return vm.spawn([*pinned, "sh", "-c", 'echo "$1" > "$2"', "sh", text, f"{GENERATOR}/run"], **options)


def listen(vm, **options):
    """A reader of stall events and of what the bus says of incidents."""
    return guest.Reader(vm, sources=1 << bus.SRC_STALL | 1 << bus.SRC_BUS, **options)


def told(reader, since=0, rank=None):
    """Kinds of the stall events since a position, of one rank or of all, in their order."""
    events = reader.events(since, source=bus.SRC_STALL)
    if rank is not None:
        # What concerns the node has no name.
        events = [event for event in events if event["stall"]["name"] and event["stall"]["rank"] == rank]
    return [NAMES[event["kind"]] for event in events]


class Rank:
    """guest/rank.c in a node. `options`: its keys; `cpu`: pinned there; `fifo`: priority."""

    def __init__(self, vm, number=0, *, cpu=None, fifo=0, cgroup=None, **options):
        self.vm = vm
        self.number = number
        self.control = f"/run/rank-{number}"
        command = [guest.put_program(vm, "rank"), str(number), self.control]
        command += [f"{name}={value}" for name, value in options.items()]
        if fifo:
            command = ["chrt", "-f", str(fifo), *command]
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        if cgroup:
            command = ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh", *command]
        self._start(command)

    @classmethod
    def python(cls, vm, script, number, *arguments):
        """A script of guest/ that registers by itself; it takes no commands."""
        rank = cls.__new__(cls)
        rank.vm, rank.number = vm, number
        for name in ("bus.py", "stall.py"):
            guest.put_script(vm, name)
        rank._start(["python3", "-S", guest.put_script(vm, script), str(number), *map(str, arguments)])
        return rank

    def _start(self, command):
        self.command = self.vm.spawn(command, timeout=600)
        line = self.command.read_line(60)
        assert line, self.command.wait()
        self.pid = json.loads(line)["pid"]

    def tell(self, text):
        """Gives it a command; what it answers comes with done()."""
        self.vm.run(["sh", "-c", 'echo "$1" > "$2"', "sh", text, self.control])

    def done(self, timeout=30):
        """The answer to the next command."""
        return json.loads(self.command.read_line(timeout))

    def do(self, text, timeout=30):
        self.tell(text)
        return self.done(timeout)

    def signal(self, name):
        self.vm.run(["sh", "-c", f"kill -{name} {self.pid}"])

    def leave(self):
        """Ends it cleanly."""
        self.do("leave")
        self.kill()

    def kill(self):
        self.command.kill(9)
        return self.command.wait()


def expect(reader, since, rank, kind, timeout=30, **fields):
    """Waits for an event of a rank; asserts these fields of it."""
    event = reader.wait(timeout, since=since, source=bus.SRC_STALL, kind=kind, rank=rank.number)
    stall = event["stall"]
    wrong = {name: stall[name] for name, value in fields.items() if stall[name] != value}
    assert not wrong, f"{NAMES[kind]}: {wrong}, not {fields}; the whole: {stall}"
    return event


def expect_stall(reader, since, rank, deadline_ms, **fields):
    """SUSPECT, then STALLED at the deadline; returns the latter's event."""
    suspect = expect(reader, since, rank, bus.EV_SUSPECT, state=bus.SUSPECT)
    stalled = expect(reader, since, rank, bus.EV_STALLED, state=bus.STALLED, **fields)
    assert (suspect["level"], stalled["level"]) == (bus.WATCH, bus.IMMINENT)
    assert suspect["seq"] < stalled["seq"]
    age, deadline = stalled["stall"]["age_ns"], stalled["stall"]["deadline_ns"]
    assert deadline == deadline_ms * 1_000_000
    # A rank that cannot even run is called stalled at its proven time, which is not later.
    assert deadline <= age < deadline + LATE_NS, f"{age} ns, of {deadline}"
    assert stalled["stall"]["stalled"] >= 1
    return stalled


def expect_recovery(reader, since, rank, was):
    """RECOVERED from rung `was`, and OK after it."""
    event = expect(reader, since, rank, bus.EV_RECOVERED, state=was)
    assert event["level"] == bus.WATCH
    assert state(rank.vm, rank.number)["state"] == bus.OK
    return event
