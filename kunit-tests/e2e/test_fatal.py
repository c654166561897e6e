# SPDX-License-Identifier: GPL-2.0
"""What a node that dies of a machine check tells its next boot."""

import pytest
from nullhz import bus, guest
from nullhz.qemu import AMD
from records import (
    AMD_UNCORRECTED,
    FATAL,
    LINE,
    NOT_RESTARTABLE,
    RESTARTABLE,
    action_optional,
    fatal,
    imminent,
    page,
)

# Places for last words, by their names in sysfs.
RAM, ERST = "ram", "erst"


def last_words(vm, **fields):
    """(event, what the bus says after it) of the boot before."""
    reader = guest.Reader(vm, newest=False)
    event = reader.wait(15, level=bus.FATAL, source=bus.SRC_MCE, **fields)
    words = reader.wait(5, source=bus.SRC_BUS, kind=bus.BUS_LAST_WORDS)
    assert event["flags"] & bus.F_PREVIOUS_BOOT
    assert words["flags"] & bus.F_PREVIOUS_BOOT
    assert words["boot_id"] == event["boot_id"] != guest.info(vm)["boot_id"]
    assert words["seq"] == event["seq"] + 1
    told = [event["flags"] for event in reader.events(level=bus.FATAL, source=bus.SRC_MCE)]
    assert told.count(bus.F_PREVIOUS_BOOT) == 1
    # The banks keep their contents over a warm reset: the kernel finds the
    # record there as well, which is an event of this boot.
    assert set(told) <= {bus.F_PREVIOUS_BOOT, bus.F_BOOT} and len(told) <= 2
    return event, words["bus"]


def panic_and_reboot(vm, kill):
    """`kill` makes the node panic. What it prints then may be lost: on PREEMPT_RT the panicking
    CPU does not wait for the console's owner. The next boot is what counts.
    """
    kill()
    vm.wait_boot()


@pytest.fixture
def node(boot, request, tmp_path):
    """A node with one kind of store."""
    if request.param == RAM:
        return boot(), RAM
    return boot(erst=tmp_path / "erst.bin", reserved=False), ERST


@pytest.mark.parametrize("node", [RAM, ERST], indirect=True)
def test_fatal_machine_check_is_told_by_the_next_boot(node):
    vm, store = node
    assert vm.read("/sys/class/misc/nullhz-fault/stores").split() == [store]
    first = guest.info(vm)["boot_id"]
    reader = guest.Reader(vm)
    action_optional(vm, page(1))
    opened = imminent(reader, page(1))
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    panic_and_reboot(vm, lambda: fatal(vm, page(2), cpu=1))
    event, words = last_words(vm, status=FATAL)
    registers = {name: event["mce"][name] for name in ("addr", "misc", "mcgstatus", "bank")}
    assert registers == {"addr": page(2), "misc": LINE, "mcgstatus": NOT_RESTARTABLE, "bank": 4}
    assert event["kind"] == bus.MCE_FATAL
    assert event["cpu"] == 1
    assert words["incident"] == opened["incident"] == 1
    assert words["snapshot_id"] == acked["snapshot_id"]
    assert words["source"] == bus.SRC_MCE
    # Which boot that was, in the ids of its own records.
    assert opened["boot_id"] == event["boot_id"]
    assert first != guest.info(vm)["boot_id"]
    # A panic is no reset by the watchdog, whichever store remembers it.
    assert vm.read("/sys/class/misc/nullhz-stall/resets") == "0"
    # Told once: not again by the boot after.
    vm.reset()
    reader = guest.Reader(vm, newest=False)
    guest.bus_command(vm, "info")
    assert reader.events(level=bus.FATAL, source=bus.SRC_MCE) == []


def test_amd_without_recovery(boot):
    """Any uncorrected error of this CPU is fatal, also on one CPU alone."""
    vm = boot(cpu=AMD)
    vm.expect("Kernel panic - not syncing: Fatal")
    panic_and_reboot(vm, lambda: vm.mce(0, 4, AMD_UNCORRECTED, RESTARTABLE, addr=page(3), misc=0))
    event, words = last_words(vm, status=AMD_UNCORRECTED)
    assert event["mce"]["addr"] == page(3)
    assert event["mce"]["bank"] == 4
    assert event["cpu"] == 0
    assert words["incident"] == words["snapshot_id"] == 0


def test_another_panic_leaves_no_fatal_event(boot):
    vm = boot()
    vm.expect("Kernel panic - not syncing: sysrq")
    panic_and_reboot(vm, lambda: vm.spawn("echo c > /proc/sysrq-trigger"))
    reader = guest.Reader(vm, newest=False)
    action_optional(vm, page(4))
    imminent(reader, page(4))
    assert reader.events(level=bus.FATAL) == []


def test_others_last_words_leave_room_for_a_machine_check(boot):
    """As of many ranks that recover at the last moment, again and again, and at last do not."""
    vm = boot()
    debugfs = "/sys/kernel/debug/nullhz_fault_gen"
    vm.run("modprobe nullhz_fault_gen")
    fill = f"n=0; while echo 1 > {debugfs}/persist; do n=$((n + 1)); done 2> /dev/null; echo $n"
    for _ in range(3):
        assert vm.run(fill).stdout.split() == ["12"]
        assert vm.run(fill).stdout.split() == ["0"]
        vm.run(f"echo 1 > {debugfs}/withdraw")
    assert vm.run(fill).stdout.split() == ["12"]
    panic_and_reboot(vm, lambda: fatal(vm, page(5), cpu=1))
    reader = guest.Reader(vm, newest=False)
    reader.wait(15, source=bus.SRC_BUS, kind=bus.BUS_LAST_WORDS, count=13)
    told = [event for event in reader.events(level=bus.FATAL) if event["flags"] & bus.F_PREVIOUS_BOOT]
    assert [event["source"] for event in told] == 12 * [32] + [bus.SRC_MCE]
    assert told[-1]["mce"]["addr"] == page(5)
