# SPDX-License-Identifier: GPL-2.0
"""Batched invalidation: what is left of the broadcasts, and what that costs.

The three baselines are what careful drivers do today (samples/soft-gpu/README.md): B0
flushes for each interval, B1 for each notifier of 512 MB, B2 everything, once per event.

Emulated CPUs wait for their turn on the host's, so that what little the library's own
code takes is lost in the noise. Two machines count instructions instead of time
(`per_ns` of nullhz.qemu): one in which each is a nanosecond, of whatever CPU, which tells
costs exactly; and one of 16 CPUs that do one in a nanosecond each, so that callers meet as
they do on real CPUs, and a window of 50 us is not short beside a call.
"""

import json
import statistics

from nullhz.errors import NodeError

PROGRAM = "/usr/lib/nullhz/nullhz-soft-gpu"
LIBRARY = "/sys/devices/faux/nullhz_mmu_batch.soft-gpu"
# What intervals share a notifier of.
NOTIFIER = f"{LIBRARY}/tunables/notifier_mib"
BASELINES = {
    "b0": "a flush per interval",
    "b1": "a flush per notifier of 512 MB, as Xe",
    "b2": "a flush of everything per event",
}
OURS = "batched"

# W1: 40 GB
INTERVALS = 20_480
INTERVAL_KIB = 2048
W1_ROUNDS = 3
# Of the same, where instructions are counted: a tenth, as it takes longer.
COUNTED = 2048
COUNTED_ROUNDS = 6
CALLS = 200
UNCONTENDED_RUNS = 16
PROCESSES = 16
PAGES = 64
WINDOWS_US = (0, 50)
# So that one flush can take as many unmaps as real ones, which take longer than those of an
# emulator's interrupts.
FLUSH_US = 300
UNMAPS = 2048
CPUS = "0,1,2,3"
# Through which the device's accesses are judged; each with its options.
WAYS = (
    ("munmap", "--intervals", 512, "--meanwhile"),
    ("churn", "--threads", 8, "--operations", 30),
    ("churn", "--threads", 4, "--operations", 30, "--lazy"),
    ("swap", "--operations", 15),
    ("reclaim", "--by", "pageout", "--operations", 4),
    ("reclaim", "--by", "offline", "--pages", 32, "--operations", 4),
    ("fork", "--operations", 8),
    ("mrelease", "--operations", 2),
    ("gather",),
)
# The device forgets to wait for walks in flight: what the oracle is there for.
BROKEN = {"walk-delay-us": 500, "mutant": 1}


def load(vm):
    vm.run("modprobe nullhz_soft_gpu")


def work(vm, *workload, timeout=600, **settings):
    """Report of a workload."""
    command = [PROGRAM]
    for option, value in settings.items():
        command += [f"--{option}", str(value)]
    return json.loads(vm.run([*command, *map(str, workload)], timeout).stdout)


def one(report, mode, count):
    """A count of a mode, the same in each of its rounds."""
    values = {each[count] for each in report["modes"][mode]["rounds"]}
    if len(values) != 1:
        raise NodeError(f"{report['workload']}: {count} of {mode} differs between rounds: {values}")
    return values.pop()


def total(report, mode, count):
    return sum(each[count] for each in report["modes"][mode]["rounds"])


def agree(report):
    """Broadcasts by the library are those by the device, and each reached all CPUs."""
    for mode, shown in report["modes"].items():
        for counts in shown["rounds"]:
            library = counts["library"].get("flushes")
            if counts["handled"] + counts["remote"] != counts["flushes"] * report["cpus"]:
                raise NodeError(f"{mode}: not each broadcast reached all CPUs: {counts}")
            if library != (counts["flushes"] if mode == OURS else 0):
                raise NodeError(f"{mode}: the library counted other flushes: {counts}")
    if report["violations"]:
        raise NodeError(f"{report['workload']}: violations: {report['details']}")
    return report


def p50_us(report, mode):
    return report["modes"][mode]["latency_ns"]["p50"] / 1000


def middle_half_us(report, mode):
    """Within what half of the calls lie, those next to the median."""
    latency = report["modes"][mode]["latency_ns"]
    return (latency["p75"] - latency["p25"]) / 1000


def one_munmap(vm, table):
    """W1: munmap() of 40 GB in 20,480 intervals, one page of each in use."""
    report = agree(work(vm, "munmap", rounds=W1_ROUNDS))
    for mode, baseline in BASELINES.items():
        more = {"against": mode}
        broadcasts = one(report, mode, "flushes")
        table.add("mmu.w1_broadcasts", one(report, OURS, "flushes"), "flushes", baseline, broadcasts, **more)
    for mode, baseline in BASELINES.items():
        ours, theirs = p50_us(report, OURS), p50_us(report, mode)
        table.add("mmu.w1_munmap_us", ours, "us", baseline, theirs, against=mode)


def driver_unmaps(vm, table):
    """The timed gather."""
    options = ("gather", "--buffers", UNMAPS)
    fast = agree(work(vm, *options, modes=OURS))
    report = agree(work(vm, *options, modes=f"b0,{OURS}", **{"flush-delay-us": FLUSH_US}))
    ours, theirs = (total(report, m, "unbinds") / total(report, m, "flushes") for m in (OURS, "b0"))
    table.add(
        "mmu.window_unmaps_per_flush",
        ours,
        "unmaps",
        f"a flush per unmap; flushes take {FLUSH_US} us longer in both",
        theirs,
        without_delay=total(fast, OURS, "unbinds") / total(fast, OURS, "flushes"),
    )


def oracle(vm, table):
    """The device reads on all CPUs while its memory goes in every way."""
    accesses = {mode: 0 for mode in (OURS, "b0")}
    violations = 0
    for way in WAYS:
        report = work(vm, *way, cpus=CPUS, modes=f"b0,{OURS}")
        for mode in accesses:
            accesses[mode] += report["modes"][mode]["verdict"]["accesses"]
        violations += report["violations"]
    table.add("mmu.oracle_accesses", accesses[OURS], "accesses", "same workloads, B0", accesses["b0"])
    broken = work(vm, *WAYS[1], cpus=CPUS, modes=OURS, **BROKEN)["violations"]
    baseline = "one of the workloads, the device does not wait for its walks"
    table.add("mmu.oracle_violations", violations, "accesses", baseline, broken)


def uncontended(vm, table):
    """One thread, one interval: nothing to combine. Beside it, what the others differ from themselves by."""
    options = ("churn", "--threads", 1, "--pages", 1, "--operations", CALLS)
    runs = [agree(work(vm, *options, modes=f"b0,b2,{OURS}")) for _ in range(UNCONTENDED_RUNS)]
    ours = [p50_us(report, OURS) for report in runs]
    for mode in ("b0", "b2"):
        theirs = [p50_us(report, mode) for report in runs]
        added = statistics.median(mine - other for mine, other in zip(ours, theirs, strict=True))
        spread = statistics.median(middle_half_us(report, mode) for report in runs)
        baseline = f"madvise() with {BASELINES[mode]}; half of the calls within {spread:.1f} us"
        median = statistics.median(theirs)
        table.add("mmu.uncontended_added_us", added, "us", baseline, median, against=mode)


def instructions_uncontended(vm, table):
    """The same, of all 4 CPUs, which all that a flush costs is done by."""
    options = ("churn", "--threads", 1, "--pages", 1, "--operations", CALLS)
    report = agree(work(vm, *options, rounds=2, modes=f"b0,b2,{OURS}"))
    for mode in ("b0", "b2"):
        ours, theirs = (report["modes"][each]["latency_ns"]["p50"] for each in (OURS, mode))
        baseline = f"madvise() with {BASELINES[mode]}; instructions of all CPUs"
        more = {"against": mode}
        table.add("mmu.uncontended_added_instructions", ours - theirs, "insns", baseline, theirs, **more)


def instructions_of_one_munmap(vm, table):
    """The same munmap() as in one_munmap(), of a tenth of the size, in instructions.

    Of all CPUs, so that others count that have just something else to do, such as to free
    page tables of the round before: of several rounds the one with the least is taken.
    """
    options = ("munmap", "--intervals", COUNTED)

    def least(*more, mode=OURS):
        report = work(vm, *options, *more, modes=mode, rounds=COUNTED_ROUNDS)
        if "--bare" not in more:
            agree(report)
        return report["modes"][mode]["latency_ns"]["min"]

    bare, theirs = least("--bare"), least(mode="b2")
    default = vm.run(["cat", NOTIFIER]).stdout.strip()
    # As many intervals as B0 has notifiers, as B1, and as B2; the first also with one for each.
    for size, shared_mib in ((1, 0), (1, default), (256, default), (COUNTED, default)):
        vm.run(f"echo {shared_mib} > {NOTIFIER}")
        ours = least("--notifier-kib", size * INTERVAL_KIB)
        more = {"intervals": COUNTED // size, "notifier_mib": shared_mib}
        baseline = f"{BASELINES['b2']}, 1 notifier; munmap() of {COUNTED} intervals, instructions"
        table.add("mmu.w1_munmap_instructions", ours, "insns", baseline, theirs, **more)
        baseline = f"{BASELINES['b2']}, 1 notifier; both: less than without a device, 1 ns an instruction"
        ours, baseline_ns = ((ns - bare) / COUNTED for ns in (ours, theirs))
        table.add("mmu.callback_ns_per_interval", ours, "ns", baseline, baseline_ns, **more)


def consistent(vm):
    """The kernel's timers end when its clock says so, though neither is the host's."""
    shown = vm.run("cat /proc/uptime; sleep 1; cat /proc/uptime").stdout.split()
    begun, ended = float(shown[0]), float(shown[2])
    if not 0.98 <= ended - begun <= 1.1:
        raise NodeError(f"sleep 1 has taken {ended - begun:.2f} s by the kernel's own clock")


def concurrent_callers(vm, table):
    """W2: 16 processes that give their memory back, page by page."""
    consistent(vm)
    options = ("crowd", "--processes", PROCESSES, "--pages", PAGES)
    calls = PROCESSES * PAGES
    for window in WINDOWS_US:
        vm.run(f"echo {window} > {LIBRARY}/tunables/combine_window_us")
        report = agree(work(vm, *options, modes=f"b0,b2,{OURS}"))
        if (counted := total(report, "b0", "flushes")) != calls:
            raise NodeError(f"{calls} calls were {counted} flushes in B0")
        table.add(
            "mmu.combine16_ops_per_flush",
            calls / total(report, OURS, "flushes"),
            "calls",
            f"{BASELINES['b0']}, and 1 per call",
            calls / counted,
            window_us=window,
        )
        ours, theirs = p50_us(report, OURS), p50_us(report, "b0")
        table.add("mmu.combine16_call_us", ours, "us", BASELINES["b0"], theirs, window_us=window)
        ours, theirs = (total(report, mode, "full") for mode in (OURS, "b2"))
        baseline = f"{BASELINES['b2']}; same calls"
        table.add("mmu.full_flushes", ours, "flushes", baseline, theirs, window_us=window)
