# SPDX-License-Identifier: GPL-2.0
"""Callers that meet as on real CPUs: 16 of them, in a machine whose time is dilated."""

import mmu
import pytest

pytestmark = [pytest.mark.alone, pytest.mark.long]

PROCESSES, PAGES = 16, 32
CALLS = PROCESSES * PAGES
# Calls that share a flush, at least, by window in us.
SHARED = {0: 2.5, 50: 10}


@pytest.fixture(scope="module")
def vm(nodes):
    before = len(nodes.running)
    vm = nodes.boot("mmu-crowd", fresh=True, **mmu.NODE, per_ns=15, cpus=16, housekeeping=16)
    mmu.load(vm)
    yield vm
    nodes.stop(before)


@pytest.fixture(autouse=True)
def kernel_stays_clean(vm):
    yield
    vm.assert_clean()


def test_clock_and_timers_agree(vm):
    """A sleep ends when the kernel's clock says that it is over, which is not the host's."""
    for seconds in (0.2, 1):
        shown = vm.run(f"cat /proc/uptime; sleep {seconds}; cat /proc/uptime").stdout.split()
        begun, ended = float(shown[0]), float(shown[2])
        # /proc/uptime has hundredths.
        assert seconds - 0.02 <= ended - begun <= seconds + 0.1, (seconds, shown)
    assert vm.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") == "tsc"


@pytest.mark.parametrize("window_us", SHARED)
def test_callers_share_flushes(vm, window_us):
    mmu.tune(vm, combine_window_us=window_us)
    report = mmu.workload(vm, "crowd", "--processes", PROCESSES, "--pages", PAGES, modes="b0,batched")
    mmu.tune(vm, combine_window_us=0)
    [theirs], [ours] = (report["modes"][mode]["rounds"] for mode in ("b0", "batched"))
    assert theirs["flushes"] == CALLS, theirs
    library = ours["library"]
    assert library["tickets"] == CALLS, library
    assert CALLS >= SHARED[window_us] * ours["flushes"], library
    assert bool(library["window_waits"]) == bool(window_us), library
    mmu.assert_agreement(report, merged=True)
    print({mode: each["latency_ns"] for mode, each in report["modes"].items()})
