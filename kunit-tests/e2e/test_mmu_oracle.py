# SPDX-License-Identifier: GPL-2.0
"""No access of the device that begins after the call returned sees what was before it.

Memory goes in every way that Linux knows, in all modes, while the device reads and
writes it on all CPUs. That the oracle would see it is test_mmu_mutants.py's affair.
"""

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
    "offline": (2, 6),
    "mrelease": (1, 5),
    "gather": (0, 0),
}
# In a short run these are seen in all modes, the others in the library's.
ALL_MODES = ("munmap", "churn", "swap", "fork", "gather")
# Where the device only reads.
READS = ("mrelease",)
# What the C twin does not have.
RUST_ONLY = ("gather",)
MANY = 100_000_000


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


@pytest.mark.parametrize("way", WAYS)
def test_short(vm, way):
    modes = ",".join(mmu.BROADCASTS) if way in ALL_MODES else "batched"
    report = run(vm, way, modes=modes)
    assert ",".join(report["modes"]) == ",".join(sorted(modes.split(",")))


@pytest.mark.parametrize("way", ["churn", "fork"])
def test_a_driver_in_c(vm, way):
    report = run(vm, way, mmu.TWIN)
    assert set(report["modes"]) == {"batched"}


@pytest.mark.long
@pytest.mark.parametrize("way", [way for way in WAYS if way not in RUST_ONLY])
def test_a_driver_in_c_for_longer(vm, way):
    run(vm, way, mmu.TWIN, often=1)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_all_modes(vm, way):
    report = run(vm, way, often=1)
    assert set(report["modes"]) == set(mmu.BROADCASTS)


@pytest.mark.long
def test_with_a_window(vm):
    mmu.tune(vm, combine_window_us=50)
    run(vm, "churn", often=1, modes="batched", rounds=2)
    mmu.tune(vm, combine_window_us=0)


@pytest.mark.long
def test_a_hundred_million_accesses(vm):
    """Through all ways of ours, again and again."""
    seen, rounds = 0, 1
    by_way = dict.fromkeys(WAYS, 0)
    while seen < MANY:
        for way in WAYS:
            report = run(vm, way, often=1, modes="batched", rounds=rounds, timeout=900)
            by_way[way] += sum(shown["verdict"]["accesses"] for shown in report["modes"].values())
        seen = sum(by_way.values())
        rounds = min(rounds * 2, 16)
    print(f"{seen} accesses: {by_way}")
