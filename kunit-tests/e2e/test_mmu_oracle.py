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
# Each with its options, and accesses that come together in any case, by mode.
WAYS = {
    "munmap": (["munmap", "--intervals", 512, "--meanwhile"], 2000),
    "churn": (["churn", "--threads", 8, "--operations", 40], 500),
    "churn, faults only": (["churn", "--threads", 4, "--operations", 60, "--lazy"], 500),
    "churn, twice each": (["churn", "--threads", 4, "--operations", 30, "--twins"], 500),
    "swap": (["swap", "--operations", 20], 500),
    "fork": (["fork", "--operations", 8], 500),
    "pageout": (["reclaim", "--by", "pageout", "--operations", 8], 500),
    "memcg": (["reclaim", "--by", "memcg", "--cgroup", mmu.CGROUP, "--operations", 8], 500),
    "mrelease": (["mrelease", "--pages", 2048, "--operations", 1], 1),
    "gather": (["gather"], 4096),
}
# Where the device only reads.
READS = ("mrelease",)
# What the C twin does not have.
RUST_ONLY = ("gather", "mrelease")
# By the driver in C, in a short run.
TWIN_SHORT = ("munmap", "churn", "fork")
MANY = 100_000_000


@pytest.fixture(scope="module")
def vm(shared_node):
    for device in mmu.MODULES:
        mmu.load(shared_node, device)
    mmu.make_cgroup(shared_node)
    return shared_node


def run(vm, way, device=mmu.DEVICE, **settings):
    options, least = WAYS[way]
    write = {} if device == mmu.TWIN or way in READS else {"write": True}
    report = mmu.workload(vm, *options, device=device, cpus=CPUS, **write, **settings)
    mmu.assert_right(report, least)
    return report


@pytest.mark.parametrize("way", WAYS)
def test_all_modes(vm, way):
    report = run(vm, way)
    assert set(report["modes"]) == set(mmu.BROADCASTS)
    for mode, shown in report["modes"].items():
        counts = shown["rounds"][0]
        # It was taken from the device, not just from the process.
        assert counts["zapped"] or shown.get("zapped") or counts["unbinds"], (mode, counts)
        assert counts["flushes"], (mode, counts)
        if mode == "batched":
            assert counts["library"]["flush_errors"] == 0, counts


@pytest.mark.parametrize("way", TWIN_SHORT)
def test_a_driver_in_c(vm, way):
    report = run(vm, way, mmu.TWIN)
    assert set(report["modes"]) == {"batched"}


@pytest.mark.long
@pytest.mark.parametrize("way", [way for way in WAYS if way not in (*RUST_ONLY, *TWIN_SHORT)])
def test_a_driver_in_c_again(vm, way):
    run(vm, way, mmu.TWIN)


def test_with_a_window(vm):
    mmu.tune(vm, combine_window_us=50)
    run(vm, "churn", modes="batched", rounds=2)
    mmu.tune(vm, combine_window_us=0)


@pytest.mark.long
def test_a_hundred_million_accesses(vm):
    """Through all ways of ours, again and again."""
    seen, rounds = 0, 1
    by_way = dict.fromkeys(WAYS, 0)
    while seen < MANY:
        for way in WAYS:
            report = run(vm, way, modes="batched", rounds=rounds, timeout=600)
            by_way[way] += sum(shown["verdict"]["accesses"] for shown in report["modes"].values())
        seen = sum(by_way.values())
        rounds = min(rounds * 2, 32)
    print(f"{seen} accesses: {by_way}")
