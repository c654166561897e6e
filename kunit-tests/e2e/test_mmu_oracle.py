# SPDX-License-Identifier: GPL-2.0
"""No access of the device that begins after the call returned sees what was before it.

Memory goes in every way that Linux knows, in all modes, while the device reads and
writes it on all CPUs. That the oracle would see it is test_mmu_mutants.py's affair.
"""

import itertools
import time

import mmu
import pytest

pytestmark = pytest.mark.exact
NODE = mmu.NODE

CPUS = "0,1,2,3"
# Each with its options but how often, and accesses that come together in any case, by mode.
WAYS = {
    "munmap": (["munmap", "--intervals", 512, "--meanwhile"], 2000),
    "churn": (["churn", "--threads", 8], 500),
    "churn, faults only": (["churn", "--threads", 4, "--lazy"], 500),
    "churn, twice each": (["churn", "--threads", 4, "--twins"], 500),
    "swap": (["swap"], 500),
    "fork": (["fork"], 500),
    "pageout": (["reclaim", "--by", "pageout"], 500),
    "memcg": (["reclaim", "--by", "memcg", "--cgroup", mmu.CGROUP], 500),
    "migrate": (["reclaim", "--by", "migrate"], 500),
    "offline": (["reclaim", "--by", "offline", "--pages", 32], 500),
    "mrelease": (["mrelease", "--pages", 2048], 1),
    "gather": (["gather"], 4096),
}
# How often, in a short run and in a long one; 0: that workload does it once.
OFTEN = {
    "munmap": (0, 0),
    "churn": (10, 100),
    "churn, faults only": (15, 100),
    "churn, twice each": (8, 60),
    "swap": (6, 40),
    "fork": (4, 20),
    "pageout": (2, 10),
    "memcg": (2, 10),
    "migrate": (2, 20),
    "offline": (2, 6),
    "mrelease": (1, 5),
    "gather": (0, 0),
}
# In a short run these are seen in all modes, the others in the library's.
ALL_MODES = ("munmap", "churn", "swap", "fork", "gather")
# Where the device only reads.
READS = ("mrelease",)
# What needs two NUMA nodes, between which pages move; all others.
FAR = ("migrate",)
NEAR = tuple(way for way in WAYS if way not in FAR)
HALF = "size=768M"
NUMA = [
    *("-object", f"memory-backend-ram,id=near,{HALF}", "-object", f"memory-backend-ram,id=far,{HALF}"),
    *("-numa", "node,nodeid=0,cpus=0-1,memdev=near", "-numa", "node,nodeid=1,cpus=2-3,memdev=far"),
]
# What the C twin does not have.
RUST_ONLY = ("gather",)
MANY = 100_000_000
# Of some ways a round is over at once; in others the device gets to do a lot.
ROUNDS = {"munmap": 16, "gather": 16, "churn, faults only": 4, "churn, twice each": 4, "swap": 4, "fork": 4}


@pytest.fixture(scope="module")
def vm(shared_node):
    for device in mmu.MODULES:
        mmu.load(shared_node, device)
    mmu.make_cgroup(shared_node)
    return shared_node


def run(vm, way, device=mmu.DEVICE, often=0, **settings):
    options, least = WAYS[way]
    if OFTEN[way][often]:
        options = [*options, "--operations", OFTEN[way][often]]
    write = {} if device == mmu.TWIN or way in READS else {"write": True}
    report = mmu.workload(vm, *options, device=device, cpus=CPUS, **write, **settings)
    mmu.assert_right(report, least)
    for mode, shown in report["modes"].items():
        for counts in shown["rounds"]:
            # It was taken from the device, not just from the process.
            assert counts["flushes"], (mode, counts)
            assert counts["zapped"] or shown.get("zapped") or counts["unbinds"], (mode, counts)
            assert counts["library"]["flush_errors"] == 0, (mode, counts)
    return report


def judged(report):
    accesses = {mode: shown["verdict"]["accesses"] for mode, shown in report["modes"].items()}
    return f"accesses judged: {sum(accesses.values())}, {accesses}"


@pytest.mark.parametrize("way", NEAR)
def test_short(vm, way):
    modes = ",".join([*mmu.BROADCASTS, "typed"]) if way in ALL_MODES else "batched,typed"
    report = run(vm, way, modes=modes)
    assert ",".join(report["modes"]) == ",".join(sorted(modes.split(",")))


@pytest.mark.parametrize("way", ["churn", "fork"])
def test_a_driver_in_c(vm, way):
    report = run(vm, way, mmu.TWIN)
    assert set(report["modes"]) == {"batched"}


@pytest.mark.long
@pytest.mark.parametrize("way", [way for way in NEAR if way not in RUST_ONLY])
def test_a_driver_in_c_for_longer(vm, way, record_property):
    record_property("told", judged(run(vm, way, mmu.TWIN, often=1)))


@pytest.mark.long
@pytest.mark.parametrize("way", NEAR)
def test_all_modes(vm, way, record_property):
    report = run(vm, way, often=1)
    assert set(report["modes"]) == set(mmu.BROADCASTS)
    record_property("told", judged(report))


@pytest.mark.long
def test_with_a_window(vm):
    mmu.tune(vm, combine_window_us=50)
    run(vm, "churn", often=1, modes="batched", rounds=2)
    mmu.tune(vm, combine_window_us=0)


# --- Many --------------------------------------------------------------------------


class Account:
    """What came of all ways together."""

    def __init__(self, ways):
        self.begun = time.monotonic()
        self.accesses = dict.fromkeys(ways, 0)
        self.sums = dict.fromkeys(("violations", "operations", "flushes", "zapped", "faults"), 0)

    @property
    def total(self):
        return sum(self.accesses.values())

    @property
    def seconds(self):
        return time.monotonic() - self.begun

    def add(self, way, report):
        for shown in report["modes"].values():
            verdict = shown["verdict"]
            self.accesses[way] += verdict["accesses"]
            self.sums["violations"] += verdict["violations"]
            self.sums["faults"] += verdict["faults"]
            self.sums["operations"] += shown["operations"]
            self.sums["zapped"] += shown.get("zapped", 0)
            for counts in shown["rounds"]:
                self.sums["flushes"] += counts["flushes"]
                self.sums["zapped"] += counts["zapped"]

    def __str__(self):
        sums = ", ".join(f"{count} {name}" for name, count in self.sums.items())
        ways = ", ".join(f"{way} {count}" for way, count in self.accesses.items())
        return f"{self.total} accesses in {self.seconds:.0f} s: {sums}\nof the accesses: {ways}"


def through(vm, ways, rounds, is_enough):
    """Each once, and then again and again until the account says that it is enough."""
    account = Account(ways)
    for number, way in enumerate(itertools.cycle(ways)):
        if number >= len(ways) and is_enough(account):
            break
        report = run(vm, way, often=1, modes="batched", rounds=rounds.get(way, 1), timeout=1200)
        account.add(way, report)
        print(f"{account.seconds:4.0f} s, {way}: {account.total} accesses")
        vm.assert_clean()
    print(account)
    return account


@pytest.fixture
def product(nodes):
    """A node as it is sold, and the modules for use."""
    before = len(nodes.running)
    more = {"flavour": "nullhz", "devices": NUMA, "memory": 2 * 768}
    vm = nodes.boot("mmu-oracle-product", **{**NODE, **more})
    mmu.load(vm)
    mmu.make_cgroup(vm)
    yield vm
    vm.assert_clean()
    nodes.stop(before)


@pytest.mark.long
def test_a_hundred_million_accesses(product, record_property):
    """On the product kernel, whose modules have no defects to switch on."""
    account = through(product, WAYS, ROUNDS, lambda account: account.total >= MANY)
    record_property("told", str(account))
    assert account.sums["violations"] == 0
    for way, accesses in account.accesses.items():
        assert accesses >= MANY // 1000, (way, account.accesses)
