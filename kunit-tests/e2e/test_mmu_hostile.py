# SPDX-License-Identifier: GPL-2.0
"""What goes wrong around the software GPU: mistakes, sudden deaths, a device that is silent."""

import errno
import json

import mmu
import pytest
from mistakes import assert_shapes, assert_unknown
from nullhz import guest

NODE = mmu.NODE
CPUS = "0,1,2,3"
# The simplest one, and ours.
MODES = "b0,batched"

RESHAPED = (
    *("info", "mode", "register", "unregister", "prefetch", "oracle", "run", "stop", "access"),
    *("violation", "bind", "unbind", "counters", "cpu", "faults"),
)
REFUSED = 3


@pytest.fixture(scope="module")
def vm(shared_node):
    for device in mmu.MODULES:
        mmu.load(shared_node, device)
    for name in ("gpu.py", "mistakes.py"):
        guest.put_script(shared_node, name)
    return shared_node


@pytest.fixture(scope="module")
def answers(vm):
    """What guest/gpu_bad_input.py got, by mistake."""
    script = guest.put_script(vm, "gpu_bad_input.py")
    return json.loads(vm.run(["python3", "-S", script, mmu.DEVICE], 60).stdout)


@pytest.fixture(autouse=True)
def nothing_stays(vm):
    """No context is left by whoever died."""
    yield
    for device in mmu.MODULES:
        vm.run(f"until [ $(cat {mmu.LIBRARY[device]}/spaces) = 0 ]; do sleep 0.1; done", 20)
        assert vm.read(f"{mmu.LIBRARY[device]}/kept_unmaps") == "0"


@pytest.mark.parametrize("command", RESHAPED)
def test_ioctl_of_another_shape(answers, command):
    assert_shapes(answers, command)


def test_unknown_ioctls(answers):
    assert_unknown(answers)


def test_ranges_and_pages(answers):
    good = ("register good", "register next to it")
    errors = {
        "EINVAL": (
            *(f"register {what}" for what in ("unaligned start", "unaligned length", "unaligned interval")),
            *("register no length", "prefetch flags", "prefetch pad"),
            *("oracle unaligned table", "run no pages", "run no such CPU", "run flags", "access unaligned"),
            *("access no such CPU", "access flags", "stop flags"),
            *(
                f"{call} {what}"
                for call in ("prefetch", "oracle", "run")
                for what in ("unaligned start", "wrap")
            ),
        ),
        "EOVERFLOW": tuple(f"register {what}" for what in ("wrap", "length max", "kernel", "beyond the end")),
        "ENOSPC": ("register too many intervals", "oracle too large"),
        "EEXIST": ("register the same", "register overlap"),
        "EFAULT": ("oracle no table", "oracle unmapped table", "oracle kernel's table"),
        "ENOENT": ("stop no such run",),
    }
    expected = dict.fromkeys(good, "ok")
    expected |= {name: error for error, names in errors.items() for name in names}
    assert {name: answers[name] for name in expected} == expected


def test_accesses_to_what_is_not_there(answers):
    got = {name: result for name, result in answers.items() if name.startswith("outcome ")}
    assert got.pop("outcome registered") != REFUSED
    # EINVAL: no addresses of the device.
    beyond = {"outcome kernel": errno.EINVAL, "outcome not canonical": errno.EINVAL}
    assert got == {"outcome not registered": REFUSED, "outcome not mapped": REFUSED, **beyond}


def test_what_comes_at_the_wrong_time(answers):
    expected = {
        "mode while it runs": "EBUSY",
        "unregister while it runs": "EBUSY",
        "oracle while it runs": "EBUSY",
        "stop": "ok",
        "stop overtaken": "ENOENT",
        "stop twice": "ENOENT",
        "unregister a part": "ENOENT",
        "unregister with an interval": "EINVAL",
        "unregister": "ok",
        "unregister twice": "ENOENT",
        "mode max": "EINVAL",
        "mode pad": "EINVAL",
        "mode": "ok",
        "violation none": "ENOENT",
        "violation max": "ENOENT",
        "cpu max": "EINVAL",
        "faults pad": "EINVAL",
        "faults delay": "EINVAL",
        "faults walk": "EINVAL",
        "faults mutant": "EINVAL",
        "read": "EINVAL",
        "write": "EINVAL",
    }
    assert {name: answers[name] for name in expected} == expected


def test_buffers(answers):
    errors = {
        "EINVAL": (
            *("bind unaligned user", "bind unaligned device", "bind no pages", "bind no buffers"),
            *("bind outside", "bind before the aperture", "unbind user"),
        ),
        "EFAULT": ("bind unmapped", "bind kernel"),
        "EBUSY": ("bind taken", "mode while bound"),
        "ENOENT": ("unbind another size", "unbind twice"),
        "ENOSPC": ("bind too many",),
        "ok": ("bind good", "unbind", "submit"),
    }
    expected = {name: error for error, names in errors.items() for name in names}
    assert {name: answers[name] for name in expected} == expected
    assert answers["bind max"] in ("EINVAL", "ENOSPC")


def test_a_copy_of_the_process_has_other_memory(answers):
    expected = {f"child's {call}": "EPERM" for call in ("register", "access", "run", "mode")}
    expected |= {f"child's {call}": "ok" for call in ("info", "counters")}
    assert {name: answers[name] for name in expected} == expected


TUNABLES = {
    "span_ceiling": (1, 64),
    "combine_window_us": (0, 50),
    "gather_window_us": (0, 100),
    "gather_unmaps": (1, 1024),
    "gather_pages": (1, 1 << 20),
    "notifier_mib": (0, 1 << 27),
}


@pytest.mark.parametrize("name", TUNABLES)
def test_sysfs_ranges(vm, name):
    path = f"{mmu.LIBRARY[mmu.DEVICE]}/tunables/{name}"
    low, high = TUNABLES[name]
    before = vm.read(path)
    write = f'for v; do echo "$v" > {path} 2> /dev/null && echo "$v"; done; true'
    tried = [low, high, low - 1, high + 1, "x", "1 2", "-1", 1 << 64]
    taken = vm.run(["sh", "-c", write, "sh", *map(str, tried)]).stdout.split()
    assert taken == [str(low), str(high)]
    vm.run(f"echo {before} > {path}")


def test_the_device_is_not_for_everybody(vm):
    for device in mmu.MODULES:
        refused = vm.run(["sh", "-c", f": < {device}"], user="nobody", cwd="/tmp", check=False)
        assert refused.rc and "Permission denied" in refused.stderr


# --- Sudden deaths --------------------------------------------------------------


@pytest.mark.parametrize("device", mmu.MODULES)
@pytest.mark.parametrize("work", ["churn", "swap", "munmap"])
def test_killed_while_the_device_works(vm, device, work):
    """With flushes, faults and threads of the device under way; again and again."""
    options = {
        "churn": "--operations 100000",
        "swap": "--operations 100000",
        "munmap": "--meanwhile --intervals 4096",
    }
    script = (
        f"for i in 1 2 3; do {mmu.PROGRAM} --device {device} --cpus {CPUS} --rounds 1000 "
        f"{work} {options[work]} > /dev/null & pid=$!; sleep 0.$i; kill -9 $pid; wait $pid; done; true"
    )
    vm.run(["bash", "-c", script], 60)


def test_a_process_leaves_with_unmaps_that_are_kept(vm):
    """Neither submitted nor waited for: they are released all the same."""
    before = mmu.counters(vm)
    program = (
        "import gpu\n"
        "device = gpu.Gpu()\n"
        "aperture = device.info().aperture\n"
        "for at in range(8):\n"
        "    user = gpu.memory(64)\n"
        "    device.bind(user=user, device=aperture, pages=1, count=64)\n"
        "    device.unbind(device=aperture, pages=1, count=64)\n"
    )
    vm.run(["python3", "-S", "-c", program], cwd=guest.HOME)
    after = mmu.counters(vm)
    assert after["deferred"] - before["deferred"] == 8 * 64
    vm.run(f"until [ $(cat {mmu.LIBRARY[mmu.DEVICE]}/kept_unmaps) = 0 ]; do sleep 0.1; done", 10)
    after = mmu.counters(vm)
    assert after["released"] - before["released"] == 8 * 64


@pytest.mark.parametrize("device", mmu.MODULES)
def test_a_fork_bomb(vm, device):
    """Every process of it is mirrored, for as long as it lives."""
    before = mmu.counters(vm, device)
    told = mmu.mirrored(
        vm, "cd /tmp && stress-ng --fork 4 --fork-max 8 --fork-ops 200 --timeout 10", device, 60
    )
    assert told == ""
    after = mmu.counters(vm, device)
    assert after["events"] > before["events"] and after["flushes"] > before["flushes"]


def test_out_of_memory(vm):
    """The OOM reaper may not sleep; what the device has is left to the process's exit."""
    mmu.make_cgroup(vm, max=64 << 20)
    report = mmu.workload(vm, "mrelease", "--oom", mmu.CGROUP, "--operations", 1, cpus=CPUS, modes=MODES)
    mmu.assert_right(report)
    for mode, shown in report["modes"].items():
        assert shown["operations"] == 1, (mode, shown)


@pytest.mark.parametrize("device", mmu.MODULES)
def test_out_of_memory_of_whole_programs(vm, device):
    """As often as the kernel kills one, whose whole memory is mirrored."""
    mmu.make_cgroup(vm, max=48 << 20)
    count = f"sed -n 's/^oom_kill //p' {mmu.CGROUP}/memory.events"
    before = int(vm.run(count).stdout)
    # It ends when its workers were killed: a slow machine takes minutes to get there.
    hungry = "stress-ng --vm 2 --vm-bytes 256M --vm-keep --vm-populate --timeout 240 --oomable"
    told = mmu.mirrored(vm, f"echo 0 > {mmu.CGROUP}/cgroup.procs; cd /tmp; {hungry}; true", device, 300)
    assert "violation" not in told, told
    assert int(vm.run(count).stdout) > before


def test_memory_that_is_taken_from_outside(vm):
    """W6: process_mrelease() until it succeeds or the process is gone; it never hangs."""
    report = mmu.workload(vm, "mrelease", "--operations", 3, cpus="2,3", modes=MODES)
    mmu.assert_right(report)
    assert sum(shown["would_block"] for shown in report["modes"].values()), report
    names = ("released", "again", "would_block")
    print({mode: [shown.get(name, 0) for name in names] for mode, shown in report["modes"].items()})


# --- A device that is silent -------------------------------------------------------


@pytest.mark.parametrize("mode", MODES.split(","))
def test_flushes_without_acknowledgement(vm, mode):
    """The device is reset before anybody gets his memory back."""
    since = vm.console.position
    report = mmu.workload(
        vm, "--unanswered", 3, "churn", "--threads", 4, "--operations", 20, cpus=CPUS, modes=mode
    )
    mmu.assert_right(report)
    [counts] = report["modes"][mode]["rounds"]
    assert (counts["unanswered"], counts["resets"]) == (3, 3), counts
    if mode == "batched":
        library = counts["library"]
        assert (library["flush_errors"], library["resets"], library["reset_errors"]) == (3, 3, 0)
        vm.wait_log(r"was not acknowledged", since=since)


def test_resets_that_fail(vm):
    """Whoever waits goes on waiting until one succeeds."""
    report = mmu.workload(
        vm, "--unanswered", 1, "--failed-resets", 2, "churn", "--threads", 4, "--operations", 20, modes=MODES
    )
    mmu.assert_right(report)
    library = report["modes"]["batched"]["rounds"][0]["library"]
    assert (library["flush_errors"], library["reset_errors"]) == (1, 2), library
