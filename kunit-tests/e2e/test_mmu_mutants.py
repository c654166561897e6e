# SPDX-License-Identifier: GPL-2.0
"""The oracle sees each way of doing it wrong.

Modules for test kernels have defects that can be switched on: those of the library
by its parameter, the device's by an ioctl. Modules for use have none of it.
"""

import subprocess

import mmu
import pytest
from nullhz.qemu import build_dir

NODE = mmu.NODE

# enum Mutant of drivers/mmu_batch/combine.rs, and what makes it show. The window of the first one
# is a few instructions wide by itself; so it is held open (AJAR_NS). That of the one that is not
# here, ticket before zap, is as narrow. The model finds all (kunit-tests/host/mmu_batch). The first
# one needs callers that wait for what they have not flushed themselves: a second pass for each, which
# waits twice, and so a flush that is longer than both.
SLOW = {"flush-delay-us": 2000}
SLOWER = {"flush-delay-us": 15000}
CHURN = ["churn", "--threads", 8, "--operations", 15]
MUTANTS = {
    "published before flush": (1, SLOWER, CHURN, "typed"),
    "snapshot after flush": (3, SLOW, CHURN, "batched"),
    "join in flight": (4, SLOW, CHURN, "batched"),
    "elide in flight": (6, SLOW, ["churn", "--threads", 4, "--operations", 30, "--twins"], "batched"),
}
CPUS = "0,1,2,3"
TRIES = 5


@pytest.fixture
def vm(shared_node):
    yield shared_node
    shared_node.run("modprobe -r nullhz_soft_gpu")


def violations(vm, settings, options, mode):
    return mmu.workload(vm, *options, cpus=CPUS, modes=mode, **settings)["violations"]


@pytest.mark.parametrize("name", MUTANTS)
def test_the_library_broken(vm, name):
    mutant, settings, options, mode = MUTANTS[name]
    vm.run(["modprobe", "nullhz_mmu_batch", f"mutant={mutant}"])
    mmu.load(vm)
    assert any(violations(vm, settings, options, mode) for _ in range(TRIES))


@pytest.mark.exact
@pytest.mark.parametrize("name", MUTANTS)
def test_the_same_without_a_defect(vm, name):
    """It is the defect that was seen, not the delays."""
    mmu.load(vm)
    _, settings, options, mode = MUTANTS[name]
    assert violations(vm, settings, options, mode) == 0


@pytest.mark.parametrize("mode", [pytest.param("b0", marks=pytest.mark.long), "batched"])
def test_walks_not_waited_for(vm, mode):
    mmu.load(vm)
    settings = {"walk-delay-us": 500}
    options = ["churn", "--threads", 4, "--operations", 30]
    assert violations(vm, settings, options, mode) == 0
    assert any(violations(vm, {**settings, "mutant": 1}, options, mode) for _ in range(TRIES))


def test_modules_for_use_have_no_defects():
    [module] = (build_dir() / "install/nullhz").rglob("nullhz_mmu_batch.ko")
    shown = subprocess.run(
        ["/sbin/modinfo", "-F", "parm", module], capture_output=True, text=True, check=True
    )
    assert shown.stdout == ""
