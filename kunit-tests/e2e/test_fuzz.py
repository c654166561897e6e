# SPDX-License-Identifier: GPL-2.0
"""The devices under a fuzzer that knows their ABI: guest/fuzz.

What it calls, in which order and from where depends on a seed; `make fuzz` runs others, for
longer.
"""

import mmu
import pytest
from nullhz import fuzz
from nullhz.qemu import PATIENCE

NODE = fuzz.NODE
# Enough for each command to succeed, and for what was once found.
SEEDS = (1, 5000)
SECONDS = 4
# A round of one thread, which has its time.
REPEATABLE = 9


@pytest.fixture(scope="module")
def vm(shared_node):
    fuzz.prepare(shared_node)
    return shared_node


def check(vm, flavour, seed, seconds):
    report = fuzz.run(vm, seed, seconds, patience=PATIENCE.get(flavour, 1))
    assert not report["finding"] and report["rc"] == 0, report
    # Nothing is left of it.
    for device in mmu.LIBRARY.values():
        vm.run(f"until [ $(cat {device}/spaces) = 0 ]; do sleep 0.1; done", 60)
        assert vm.read(f"{device}/kept_unmaps") == "0"
    return report


@pytest.mark.exact
@pytest.mark.parametrize("seed", SEEDS)
def test_seeded(vm, flavour, seed):
    report = check(vm, flavour, seed, SECONDS * PATIENCE.get(flavour, 1))
    assert report["rounds"] > 1 and report["mapped"] and report["written"] and report["forks"]


@pytest.mark.exact
@pytest.mark.long
def test_long(vm, flavour):
    report = check(vm, flavour, 1_000_000, 60)
    never = [command for command, (_, done) in report["commands"].items() if not done]
    assert not never, report


def test_a_round_can_be_repeated(vm):
    """One of one thread, which is not killed: a seed that was told is worth something."""
    reports = [fuzz.run(vm, REPEATABLE, 60, rounds=1) for _ in range(2)]
    first, second = ({name: tried for name, (tried, _) in report["commands"].items()} for report in reports)
    assert not any(report["finding"] or report["killed"] for report in reports), reports
    assert sum(first.values()) > 50 and first == second
