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

# In the time of one call: other interrupts for functions.
OTHERS = 8
ROUNDS = 2
MODES = ",".join(mmu.BROADCASTS)
SIZES = (4, 16, 64)


def node(nodes, cpus):
    memory = 1536 if cpus < 64 else 3072
    vm = nodes.boot(f"mmu-targets-{cpus}", **mmu.NODE, cpus=cpus, memory=memory)
    mmu.load(vm)
    return vm


@pytest.fixture(scope="module")
def vm(nodes):
    before = len(nodes.running)
    yield node(nodes, min(SIZES))
    nodes.stop(before)


@pytest.fixture(scope="module", params=SIZES, ids=lambda cpus: f"{cpus} CPUs")
def sized(request, nodes):
    """Nodes from small to large, of which `vm` is none."""
    before = len(nodes.running)
    yield node(nodes, request.param)
    nodes.stop(before)


@pytest.fixture(autouse=True)
def kernel_stays_clean(nodes):
    yield
    for vm in nodes.running:
        vm.assert_clean()


def account(report):
    """A row per mode: broadcasts, interrupts by the kernel's count, and the calls' latency."""
    rows = []
    for mode in mmu.BROADCASTS:
        if shown := report["modes"].get(mode):
            flushes = [counts["flushes"] for counts in shown["rounds"]]
            calls = [counts["interrupts"]["calls"] for counts in shown["rounds"]]
            shootdowns = [counts["interrupts"]["shootdowns"] for counts in shown["rounds"]]
            rows.append(
                f"{report['workload']}, {report['cpus']} CPUs, {mode}: {shown['operations']} calls, "
                f"broadcasts {flushes}, CAL {calls} of which TLB {shootdowns}, "
                f"p50 {shown['latency_ns']['p50'] / 1000:.0f} us"
            )
    return "\n".join(rows)


def one_munmap(vm, rounds):
    """W1: 20,480 broadcasts of B0, 80 of B1, one of ours."""
    report = mmu.workload(vm, "munmap", modes=MODES, rounds=rounds, timeout=1800)
    flushes = {
        mode: [counts["flushes"] for counts in each["rounds"]] for mode, each in report["modes"].items()
    }
    assert flushes == {mode: [count] * rounds for mode, count in mmu.BROADCASTS.items()}
    # A ticket for each notifier: they are those of B1, with all intervals in them.
    expected = {"events": 1, "intervals": mmu.INTERVALS, "tickets": mmu.BROADCASTS["b1"], "flushes": 1}
    expected |= dict.fromkeys(("elided", "joined", "would_block", "sync_flushes"), 0)
    for ours in report["modes"]["batched"]["rounds"]:
        assert {name: ours["library"][name] for name in expected} == expected
    mmu.assert_agreement(report)
    mmu.assert_right(report)
    return report


def concurrent_callers(vm, modes, rounds, window_us):
    """W2: 16 threads; each call would be a flush by itself."""
    each, times = 32, 2
    mmu.tune(vm, combine_window_us=window_us)
    options = ["churn", "--threads", THREADS, "--pages", each, "--operations", times, "--each"]
    settings = {"flush-delay-us": FLUSH_US}
    report = mmu.workload(vm, *options, modes=modes, rounds=rounds, timeout=900, **settings)
    mmu.tune(vm, combine_window_us=0)
    operations = THREADS * each * times
    for mode, shown in report["modes"].items():
        for counts in shown["rounds"]:
            library = counts["library"]
            if mode != "batched":
                assert counts["flushes"] == operations, (mode, counts)
                continue
            assert library["tickets"] == operations, library
            assert library["tickets"] >= COMBINED * counts["flushes"], library
            assert bool(library["window_waits"]) == bool(window_us), library
    mmu.assert_agreement(report, merged=True)
    mmu.assert_right(report)
    return report


def driver_unmaps(vm, modes, rounds):
    """The timed gather: at least 100 unmaps in one flush, of a device that takes its time."""
    unmaps = 2048
    options = ["gather", "--buffers", unmaps]
    settings = {"flush-delay-us": FLUSH_US}
    report = mmu.workload(vm, *options, modes=modes, rounds=rounds, timeout=900, **settings)
    for mode, shown in report["modes"].items():
        for counts in shown["rounds"]:
            library, flushes = counts["library"], counts["flushes"]
            assert counts["unbinds"] == unmaps, (mode, counts)
            if mode != "batched":
                # Without the library each is a flush.
                assert flushes == unmaps, (mode, counts)
                continue
            assert library["deferred"] == library["released"] == unmaps, library
            assert unmaps >= UNMAPS * flushes, counts
    mmu.assert_agreement(report)
    mmu.assert_right(report)
    return report


@pytest.mark.exact
def test_one_munmap_of_40_gb(vm):
    one_munmap(vm, 1)


def test_one_munmap_by_callbacks_of_its_own(vm):
    """W1 with a second pass for each interval: one flush all the same."""
    report = mmu.workload(vm, "munmap", modes="typed", rounds=1, timeout=1800)
    [ours] = report["modes"]["typed"]["rounds"]
    assert ours["flushes"] == 1
    assert ours["library"]["intervals"] == ours["library"]["tickets"] == mmu.INTERVALS
    mmu.assert_agreement(report)
    mmu.assert_right(report)


@pytest.mark.parametrize("mib", [0, 3, 1 << 27])
def test_one_munmap_whatever_shares_a_notifier(vm, mib):
    """Each interval alone; those that lie within 3 MB, and the others alone; and all of them."""
    mmu.tune(vm, notifier_mib=mib)
    try:
        report = mmu.workload(vm, "munmap", "--intervals", 512, modes="batched", rounds=1)
    finally:
        mmu.tune(vm, notifier_mib=512)
    [ours] = report["modes"]["batched"]["rounds"]
    assert ours["flushes"] == 1 and ours["library"]["intervals"] == 512, ours
    # In 3 MB there is room for one.
    assert ours["library"]["tickets"] == (1 if mib > 3 else 512), ours
    mmu.assert_agreement(report)
    mmu.assert_right(report)


def test_concurrent_callers_share_flushes(vm):
    concurrent_callers(vm, "b0,b1,batched", 1, 0)


def test_driver_unmaps_share_flushes(vm):
    driver_unmaps(vm, "b0,batched", 1)


# --- The same counts, however many CPUs there are ----------------------------------


@pytest.mark.long
@pytest.mark.exact
def test_one_munmap_at_every_size(sized, record_property):
    """In all modes in turn; and where it is one broadcast, the kernel saw just that."""
    report = one_munmap(sized, ROUNDS)
    record_property("told", account(report))
    for mode in ("b2", "batched"):
        interrupts = [counts["interrupts"] for counts in report["modes"][mode]["rounds"]]
        # Of what else interrupts a CPU only the TLB shootdowns are known.
        seen = min(each["calls"] - each["shootdowns"] for each in interrupts)
        assert abs(seen - (report["cpus"] - 1)) < OTHERS, (mode, interrupts)


@pytest.mark.long
@pytest.mark.parametrize("window_us", [0, 50])
def test_concurrent_callers_at_every_size(sized, window_us, record_property):
    report = concurrent_callers(sized, MODES, ROUNDS, window_us)
    record_property("told", f"window {window_us} us\n{account(report)}")


@pytest.mark.long
def test_driver_unmaps_at_every_size(sized, record_property):
    record_property("told", account(driver_unmaps(sized, MODES, ROUNDS)))
