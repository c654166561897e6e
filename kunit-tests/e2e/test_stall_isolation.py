# SPDX-License-Identifier: GPL-2.0
"""A training rank on every isolated CPU, looked at every 10 ms: it never notices."""

import contextlib
import json

import pytest
from isolation import TRAINING, interrupts, more_than_chance, moved, partition, probe, traced
from nullhz import bus, guest
from stalls import Rank, counter, expect, expect_recovery, listen, tune

pytestmark = pytest.mark.alone
NODE = {"append": "nullhz.agent=off"}
SECONDS = 2
DEADLINE_MS = 300
HOUSEKEEPING = (0, 1)
# Wakes as often as the sampler, and does nothing.
SLEEPER = ["chrt", "-f", "80", "python3", "-c", "import time\nwhile True: time.sleep(0.01)"]


@contextlib.contextmanager
def sleepers(vm):
    """What costs the host about what the sampler does, in its place."""
    running = [vm.spawn(["taskset", "-c", str(cpu), *SLEEPER], timeout=None) for cpu in HOUSEKEEPING]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def train(vm, seconds):
    """A rank on each training CPU for a while: ({row: interrupts}, what each rank saw)."""
    program = guest.put_program(vm, "steady")
    ranks = [vm.spawn(["taskset", "-c", str(cpu), program, str(cpu), str(seconds + 1)]) for cpu in TRAINING]
    vm.run("sleep 0.5")
    before = interrupts(vm)
    vm.run(f"sleep {seconds}")
    after = interrupts(vm)
    return moved(before, after), [json.loads(rank.wait().stdout) for rank in ranks]


def test_modules_on_minus_off(shared_node):
    """Equal windows in a balanced order, so that a drift of the host meets both alike.

    An emulated CPU shares the host's with the other emulated CPUs, so that a thread
    that wakes on a housekeeping CPU is a gap on a training CPU. Therefore something
    wakes as often without the module. What can be told here: nothing in the node
    takes the CPU more often, and the gaps are of the same distribution.
    """
    vm = shared_node
    windows = {True: [], False: []}
    for loaded in (True, False, False, True, True, False):
        vm.run("modprobe nullhz_stall" if loaded else "modprobe -r nullhz_stall")
        passes = counter(vm, "passes") if loaded else 0
        with contextlib.nullcontext() if loaded else sleepers(vm):
            window = train(vm, SECONDS)
        assert {rank["watched"] for rank in window[1]} == {loaded}
        # 10 ms each, less what the emulation loses.
        assert not loaded or counter(vm, "passes") - passes > SECONDS * 50
        windows[loaded].append(window)
    counts = [[counts for counts, _ in windows[side]] for side in (True, False)]
    assert more_than_chance(*counts) == {}

    seen = {side: [rank for _, ranks in windows[side] for rank in ranks] for side in windows}
    for name in ("longest_ns", "over_100us", "over_1ms", "switches"):
        values = {side: sorted(rank[name] for rank in ranks) for side, ranks in seen.items()}
        print(f"{name}: {values[True]} with the module, {values[False]} without")
        # What the module took would be in each window: a sampler that came by is 200 switches.
        # That all six are above the other six is chance once in 924.
        assert min(values[True]) <= max(values[False]), name


def test_nothing_of_ours_reaches_them(shared_node):
    """Traced: also while another rank stalls, its stacks are logged, and it recovers."""
    vm = shared_node
    vm.run("modprobe nullhz_stall")
    tune(vm, no_ack_ms=200, bite_ms=3_600_000)
    reader = listen(vm)
    rank = Rank(vm, 50, cpu=1, step=DEADLINE_MS)
    program = guest.put_program(vm, "steady")
    ranks = [vm.spawn(["taskset", "-c", str(cpu), program, str(cpu), "8"]) for cpu in TRAINING]
    reader.wait(count=3, source=bus.SRC_STALL, kind=bus.EV_REGISTERED)
    # From here on they make no system call: in one they could hold a lock that the sampler wants,
    # and would be made to run on for that.
    with traced(vm) as trace:
        rank.do("spin 1200")
        expect(reader, 0, rank, bus.EV_NO_ACK)
        expect_recovery(reader, 0, rank, bus.NO_ACK)
    assert all(running.wait().rc == 0 for running in ranks)
    rank.leave()
    # Without any event in it, too, which is as it should be: the probe shows what it can see.
    assert trace.ours() == []
    with traced(vm) as trace:
        probe(vm)
    assert trace.ours(), "the trace cannot see ours"


def wait_seen(vm, thread, cpu):
    """Waits until a thread of ours was last seen on a CPU."""
    script = 'until [ "$(cut -d" " -f39 /proc/$(pgrep -x "$1")/stat)" = "$2" ]; do sleep 0.05; done'
    vm.run(["sh", "-c", script, "sh", thread, str(cpu)], 10)


def inside(path, *command):
    """A command that runs in a cgroup."""
    return ["sh", "-c", f'echo $$ > {path}/cgroup.procs; exec "$@"', "sh", *command]


def test_a_cpu_that_is_isolated_at_run_time(shared_node):
    """A cpuset takes a CPU that has a thread of ours: the thread goes, and comes back after it."""
    vm = shared_node
    cpu = HOUSEKEEPING[1]
    thread = f"nullhz_stall/{cpu}"
    program = guest.put_program(vm, "steady")

    def train(path, rank):
        """A busy while on the CPU: ({row: interrupts}, what was traced)."""
        running = vm.spawn(inside(path, program, rank, str(SECONDS + 4)))
        vm.run("sleep 0.5")
        with traced(vm, [cpu]) as trace:
            before = interrupts(vm, [cpu])
            vm.run(f"sleep {SECONDS}")
            counts = moved(before, interrupts(vm, [cpu]))
        assert running.wait().rc == 0
        assert trace.there, "the trace sees nothing"
        return counts, trace

    vm.run("modprobe -r nullhz_stall")
    with partition(vm, cpu) as path:
        without, _ = train(path, "-1")

    vm.run("modprobe nullhz_stall")
    wait_seen(vm, thread, cpu)
    reader = listen(vm)
    with partition(vm, cpu) as path:
        passes = counter(vm, "passes")
        counts, trace = train(path, "20")
        assert trace.ours() == []
        assert more_than_chance([counts], [without]) == {}
        # 10 ms each, less what the emulation loses.
        assert counter(vm, "passes") - passes > SECONDS * 50
        # Whoever has the CPU to himself is no evidence against the node.
        vm.run(inside(path, "chrt", "-f", "99", program, "-1", "3"))
        events = reader.events(source=bus.SRC_STALL)
        assert not [event for event in events if event["stall"]["evidence"] & bus.E_HOUSEKEEPING]
    wait_seen(vm, thread, cpu)
