# SPDX-License-Identifier: GPL-2.0
"""Every allocation of our modules fails once, and every copy from or to user space.

What was asked for then fails with the errno that says so, works when it is asked for again, and
leaves nothing behind. Needs the debug kernel, which also sees what is used after it was freed.
"""

import collections
import json
import re

import mmu
import pytest
from memory import leftovers
from nullhz import guest
from stalls import Rank, counter

pytestmark = pytest.mark.debug

NODE = {"append": "nullhz.agent=off"}
KINDS = ("failslab", "fail_page_alloc", "fail_usercopy")
# All modules but those for tests, as the folders' Kbuild files name them.
MODULES = [
    module
    for place in ("drivers", "samples")
    for kbuild in sorted((guest.TOP / place).rglob("Kbuild"))
    for module in re.findall(r"^obj-m\s*[+:]?=\s*(\S+)\.o", kbuild.read_text(), re.M)
]
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
# Of the software GPU, and with it of nullhz_mmu_batch.
GPU_CALLS = "open info counters cpu mode register unregister prefetch munmap close".split()
GPU_CALLS += "oracle violation run stop access bind unbind submit faults".split()
# What its C twin does not have.
RUST_ONLY = set("cpu mode unregister violation bind unbind submit faults".split())
# What neither allocates nor copies, or goes on without. LEAVE tells the bus, which has all its memory.
CANNOT_FAIL = {"stall leave", "close", "submit"}


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
    guest.put_program(vm, "fail_nth_gpu", compiler=(*guest.CC, mmu.UAPI))
    return vm


def only_below_modules(vm, limited):
    """Whether only what a module calls fails, instead of all that a thread does.

    A module's code is behind the kernel's. What kmemleak takes for itself is nobody else's.
    """
    require, reject = ("0", "ffffffffffffffff"), ("0", "0")
    if limited:
        symbols = [line.split()[:3] for line in vm.read("/proc/kallsyms").splitlines()]
        addresses = {name: address for address, _, name in symbols}
        require = (addresses["_etext"], "ffffffffffffffff")
        behind = [address for address, _, _ in symbols if address > addresses["__alloc_object"]]
        reject = (addresses["__alloc_object"], min(behind))
    for kind in KINDS:
        for name, (start, end) in {"require": require, "reject": reject}.items():
            place = f"/sys/kernel/debug/{kind}/{name}"
            vm.run(f"echo 0x{start} > {place}-start; echo 0x{end} > {place}-end")


def count(name, line):
    """What fail_nth has printed: checks it, counts and returns it."""
    result = json.loads(line)
    points[name] += result["points"]
    print(f"{name}: {line.strip()}")
    allowed = {"ENOMEM", "EFAULT"}
    if name.startswith("load "):
        # What the kernel's faux devices and numbers of misc devices say instead.
        allowed |= {"ENODEV", "EBUSY"}
    assert set(result["errors"]) <= allowed, f"{name}: {result}"
    return result


def sweep(vm, name, *arguments, program="fail_nth", timeout=300):
    command = [f"{guest.HOME}/{program}", name, *arguments]
    named = " ".join((name, *arguments[:1]))
    return count(named, vm.run(command, timeout).stdout)


def unload_all(vm):
    """Those that others need after the others."""
    loaded = "lsmod | awk '/^nullhz_/ { print $1 }'"
    vm.run(f"for turn in 1 2 3 4; do for m in $({loaded}); do rmmod $m 2>/dev/null; done; done", 60)
    assert vm.run(loaded).stdout == ""


@pytest.mark.parametrize("call", CALLS)
def test_calls(vm, call, record_property):
    result = sweep(vm, call)
    record_property("told", f"{result}")
    assert bool(result["errors"]) == (call not in CANNOT_FAIL), result


@pytest.mark.parametrize("device", mmu.MODULES)
@pytest.mark.parametrize("call", GPU_CALLS)
def test_software_gpu(vm, device, call, record_property):
    if device == mmu.TWIN and call in RUST_ONLY:
        pytest.skip("the C twin does not have it")
    mmu.load(vm, device)
    result = sweep(vm, call, device, program="fail_nth_gpu")
    record_property("told", f"{result}")
    # What the kernel's own munmap() does with less memory is its business.
    if call != "munmap":
        assert bool(result["errors"]) == (call not in CANNOT_FAIL), result


def test_attributes(vm, record_property):
    """All files in sysfs and debugfs, and what can be written to them: their own contents."""
    for device in mmu.MODULES:
        mmu.load(vm, device)
    found = vm.run(
        """
        find /sys/class/misc/nullhz-*/ /sys/devices/faux/nullhz_* /sys/kernel/debug/nullhz_* \
             -type f ! -path '*/power/*' ! -name uevent ! -name run ! -name persist \
             ! -name withdraw ! -name report_ns -printf '%m %p\n'
        """
    ).stdout
    files = [(int(mode, 8), path) for mode, path in (line.split() for line in found.splitlines())]
    readable = [path for mode, path in files if mode & 0o400]
    writable = [path for mode, path in files if mode & 0o600 == 0o600]
    assert len(readable) > 100 and len(writable) > 20, found
    read = sweep(vm, "read", *readable)
    assert read["points"] >= 2 * len(readable), read
    written = sweep(vm, "write", *writable)
    assert written["errors"], written
    record_property("told", f"{len(readable)} read: {read}\n{len(writable)} written: {written}")


def test_nothing_stays_open(vm):
    """No reader of the bus, no rank, no memory of a process, and nothing that is to be unmapped."""
    for table in ("nullhz_fault/readers", "nullhz_stall/ranks"):
        shown = vm.read(f"/sys/kernel/debug/{table}")
        assert len(shown.splitlines()) == 1, shown
    for device, library in mmu.LIBRARY.items():
        mmu.load(vm, device)
        for name in ("spaces", "kept_unmaps"):
            assert vm.read(f"{library}/{name}").strip() == "0", name


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


def test_other_threads_ask_for_nothing(vm, record_property):
    """While they look at ranks, tell of a stall and end windows, their first allocation would fail."""
    mmu.load(vm)
    threads = vm.run("grep -l '^nullhz_' /proc/[0-9]*/comm | cut -d/ -f3").stdout.split()
    assert len(threads) >= 5, threads
    vm.run("".join(f"echo 1 > /proc/{thread}/fail-nth\n" for thread in threads))
    # A rank that stops, buffers that are unmapped, faults.
    rank = Rank(vm, step=400)
    rank.signal("STOP")
    vm.run([f"{guest.HOME}/fail_nth_gpu", "unbind", mmu.DEVICE], 60)
    vm.run("echo count=1000 level=imminent > /sys/kernel/debug/nullhz_fault_gen/run; sleep 3")
    rank.kill()
    left = vm.run("".join(f"cat /proc/{thread}/fail-nth\n" for thread in threads)).stdout.split()
    vm.run("".join(f"echo 0 > /proc/{thread}/fail-nth\n" for thread in threads))
    assert counter(vm, "stalled"), "nothing has stalled"
    assert left == ["1"] * len(threads), (threads, left)
    record_property("told", f"{len(threads)} threads")


@pytest.mark.parametrize("module", MODULES)
def test_load(vm, module, record_property):
    unload_all(vm)
    path = vm.run(["modinfo", "-n", module]).stdout.strip()
    needs = vm.run(["modinfo", "-F", "depends", module]).stdout.strip()
    for name in filter(None, needs.split(",")):
        vm.run(["modprobe", name])
    only_below_modules(vm, True)
    result = sweep(vm, "load", path, module, timeout=900)
    record_property("told", f"{result}")
    # nullhz_mmu_batch has all its memory from its drivers' calls.
    assert bool(result["errors"].get("ENOMEM")) == (module != "nullhz_mmu_batch"), result
    only_below_modules(vm, False)
    # Going asks for nothing but the name of what is to go.
    result = sweep(vm, "unload", path, module)
    assert set(result["errors"]) <= {"EFAULT"}, result
    unload_all(vm)
    assert leftovers(vm) == []


def test_nothing_is_leaked(vm, record_property):
    unload_all(vm)
    assert guest.leaks(vm) == ""
    assert "already present" not in "\n".join(vm.dmesg())
    record_property("told", f"{sum(points.values())} failures, each alone")
