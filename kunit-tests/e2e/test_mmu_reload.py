# SPDX-License-Identifier: GPL-2.0
"""The software GPU and the library come and go while memory does; nothing is left behind."""

import re

import mmu
from memory import leftovers, memory
from nullhz import guest

NODE = mmu.NODE
CYCLES = 12
# The first ones fill caches that stay.
WARM_UP = 3
SLACK_KIB = 2048


def test_unload_under_work(shared_node, flavour):
    """Each time with registrations, flushes and kept unmaps of processes that just died."""
    vm = shared_node

    def cycles(count):
        """How often the module was in use when it should go."""
        script = (
            "busy=0; for i in $(seq $1); do\n"
            f"  modprobe nullhz_soft_gpu; modprobe nullhz_soft_gpu_c\n"
            f"  {mmu.PROGRAM} --cpus 2,3 churn --operations 100000 > /dev/null 2>&1 & one=$!\n"
            f"  {mmu.PROGRAM} --device {mmu.TWIN} swap --operations 100000 > /dev/null 2>&1 & two=$!\n"
            "   sleep 0.0$((i % 10))\n"
            f"  {mmu.PROGRAM} gather > /dev/null 2>&1 & three=$!\n"
            "   modprobe -r nullhz_soft_gpu nullhz_soft_gpu_c 2> /dev/null || busy=$((busy + 1))\n"
            "   kill -9 $one $two $three; wait $one $two $three\n"
            "   until modprobe -r nullhz_soft_gpu nullhz_soft_gpu_c 2> /dev/null; do sleep 0.01; done\n"
            "   [ ! -d /sys/module/nullhz_mmu_batch ] || exit 1\n"
            "done 2> /dev/null; echo $busy\n"
        )
        return int(vm.run(["bash", "-c", script, "bash", str(count)], 200).stdout)

    cycles(WARM_UP)
    before = memory(vm)
    # The debug kernel takes seconds for each, keeps for a while what is freed, and tells of every leak.
    busy = cycles(5 if flavour == "debug" else CYCLES - WARM_UP)
    assert busy, "no process was there when the module went"
    after = memory(vm)
    grown = {name: after[name] - before[name] for name in after}
    print(f"grown, KiB: {grown}; in use {busy} times")
    assert flavour == "debug" or sum(grown.values()) < SLACK_KIB, grown
    assert [path for path in leftovers(vm) if re.search("mmu|gpu", path)] == []


def test_a_registration_keeps_the_modules(shared_node):
    vm = shared_node
    mmu.load(vm)
    guest.put_script(vm, "gpu.py")
    program = (
        "import gpu, signal\n"
        "device = gpu.Gpu()\n"
        "device.register(start=1 << 30, length=1 << 30, interval=2 << 20)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    running = vm.spawn(["python3", "-S", "-c", program], cwd=guest.HOME)
    assert running.read_line() == "ready"
    for module in ("nullhz_soft_gpu", "nullhz_mmu_batch"):
        refused = vm.run(["rmmod", module], check=False)
        assert refused.rc and "in use" in refused.stderr
    running.kill(9)
    running.wait()
    # The library cannot go before its user.
    assert vm.run("rmmod nullhz_mmu_batch", check=False).rc
    vm.run("rmmod nullhz_soft_gpu; rmmod nullhz_mmu_batch")


def test_it_works_afterwards(shared_node):
    mmu.load(shared_node)
    report = mmu.workload(shared_node, "munmap", "--intervals", 512, cpus="0,1,2,3")
    mmu.assert_right(report, 512)
    assert report["modes"]["batched"]["rounds"][0]["flushes"] == 1
