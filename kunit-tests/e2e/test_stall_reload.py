# SPDX-License-Identifier: GPL-2.0
"""nullhz_stall comes and goes while ranks do; nothing is left behind."""

import json
import re

import pytest
from memory import leftovers, memory
from nullhz import bus, guest
from stalls import Rank, ask, expect_stall, hardware, listen, wait_armed

pytestmark = pytest.mark.timed
NODE = {"append": "nullhz.agent=off"}
CYCLES = 50
# The first ones fill caches that stay.
WARM_UP = 5
SLACK_KIB = 2048
DEADLINE_MS = 400


def test_unload_and_reload_under_heartbeats(shared_node, flavour):
    vm = shared_node
    # The debug kernel takes seconds for each, and tells of every leak by itself.
    cycles = WARM_UP + 5 if flavour == "debug" else CYCLES
    program = guest.put_program(vm, "hostile")
    guest.put_script(vm, "bus.py")
    script = guest.put_script(vm, "reload.py")
    churn = vm.spawn(["taskset", "-c", "2", program, "churn", "3600000"])
    reload = ["python3", "-S", script]
    vm.run([*reload, str(WARM_UP), "nullhz_stall"], 100)
    before = memory(vm)
    busy = int(vm.run([*reload, str(cycles - WARM_UP), "nullhz_stall"], 300).stdout)
    assert busy, "no rank was there when the module went"
    churn.kill(9)
    churn.wait()
    after = memory(vm)
    grown = {name: after[name] - before[name] for name in after}
    print(f"grown, KiB: {grown}; in use {busy} times")
    assert flavour == "debug" or sum(grown.values()) < SLACK_KIB, grown

    # It still works, and the hardware is fed as before.
    assert ask(vm, "ranks") == []
    reader = listen(vm)
    rank = Rank(vm, 9, cpu=3, step=DEADLINE_MS)
    try:
        rank.do("quiet")
        expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SLEEPING)
    finally:
        # It would keep the module from the next test.
        rank.kill()
        reader.close()
    wait_armed(vm, 1)
    # A load of the module is no boot: nobody has been reset.
    assert ask(vm, "info")["resets"] == 0


def test_a_rank_keeps_the_module(shared_node):
    vm = shared_node
    rank = Rank(vm, 1, step=60_000)
    refused = vm.run("modprobe -r nullhz_stall", check=False)
    assert refused.rc and "in use" in refused.stderr
    rank.do("leave")
    # The file is still open, and mapped.
    assert vm.run("modprobe -r nullhz_stall", check=False).rc
    rank.kill()
    vm.run("modprobe -r nullhz_stall")
    # Nobody feeds the hardware now, and nobody has to.
    assert hardware(vm, "state") == "inactive"
    assert [path for path in leftovers(vm) if "stall" in path] == []
    comms = vm.run("cat /proc/[0-9]*/comm").stdout
    assert not re.search("nullhz_stall", comms)
    vm.run("modprobe nullhz_stall")
    assert json.loads(vm.run(["sh", "-c", "cat /sys/class/misc/nullhz-stall/ranks"]).stdout) == 0
