# SPDX-License-Identifier: GPL-2.0
"""What a node's kernel holds: memory, and entries in its directories."""

import re


def memory(vm):
    """KiB of kernel memory by kind, after what can be freed was freed."""
    vm.run("sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.5")
    shown = {
        name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", vm.read("/proc/meminfo"), re.M)
    }
    kinds = {name: shown[name] for name in ("SUnreclaim", "Percpu", "KernelStack", "PageTables")}
    # Single pages are in no list; VmallocUsed is made of them. What CPUs keep for themselves is free.
    kept = sum(map(int, re.findall(r"^ +count: +(\d+)", vm.read("/proc/zoneinfo"), re.M))) * 4
    user = sum(shown[name] for name in ("Cached", "Buffers", "AnonPages", "SReclaimable"))
    kinds["pages"] = shown["MemTotal"] - shown["MemFree"] - kept - user - sum(kinds.values())
    return kinds


def leftovers(vm):
    """What a module leaves in the kernel's directories."""
    places = "/sys/kernel/debug /sys/module /sys/class/misc /sys/kernel/tracing/events /dev /sys/devices"
    return vm.run(f"find {places} -maxdepth 5 -name '*nullhz*' 2>/dev/null", check=False).stdout.split()
