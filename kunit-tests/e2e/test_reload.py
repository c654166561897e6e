# SPDX-License-Identifier: GPL-2.0
"""The modules come and go while machine checks arrive; nothing is left behind."""

import json
import time

from memory import leftovers, memory
from nullhz import bus, guest
from records import CORRECTED, LINE, page

CYCLES = 200
# The first ones fill caches that stay; some of them by modprobe, a process for each step.
WARM_UP = 20
BY_MODPROBE = 5
# What a kernel's own caches may move; one ring of 4096 events is 1024 KiB.
SLACK_KIB = 6144

MODPROBE = """
set -e
for i in $(seq "$1"); do
	modprobe -r nullhz_mce
	modprobe -r nullhz_fault
	modprobe nullhz_mce
done
"""


def test_unload_and_reload_under_injection(boot, flavour):
    # A cycle takes seconds on the debug kernel, which tells of every leak.
    cycles = WARM_UP + (20 if flavour == "debug" else CYCLES - WARM_UP)
    vm = boot(append="nullhz.agent=off")
    vm.run("modprobe mce-inject; modprobe -r nullhz_stall")
    program = guest.put_program(vm, "inject")
    guest.put_script(vm, "bus.py")
    script = guest.put_script(vm, "reload.py")
    injector = vm.spawn([program, "0", hex(CORRECTED), hex(page(0)), "4096", hex(LINE), "5000"], timeout=900)
    vm.run(["sh", "-c", MODPROBE, "sh", str(BY_MODPROBE)], 300)
    vm.run(["python3", script, str(WARM_UP - BY_MODPROBE)], 300)
    before = memory(vm)
    begun = time.monotonic()
    vm.run(["python3", script, str(cycles - WARM_UP)], 600)
    print(f"{cycles - WARM_UP} cycles in {time.monotonic() - begun:.0f} s")
    after = memory(vm)
    # It still works: what is injected now arrives.
    reader = guest.Reader(vm)
    reader.wait(20, source=bus.SRC_MCE, status=CORRECTED)
    reader.close()
    injector.kill(15)
    assert int(injector.wait(30).stdout) > cycles
    grown = {name: after[name] - before[name] for name in after}
    print(f"grown, KiB: {grown}")
    assert sum(grown.values()) < SLACK_KIB, grown
    used = vm.run("lsmod | awk '/^nullhz_(fault|mce) / { print $1, $3 }'").stdout.splitlines()
    assert used == ["nullhz_mce 0", "nullhz_fault 1"]
    vm.run("modprobe -r nullhz_mce nullhz_fault")
    assert leftovers(vm) == []
    assert vm.run("ls /proc/[0-9]*/comm | xargs grep -l nullhz_", check=False).stdout == ""


def test_an_open_device_keeps_the_module(boot):
    vm = boot(append="nullhz.agent=off")
    reader = guest.Reader(vm)
    vm.run("modprobe -r nullhz_stall nullhz_mce")
    refused = vm.run("modprobe -r nullhz_fault", check=False)
    assert refused.rc and "in use" in refused.stderr
    reader.close()
    vm.run("modprobe -r nullhz_fault")
    vm.run("modprobe nullhz_mce")


def test_records_between_two_lives_arrive_marked(boot):
    """What no module saw is replayed by the next one, once."""
    vm = boot(append="nullhz.agent=off")
    vm.run("modprobe mce-inject; rmmod nullhz_mce")
    program = guest.put_program(vm, "inject")
    vm.run([program, "5", hex(CORRECTED), hex(page(700)), "4096", hex(LINE), "1000"])
    reader = guest.Reader(vm)
    vm.run("modprobe nullhz_mce")
    events = reader.wait(20, count=5, source=bus.SRC_MCE)
    assert [event["mce"]["addr"] for event in events] == [page(700 + number) for number in range(5)]
    assert all(event["flags"] & bus.F_BOOT for event in events)
    vm.run("rmmod nullhz_mce; modprobe nullhz_mce; sleep 0.5")
    assert len(reader.events(source=bus.SRC_MCE)) == 5


def test_what_the_thread_has_not_got_to_is_reported_at_unload(boot):
    """Its thread waits behind another on a CPU: unloading reports what is left, and loses nothing."""
    vm = boot(append="nullhz.agent=off")
    reader = guest.Reader(vm)
    vm.run("modprobe mce-inject")
    program = guest.put_program(vm, "inject")
    spin = guest.put_script(vm, "spin.py")
    vm.run("pid=$(pgrep -x nullhz_mce) && taskset -cp 2 $pid && chrt -f -p 1 $pid")
    spinner = vm.spawn(["sh", "-c", f"echo $$ > /run/spinner; exec python3 -S {spin} 2 6"])
    vm.run("until chrt -p $(cat /run/spinner) | grep -q FIFO; do sleep 0.1; done")
    vm.run([program, "20", hex(CORRECTED), hex(page(900)), "4096", hex(LINE), "1000"])
    assert reader.events(source=bus.SRC_MCE) == []
    vm.run("rmmod nullhz_mce")
    events = reader.wait(5, count=20, source=bus.SRC_MCE)
    assert [event["mce"]["addr"] for event in events] == [page(900 + number) for number in range(20)]
    ended = json.loads(spinner.wait(30).stdout)["ended"]
    assert all(event["mono_ns"] < ended for event in events)
