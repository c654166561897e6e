# SPDX-License-Identifier: GPL-2.0
"""What disturbs CPUs that nothing may disturb: counts of interrupts, and who caused them."""

import contextlib
import math

from nullhz import guest

TRAINING = (2, 3)
TRACING = "/sys/kernel/tracing/instances"
# What happens on a training CPU, and who sends interrupts to one.
THERE = ("irq_vectors", "sched/sched_switch", "workqueue/workqueue_execute_start")
THERE += ("timer/hrtimer_expire_entry", "timer/timer_expire_entry")
SENDERS = {"ipi/ipi_send_cpu": "cpu", "ipi/ipi_send_cpumask": "cpumask"}


def interrupts(vm, cpus=TRAINING):
    """{row: number on all training CPUs} of /proc/interrupts."""
    return guest.interrupts(vm, cpus)


def moved(before, after):
    return {name: count - before.get(name, 0) for name, count in after.items()}


def more_than_chance(these, those):
    """Rows that `these` windows have more often than `those`; as many windows, as long each.

    Sums are compared, not extremes. The kernel's own remainders (the 1 Hz tick
    and what comes with it) come at random: three standard deviations of the
    difference of two such counts are allowed, and two for rare rows.
    """
    assert len(these) == len(those)
    rows = sorted({name for window in (*these, *those) for name in window})
    found = {}
    for name in rows:
        ours, theirs = (sum(window.get(name, 0) for window in windows) for windows in (these, those))
        if ours - theirs > 3 * math.sqrt(ours + theirs) + 2:
            found[name] = (ours, theirs)
        if ours or theirs:
            print(f"{name}: {ours} with the modules, {theirs} without")
    return found


class Trace:
    """What was traced: lines of the training CPUs, and of who interrupts them."""

    def __init__(self):
        self.there = []
        self.senders = []

    def ours(self):
        """Those that our code, or a thread of ours, has part in."""
        return [line for line in (*self.there, *self.senders) if "nullhz" in line]


@contextlib.contextmanager
def traced(vm, cpus=TRAINING):
    """Traces what happens on `cpus` while the block runs."""
    trace = Trace()
    there, senders = f"{TRACING}/there", f"{TRACING}/senders"
    mask = f"{sum(1 << cpu for cpu in cpus):x}"
    script = [f"set -e; mkdir {there} {senders}; echo {mask} > {there}/tracing_cpumask"]
    script += [f"echo 1 > {there}/events/{event}/enable" for event in THERE]
    for event, target in SENDERS.items():
        condition = f"{target} & CPUS{{{','.join(map(str, cpus))}}}"
        script.append(f"echo '{condition}' > {senders}/events/{event}/filter")
        script.append(f"echo 1 > {senders}/events/{event}/enable")
    # Tracepoints are switched on by patching code, which interrupts all CPUs.
    script += ["sleep 0.5", f"echo > {there}/trace; echo > {senders}/trace"]
    vm.run("\n".join(script))
    try:
        yield trace
        vm.run(f"echo 0 > {there}/tracing_on; echo 0 > {senders}/tracing_on")
        for path, lines in ((there, trace.there), (senders, trace.senders)):
            text = vm.run(["cat", f"{path}/trace"]).stdout
            lines += [line for line in text.splitlines() if not line.startswith("#")]
    finally:
        vm.run(f"for i in {there} {senders}; do echo 0 > $i/events/enable; rmdir $i; done")


def probe(vm):
    """A process with a name like ours on a training CPU: what traced() has to find."""
    vm.put("#!/bin/sh\n:\n", "/root/nullhz-probe", 0o755)
    vm.run(["taskset", "-c", str(TRAINING[0]), "/root/nullhz-probe"])


@contextlib.contextmanager
def partition(vm, cpu):
    """Takes `cpu` from the system for an isolated partition of cpusets; its path."""
    top = "/sys/fs/cgroup"
    path = f"{top}/isolated"
    script = [f"set -e; echo +cpuset > {top}/cgroup.subtree_control; mkdir {path}"]
    script += [f"echo {cpu} > {path}/cpuset.cpus; echo isolated > {path}/cpuset.cpus.partition"]
    vm.run("; ".join(script))
    assert vm.read(f"{path}/cpuset.cpus.partition") == "isolated"
    try:
        yield path
    finally:
        vm.run(f"cd {path}; echo member > cpuset.cpus.partition; echo 1 > cgroup.kill")
        vm.run(f"until rmdir {path}; do sleep 0.1; done")
