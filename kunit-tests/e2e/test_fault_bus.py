# SPDX-License-Identifier: GPL-2.0
"""What the fault bus does besides delivering events: deadlines, helper, traces, last words."""

import pytest
from nullhz import bus, guest
from records import generate

# A reset by hand is an event of the stall watchdog, too.
NODE = {"append": "nullhz.agent=off modprobe.blacklist=nullhz_stall"}
SYSFS = "/sys/class/misc/nullhz-fault"
DEBUGFS = "/sys/kernel/debug/nullhz_fault"
TRACING = "/sys/kernel/tracing"
GENERATOR = "nullhz_fault_gen"
PERSIST = f"modprobe {GENERATOR} && echo 1 > /sys/kernel/debug/{GENERATOR}/persist"


@pytest.fixture(autouse=True)
def times(request):
    """Every test opens an incident of its own, which expires only if the test wants it to."""
    if "shared_node" in request.fixturenames:
        node = request.getfixturevalue("shared_node")
        node.run(f"echo 0 > {SYSFS}/incident_cooldown_ms; echo 3600000 > {SYSFS}/incident_deadline_ms")


def open_incident(vm, source):
    generate(vm, GENERATOR, level="imminent", source=source)
    return guest.info(vm)["last_incident"]


def test_a_deadline_that_passes_is_told(shared_node):
    vm = shared_node
    vm.run(f"echo 200 > {SYSFS}/incident_deadline_ms")
    reader = guest.Reader(vm)
    number = open_incident(vm, 32)
    expired = reader.wait(60, source=bus.SRC_BUS, kind=bus.BUS_EXPIRED, incident=number)
    assert expired["level"] == bus.WATCH
    assert expired["bus"]["source"] == 32
    assert expired["bus"]["age_ns"] >= 200_000_000
    assert guest.incident(vm, number)["state"] == bus.INCIDENT_EXPIRED
    # Late is better than never.
    guest.bus_command(vm, "ack", number, 256)
    incident = guest.incident(vm, number)
    assert (incident["state"], incident["late"]) == (bus.INCIDENT_ACKED, 1)
    reader.close()


def test_the_helper_runs_when_nobody_listens(shared_node):
    vm = shared_node
    vm.put('#!/bin/sh\necho "$@" >> /run/helped\n', "/run/helper", 0o755)
    vm.run(f"echo /run/helper > {SYSFS}/helper")
    reader = guest.Reader(vm)
    heard = open_incident(vm, 33)
    reader.wait(60, incident=heard)
    guest.bus_command(vm, "ack", heard, 256)
    reader.close()
    unheard = open_incident(vm, 33)
    vm.run("for n in $(seq 250); do [ -s /run/helped ] && break; sleep 0.1; done")
    assert vm.read("/run/helped") == f"{unheard} 33"
    vm.run(f"echo > {SYSFS}/helper")
    assert vm.read(f"{SYSFS}/helper") == ""


@pytest.mark.parametrize("path", ["bin/true", "/bin/tr ue", "/bin/\x01"])
def test_the_helper_is_an_absolute_path(shared_node, path):
    refused = shared_node.run(["sh", "-c", f'echo "$1" > {SYSFS}/helper', "sh", path], check=False)
    assert refused.rc
    assert shared_node.read(f"{SYSFS}/helper") == ""


def test_tracepoints_tell_events_and_incidents(shared_node):
    vm = shared_node
    vm.run(f"echo 1 > {TRACING}/events/nullhz_fault/enable; echo > {TRACING}/trace")
    number = open_incident(vm, 34)
    guest.bus_command(vm, "ack", number, 789)
    vm.run(f"echo 0 > {TRACING}/events/nullhz_fault/enable")
    trace = vm.read(f"{TRACING}/trace")
    assert f"level=imminent flags=0x14 count=1 cpu=-1 node=-1 incident={number}" in trace
    assert f"incident={number} source=34 state=open joined=1" in trace
    acked = next(line for line in trace.splitlines() if "state=acked" in line)
    assert f"incident={number} source=34" in acked
    assert "snapshot_id=789 result=0 late=0" in acked


def test_debugfs_shows_incidents_and_readers(shared_node):
    vm = shared_node
    number = open_incident(vm, 35)
    assert f"\n{number} 35 open 1 0 0 0 " in vm.read(f"{DEBUGFS}/incidents") + "\n"
    before = len(vm.read(f"{DEBUGFS}/readers").splitlines())
    reader = guest.Reader(vm, min_level=bus.IMMINENT)
    assert len(vm.read(f"{DEBUGFS}/readers").splitlines()) == before + 1
    assert "min_level: Imminent" in vm.read(f"{DEBUGFS}/readers")
    reader.close()
    guest.bus_command(vm, "ack", number, 256)


def test_the_ring_has_the_size_that_was_asked_for(boot):
    vm = boot(**NODE)
    vm.run("modprobe -r nullhz_mce nullhz_fault && modprobe nullhz_fault ring_events=64")
    generate(vm, GENERATOR, count=100)
    assert guest.info(vm)["ring_events"] == 64
    reader = guest.Reader(vm, newest=False)
    events = reader.wait(60, count=64)
    assert [event["seq"] for event in events] == list(range(37, 101))
    # What was gone before the file was opened is not lost to it.
    assert not any(event["lost"] for event in events)


def fatal_events(vm):
    """The records that a previous boot has left."""
    reader = guest.Reader(vm, newest=False)
    generate(vm, GENERATOR, kind=99)
    reader.wait(60, kind=99)
    return [event for event in reader.events() if event["flags"] & bus.F_PREVIOUS_BOOT]


def test_two_stores_tell_the_same_words_once(boot, tmp_path):
    vm = boot(erst=tmp_path / "erst.bin", **NODE)
    assert vm.read(f"{SYSFS}/stores").split() == ["ram", "erst"]
    number = open_incident(vm, 32)
    guest.bus_command(vm, "ack", number, 4711)
    boot_id = guest.info(vm)["boot_id"]
    vm.run(PERSIST)
    assert f"fatal source=32 kind=9 cpu=0 node=0 incident={number} snapshot=4711" in "\n".join(vm.dmesg())
    vm.reset()
    fatal, words = fatal_events(vm)
    assert (fatal["source"], fatal["kind"], fatal["level"]) == (32, 9, bus.FATAL)
    assert fatal["boot_id"] == words["boot_id"] == boot_id != guest.info(vm)["boot_id"]
    assert (words["source"], words["kind"]) == (bus.SRC_BUS, bus.BUS_LAST_WORDS)
    assert (words["bus"]["incident"], words["bus"]["snapshot_id"]) == (number, 4711)
    # History does not count.
    assert vm.read(f"{SYSFS}/events_fatal") == "0"
    vm.reset()
    assert fatal_events(vm) == []


def test_damaged_words_are_not_believed(boot, tmp_path):
    store = tmp_path / "erst.bin"
    vm = boot(erst=store, reserved=False, **NODE)
    vm.run(PERSIST)
    vm.stop()
    content = bytearray(store.read_bytes())
    content[content.index(b"nullhzFL") + 100] ^= 1
    store.write_bytes(content)
    vm = boot(erst=store, reserved=False, **NODE)
    assert "nullhz_fault: erst: ignored 1 damaged record(s)" in "\n".join(vm.dmesg())
    assert fatal_events(vm) == []


def test_a_record_that_cannot_be_read_hides_no_other(boot, tmp_path):
    store = tmp_path / "erst.bin"
    vm = boot(erst=store, reserved=False, **NODE)
    vm.run(f"{PERSIST}; {PERSIST}")
    vm.stop()
    content = bytearray(store.read_bytes())
    # UEFI 2.10, N.2.1: the record's length, which the firmware refuses.
    length = content.index(b"CPER") + 20
    content[length : length + 4] = bytes(4)
    store.write_bytes(content)
    vm = boot(erst=store, reserved=False, **NODE)
    assert "nullhz_fault: erst: not all can be read: " in "\n".join(vm.dmesg())
    assert [event["source"] for event in fatal_events(vm)] == [32, bus.SRC_BUS]


def test_last_words_do_not_wait_for_those_of_another_cpu(boot, tmp_path):
    """The firmware's store takes one record at a time, and its time."""
    vm = boot(erst=tmp_path / "erst.bin", **NODE)
    assert vm.read(f"{SYSFS}/stores").split() == ["ram", "erst"]
    vm.run(f"modprobe {GENERATOR}")
    for _ in range(5):
        vm.run(["python3", "-S", guest.put_script(vm, "last_words.py"), "6"], 60)
        vm.run(f"echo 1 > /sys/kernel/debug/{GENERATOR}/withdraw")


@pytest.mark.parametrize("erst", [False, True], ids=["ram", "erst"])
def test_last_words_survive_a_bus_that_cannot_start(boot, tmp_path, erst):
    """It gets no thread, as the kernel's thread that makes them gets no processor."""
    stores = {"erst": tmp_path / "erst.bin", "reserved": False} if erst else {}
    vm = boot(**stores, **NODE)
    vm.run(f"{PERSIST}; modprobe -r {GENERATOR} nullhz_mce nullhz_fault")
    vm.run(
        f"""
        [ "$(cat /proc/2/comm)" = kthreadd ] || exit 1
        taskset -p 1 $$
        echo -1 > /proc/sys/kernel/sched_rt_runtime_us
        echo 0 > /sys/kernel/debug/sched/fair_server/cpu1/runtime
        taskset -p 2 2
        python3 -S {guest.put_script(vm, "spin.py")} 1 10 &
        until chrt -p $! | grep -q FIFO; do sleep 0.1; done
        modprobe nullhz_fault &
        until dmesg | grep -q 'previous boot died'; do sleep 0.1; done
        kill -9 $!
        wait
        [ ! -e /dev/nullhz-fault ]
        """,
        120,
    )
    vm.run("modprobe nullhz_fault")
    died = [line for line in vm.dmesg() if "the previous boot died of source=32 kind=9" in line]
    # The one that could not start has read them as well.
    assert len(died) == 2, died
    assert [event["source"] for event in fatal_events(vm)] == [32, bus.SRC_BUS]
