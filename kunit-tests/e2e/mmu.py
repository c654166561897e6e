# SPDX-License-Identifier: GPL-2.0
"""The software GPU in a node: its workloads, and what the counts must say."""

import json

from nullhz import guest
from nullhz.guest import TOP

PROGRAM = "/usr/lib/nullhz/nullhz-soft-gpu"
DEVICE = "/dev/nullhz-soft-gpu"
TWIN = "/dev/nullhz-soft-gpu-c"
# The devices in the library, by the driver.
LIBRARY = {
    DEVICE: "/sys/devices/faux/nullhz_mmu_batch.soft-gpu",
    TWIN: "/sys/devices/faux/nullhz_mmu_batch.soft-gpu-c",
}
MODULES = {DEVICE: "nullhz_soft_gpu", TWIN: "nullhz_soft_gpu_c"}
UAPI = f"-I{TOP}/samples/soft-gpu/uapi"
CGROUPS = "/sys/fs/cgroup"
CGROUP = f"{CGROUPS}/mmu"

NODE = {"append": "nullhz.agent=off", "watchdog": None, "checkpoint": 256, "lifetime": 7200}

# W1, broadcasts of one munmap() of 40 GB.
INTERVALS = 20_480
BROADCASTS = {"b0": INTERVALS, "b1": 80, "b2": 1, "batched": 1}
# What else interrupts the CPUs in the time that a workload takes; and a hundredth of what it
# causes itself, the longer that takes.
NOISE = 64


def load(vm, device=DEVICE):
    vm.run(["modprobe", MODULES[device]])


def workload(vm, name, *options, device=DEVICE, timeout=300, **settings):
    """Runs a workload; returns its report.

    `settings`: options of all workloads (modes, rounds, cpus, write) by name.
    """
    command = [PROGRAM, "--device", device, "--library", f"{LIBRARY[device]}/counters"]
    for option, value in settings.items():
        command += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    result = vm.run([*command, name, *map(str, options)], timeout)
    return json.loads(result.stdout)


def make_cgroup(vm, **limits):
    """A control group for what reclaims memory, or runs out of it."""
    vm.run(f"echo +memory > {CGROUPS}/cgroup.subtree_control; mkdir -p {CGROUP}")
    for name, value in limits.items():
        vm.run(f"echo {value} > {CGROUP}/memory.{name}")


def tune(vm, device=DEVICE, **values):
    """Sets tunables of a device in the library."""
    lines = [f"echo {value} > {LIBRARY[device]}/tunables/{name}" for name, value in values.items()]
    vm.run("set -e; " + "; ".join(lines))


def counters(vm, device=DEVICE):
    """{counter of the library: its value}"""
    shown = vm.run(f"cd {LIBRARY[device]}/counters && grep -H . *").stdout
    return {name: int(value) for name, value in (line.split(":") for line in shown.splitlines())}


def assert_right(report, least=0):
    """The device saw nothing that it should not have seen, and looked at it often enough."""
    verdicts = {mode: shown["verdict"] for mode, shown in report["modes"].items()}
    assert report["violations"] == 0, (report["workload"], verdicts, report["details"])
    for mode, verdict in verdicts.items():
        assert verdict["wrong_marks"] == 0, (report["workload"], mode, verdict)
        outcomes = ("stamped", "blank", "unjudged", "refused", "violations")
        assert verdict["accesses"] == sum(verdict[outcome] for outcome in outcomes), verdict
        assert verdict["accesses"] >= least, (report["workload"], mode, verdict)


def assert_agreement(report, merged=False):
    """The device, the library and the kernel counted the same broadcasts.

    `merged`: several callers at a time, so that interrupts to a CPU may have been one.
    """
    cpus = report["cpus"]
    for mode, shown in report["modes"].items():
        for counts in shown["rounds"]:
            flushes, library = counts["flushes"], counts["library"]
            assert counts["handled"] + counts["remote"] == flushes * cpus, (mode, counts)
            ours = mode in ("batched", "typed")
            assert library["flushes"] == (flushes if ours else 0), (mode, counts)
            # Each CPU but the caller's, which may change its place.
            asked = flushes * (cpus - 1)
            slack = NOISE + asked // 100
            shootdowns, calls = counts["interrupts"]["shootdowns"], counts["interrupts"]["calls"]
            assert calls <= asked + shootdowns + slack, (mode, counts)
            if not merged:
                assert calls >= asked - slack, (mode, counts)


def mirror_settings(vm, device=DEVICE):
    """What makes the device mirror a program, and a function that tells what went wrong.

    See guest/mirrored.c.
    """
    compiler = ("cc", "-shared", "-fPIC", "-std=gnu11", "-O2", "-pthread", *guest.STRICT, UAPI)
    log = f"{guest.HOME}/mirrored.log"
    vm.run(["rm", "-f", log])
    settings = {
        "LD_PRELOAD": guest.put_program(vm, "mirrored", compiler=compiler),
        "NULLHZ_MIRROR_DEVICE": device,
        "NULLHZ_MIRROR_LOG": log,
    }
    return settings, lambda: vm.run(f"cat {log} 2>/dev/null; true").stdout


def mirrored(vm, command, device=DEVICE, timeout=120):
    """Runs a program whose whole memory the device mirrors; returns what is to be said of it."""
    settings, told = mirror_settings(vm, device)
    vm.run(command, timeout, env=settings)
    return told()
