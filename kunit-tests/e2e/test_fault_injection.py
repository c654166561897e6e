# SPDX-License-Identifier: GPL-2.0
"""Every allocation of our modules fails once, and every copy from or to user space.

What was asked for then fails with the errno that says so, works when it is asked for again, and
leaves nothing behind. Needs the debug kernel, which also sees what is used after it was freed.
"""

import collections
import json

import pytest
from memory import leftovers
from nullhz import guest

pytestmark = pytest.mark.debug

NODE = {"append": "nullhz.agent=off"}
KINDS = ("failslab", "fail_page_alloc", "fail_usercopy")
MODULES = ("nullhz_fault", "nullhz_mce", "nullhz_stall")
# All failures that were made, by what had them.
points = collections.Counter()

CALLS = [
    "fault open",
    "fault info",
    "fault filter",
    "fault seek",
    "fault read",
    "fault poll",
    "fault epoll",
    "fault signals",
    "fault ack",
    "fault incident",
    "stall open",
    "stall info",
    "stall register",
    "stall grace",
    "stall leave",
    "stall checkpoint",
    "stall answers",
    "stall rank",
    "stall map",
]
# What neither allocates nor copies. LEAVE tells the bus, which has all its memory.
WITHOUT = {"stall leave"}


@pytest.fixture(scope="module")
def vm(shared_node):
    """A node in which any allocation of a thread that wants it fails."""
    vm = shared_node
    kinds = " ".join(KINDS)
    vm.run(
        f"""
        cd /sys/kernel/debug
        for kind in {kinds}; do echo 0 > $kind/verbose; done
        echo N > failslab/ignore-gfp-wait
        echo N > fail_page_alloc/ignore-gfp-wait
        echo N > fail_page_alloc/ignore-gfp-highmem
        echo 0 > fail_page_alloc/min-order
        # Each step of a module waits for all CPUs once or more: they are asked to hurry.
        echo 1 > /sys/kernel/rcu_expedited
        modprobe nullhz_fault_gen
        echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms
        """
    )
    guest.put_program(vm, "fail_nth")
    return vm


def only_within(vm, function=None):
    """Makes failures only of what this function of the kernel calls; None: of everything."""
    start, end = "0", "ffffffffffffffff"
    if function:
        symbols = sorted(line.split()[:3] for line in vm.read("/proc/kallsyms").splitlines())
        at = next(number for number, symbol in enumerate(symbols) if symbol[2] == function)
        start = symbols[at][0]
        end = next(symbol[0] for symbol in symbols[at:] if symbol[0] != start)
    for kind in KINDS:
        place = f"/sys/kernel/debug/{kind}"
        vm.run(f"echo 0x{start} > {place}/require-start; echo 0x{end} > {place}/require-end")


def count(name, line):
    """What fail_nth has printed: checks it, counts and returns it."""
    result = json.loads(line)
    points[name] += result["points"]
    print(f"{name}: {line.strip()}")
    assert set(result["errors"]) <= {"ENOMEM", "EFAULT"}, f"{name}: {result}"
    return result


def sweep(vm, name, *arguments, timeout=300):
    command = [f"{guest.HOME}/fail_nth", name, *arguments]
    return count(" ".join((name, *arguments)), vm.run(command, timeout).stdout)


def unload_all(vm):
    vm.run("for m in nullhz_fault_gen nullhz_stall nullhz_mce nullhz_fault; do modprobe -qr $m; done", 60)


@pytest.mark.parametrize("call", CALLS)
def test_calls(vm, call):
    result = sweep(vm, call)
    assert bool(result["errors"]) == (call not in WITHOUT), result


def test_attributes(vm):
    """All files in sysfs and debugfs, and what can be written to them: their own contents."""
    found = vm.run(
        """
        find /sys/class/misc/nullhz-fault/ /sys/class/misc/nullhz-stall/ /sys/devices/faux/nullhz_mce \
             /sys/kernel/debug/nullhz_* -type f ! -path '*/power/*' ! -name uevent ! -name run \
             ! -name persist ! -name report_ns -printf '%m %p\\n'
        """
    ).stdout
    swept = 0
    for mode, path in (line.split() for line in found.splitlines()):
        if int(mode, 8) & 0o400:
            assert sweep(vm, "read", path)["points"]
            swept += 1
        text = vm.read(path) if mode == "644" else ""
        if text:
            assert sweep(vm, "write", path, text)["errors"]
            swept += 1
    assert swept > 50, found


def test_the_bus_thread_tells_a_program(vm):
    """What fails in the thread fails nobody else, and the next incident is told again."""
    vm.put("#!/bin/sh\necho told >> /run/told\n", "/run/tell", 0o755)
    helper = "/sys/class/misc/nullhz-fault/helper"
    vm.run(f"echo /run/tell > {helper}")
    thread = vm.run("pgrep -x nullhz_fault").stdout.strip()
    result = sweep(vm, "thread", thread)
    assert result["points"] and not result["errors"]
    # The one without a failure is the last one.
    vm.run(f"echo > {helper}; [ -s /run/told ]")


@pytest.mark.parametrize("module", MODULES)
def test_load(vm, module):
    unload_all(vm)
    path = vm.run(["modinfo", "-n", module]).stdout.strip()
    needs = vm.run(["modinfo", "-F", "depends", module]).stdout.strip()
    for name in filter(None, needs.split(",")):
        vm.run(["modprobe", name])
    only_within(vm, "do_init_module")
    result = sweep(vm, "load", path, module, timeout=600)
    assert result["errors"].get("ENOMEM"), result
    only_within(vm)
    # Going asks for nothing.
    result = sweep(vm, "unload", path, module)
    assert not result["errors"], result
    unload_all(vm)
    assert leftovers(vm) == []


def test_nothing_is_leaked(vm, record_property):
    unload_all(vm)
    assert guest.leaks(vm) == ""
    assert "already present" not in "\n".join(vm.dmesg())
    record_property("told", f"{sum(points.values())} failures, each alone")
