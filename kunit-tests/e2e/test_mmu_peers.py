# SPDX-License-Identifier: GPL-2.0
"""Programs that know nothing of the software GPU, which mirrors all their memory.

The kernel's own mm selftests give the same results as without it; stress-ng's
stressors of memory verify what they wrote. See guest/mirrored.c.
"""

import mmu
import pytest
from nullhz import guest
from nullhz.qemu import build_dir

pytestmark = pytest.mark.exact
NODE = mmu.NODE

STRESSORS = {
    "vm": "--vm 2 --vm-bytes 64M --vm-keep",
    "mremap": "--mremap 2 --mremap-bytes 16M",
    "madvise": "--madvise 2",
    "tlb-shootdown": "--tlb-shootdown 2",
}
# Of tools/testing/selftests/mm, some that this kernel has the options for.
SELFTESTS = (
    *("map_fixed_noreplace", "map_populate", "mlock2-tests", "mremap_test", "mremap_dontunmap"),
    *("mdwe_test", "on-fault-limit", "process_madv", "mseal_test"),
)
SKIPPED = 4


@pytest.fixture(scope="module")
def vm(shared_node):
    for device in mmu.MODULES:
        mmu.load(shared_node, device)
    return shared_node


def stress(vm, name, seconds, device):
    before = mmu.counters(vm, device)
    # Who may, as root does, poisons a page of its own (MADV_HWPOISON), and dies of it.
    harmless = "setpriv --bounding-set=-sys_admin"
    command = f"cd /tmp && {harmless} stress-ng {STRESSORS[name]} --verify --timeout {seconds} --oomable"
    assert mmu.mirrored(vm, command, device, seconds + 120) == ""
    after = mmu.counters(vm, device)
    assert after["tickets"] > before["tickets"], (name, after)


@pytest.mark.parametrize("name", ["mremap", "tlb-shootdown"])
def test_stress_ng(vm, name):
    stress(vm, name, 2, mmu.DEVICE)


@pytest.mark.long
@pytest.mark.parametrize("device", mmu.MODULES)
@pytest.mark.parametrize("name", STRESSORS)
def test_stress_ng_for_longer(vm, name, device):
    stress(vm, name, 20, device)


def selftest(vm, name):
    """One of the kernel's own test programs, from its source."""
    source = (build_dir() / "kernel" / "test" / "source").resolve()
    selftests = source / "tools/testing/selftests"
    # What the tests' own Makefile finds out of liburing, which is not needed for the rest.
    generated = build_dir() / "e2e" / "selftests"
    generated.mkdir(parents=True, exist_ok=True)
    (generated / "local_config.h_gen").touch()
    compiler = ("cc", "-std=gnu11", "-O2", "-w", "-pthread", "-D_GNU_SOURCE")
    compiler += ("-isystem", source / "tools/include/uapi", "-I", selftests, "-I", generated)
    helpers = ["vm_util", "hugepage_settings", *(["uffd-common"] if name.startswith("uffd") else [])]
    compiler += tuple(selftests / "mm" / f"{helper}.c" for helper in helpers)
    return guest.put_program(vm, f"mm-{name}", compiler=compiler, source=selftests / "mm" / f"{name}.c")


def outcome(vm, name, **settings):
    """How it ends, and what it says of each of its tests."""
    command = f"cd /tmp && ulimit -l unlimited && {selftest(vm, name)}"
    done = vm.run(command, 120, check=False, env=settings)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok", "not ok", "#  SKIP"))]
    return done.rc, lines, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.long
@pytest.mark.parametrize("name", SELFTESTS)
def test_mm_selftests(vm, name):
    rc, lines, said = outcome(vm, name)
    assert rc in (0, SKIPPED), f"fails without a registration: {said}"
    settings, told = mmu.mirror_settings(vm)
    mirrored = outcome(vm, name, **settings)
    assert sorted(set(lines) ^ set(mirrored[1])) == [], mirrored[2]
    assert mirrored[0] == rc, mirrored[2]
    assert told() == ""
    if rc == SKIPPED:
        pytest.skip(said.strip().splitlines()[-1])
