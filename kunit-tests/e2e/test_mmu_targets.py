# SPDX-License-Identifier: GPL-2.0
"""How many broadcasts are left, in all modes in turn, by everybody's count."""

import mmu
import pytest

pytestmark = pytest.mark.alone

THREADS = 16
# Calls that share a flush. An emulated caller takes half a millisecond from one call to the
# next, some thirty times as long as a real one; so the flush takes longer here as well. The
# library's window, 50 us at most, is too short to be seen beside that.
COMBINED = 2.5
FLUSH_US = 300
UNMAPS = 100

SIZES = [4, pytest.param(16, marks=pytest.mark.long), pytest.param(64, marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=SIZES, ids=lambda cpus: f"{cpus} CPUs")
def vm(request, nodes):
    before = len(nodes.running)
    memory = 1536 if request.param < 64 else 3072
    vm = nodes.boot(f"mmu-targets-{request.param}", **mmu.NODE, cpus=request.param, memory=memory)
    mmu.load(vm)
    yield vm
    nodes.stop(before)


@pytest.fixture(autouse=True)
def kernel_stays_clean(vm):
    yield
    vm.assert_clean()


@pytest.mark.exact
def test_one_munmap_of_40_gb(vm):
    """W1: 20,480 broadcasts of B0, 80 of B1, one of ours."""
    report = mmu.workload(vm, "munmap", timeout=900)
    flushes = {
        mode: [counts["flushes"] for counts in each["rounds"]] for mode, each in report["modes"].items()
    }
    assert flushes == {mode: [count] for mode, count in mmu.BROADCASTS.items()}
    [ours] = report["modes"]["batched"]["rounds"]
    expected = {"events": 1, "intervals": mmu.INTERVALS, "tickets": mmu.INTERVALS, "flushes": 1}
    expected |= dict.fromkeys(("elided", "joined", "would_block", "sync_flushes"), 0)
    assert {name: ours["library"][name] for name in expected} == expected
    mmu.assert_agreement(report)
    mmu.assert_right(report)
    print({mode: each["latency_ns"]["p50"] for mode, each in report["modes"].items()})


@pytest.mark.parametrize("window_us", [0, pytest.param(50, marks=pytest.mark.long)])
def test_concurrent_callers_share_flushes(vm, window_us):
    """W2: 16 threads; each call would be a flush by itself."""
    each, rounds = 32, 2
    mmu.tune(vm, combine_window_us=window_us)
    options = ["churn", "--threads", THREADS, "--pages", each, "--operations", rounds, "--each"]
    report = mmu.workload(vm, *options, modes="b0,b1,batched", **{"flush-delay-us": FLUSH_US})
    mmu.tune(vm, combine_window_us=0)
    operations = THREADS * each * rounds
    for mode in ("b0", "b1"):
        [counts] = report["modes"][mode]["rounds"]
        assert counts["flushes"] == operations, (mode, counts)
    [ours] = report["modes"]["batched"]["rounds"]
    library = ours["library"]
    assert library["tickets"] == operations, library
    assert library["tickets"] >= COMBINED * ours["flushes"], library
    assert bool(library["window_waits"]) == bool(window_us), library
    mmu.assert_agreement(report, merged=True)
    mmu.assert_right(report)


def test_driver_unmaps_share_flushes(vm):
    """The timed gather: at least 100 unmaps in one flush, of a device that takes its time."""
    unmaps = 2048
    settings = {"flush-delay-us": FLUSH_US}
    report = mmu.workload(vm, "gather", "--buffers", unmaps, modes="batched", **settings)
    [ours] = report["modes"]["batched"]["rounds"]
    library = ours["library"]
    assert library["deferred"] == library["released"] == ours["unbinds"] == unmaps, library
    assert ours["unbinds"] >= UNMAPS * ours["flushes"], ours
    mmu.assert_agreement(report)
    # Without the library each is a flush.
    report = mmu.workload(vm, "gather", "--buffers", unmaps, cpus=0, modes="b0,b1,b2")
    for mode, shown in report["modes"].items():
        [counts] = shown["rounds"]
        assert counts["flushes"] == counts["unbinds"] == unmaps, (mode, counts)
    mmu.assert_agreement(report)
    mmu.assert_right(report)
