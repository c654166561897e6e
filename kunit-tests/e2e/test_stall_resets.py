# SPDX-License-Identifier: GPL-2.0
"""Stalls that only a reset ends: the hardware resets the node, and the next boot says why.

The tests share a node, which lives through all of these resets.
"""

import time

import erst
import pytest
from nullhz import bus
from stalls import (
    GENERATOR,
    SYSFS,
    Rank,
    arm,
    ask,
    expect,
    expect_recovery,
    expect_stall,
    hardware,
    listen,
    told,
    tune,
    wedge,
)

pytestmark = pytest.mark.timed
TIMEOUT_S = 3
# Of the i6300ESB.
LONGEST_S = 2046
BUDGET = 3
NODE = {"watchdog": "i6300esb"}
DEADLINE_MS = 400
BITE_MS = 1500
ALL = range(4)
# What a ledger begins with.
LEDGER = b"nullhzSW"


@pytest.fixture
def vm(shared_node):
    vm = shared_node
    if ask(vm, "info")["resets"] >= BUDGET:
        vm.run(f"echo 1 > {SYSFS}/rearm")
    prepare(vm)
    return vm


def prepare(vm):
    """A short ladder over a hardware watchdog of a few seconds that nobody else feeds."""
    tune(vm, no_ack_ms=300, bite_ms=BITE_MS)
    arm(vm, TIMEOUT_S)


def reset(vm, cause):
    """`cause` makes the hardware reset the node; returns when the node is up again."""
    seen = vm.monitor.position
    before = ask(vm, "info")["resets"]
    vm.expect(r"rcu.*(stall|starved)", "soft lockup")
    cause()
    vm.monitor.wait("WATCHDOG", 30, since=seen)
    assert vm.monitor.wait("RESET", 10, since=seen)
    vm.wait_boot()
    assert hardware(vm, "bootstatus") == "32", "WDIOF_CARDRESET is not set"
    assert ask(vm, "info")["resets"] == before + 1


def previous(vm):
    """What this boot was told of the one before: stall events, and the bus's last words."""
    reader = listen(vm, newest=False)
    time.sleep(0.5)
    # A reset without last words is found by this boot, before anybody could listen.
    old = bus.F_PREVIOUS_BOOT | bus.F_BOOT
    events = [event for event in reader.events() if event["flags"] & old]
    reader.close()
    stalls = [event for event in events if event["source"] == bus.SRC_STALL]
    words = [event for event in events if event["source"] == bus.SRC_BUS]
    return stalls, words


def test_a_bite_that_was_taken_back_is_forgotten(vm):
    """The rank goes on before the hardware bites; a clean reboot then tells of nothing."""
    resets = ask(vm, "info")["resets"]
    reader = listen(vm)
    rank = Rank(vm, 7, cpu=2, step=DEADLINE_MS)
    rank.do(f"spin {DEADLINE_MS + BITE_MS + 500}")
    expect(reader, 0, rank, bus.EV_PREBITE)
    expect_recovery(reader, 0, rank, bus.PREBITE)
    vm.spawn("reboot")
    vm.wait_boot()
    assert previous(vm) == ([], [])
    assert ask(vm, "info")["resets"] == resets


def test_a_stalled_rank_resets_the_node(vm):
    # Time for the snapshot.
    tune(vm, bite_ms=4000)
    reader = listen(vm)
    rank = Rank(vm, 5, cpu=2, step=DEADLINE_MS, name="llm-70b")
    rank.do("quiet")
    told_events = []

    def die():
        stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SLEEPING)
        acked = reader.wait(20, source=bus.SRC_BUS, kind=bus.BUS_ACKED)
        prebite = expect(reader, 0, rank, bus.EV_PREBITE, state=bus.PREBITE, held=bus.H_NOT)
        told_events.extend((stalled, acked, prebite))

    reset(vm, die)
    stalled, acked, prebite = told_events
    assert told(reader, rank=5) == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK", "PREBITE"]
    levels = [event["level"] for event in reader.events(rank=5)]
    assert levels == [bus.WATCH, bus.WATCH, bus.IMMINENT, bus.DEGRADING, bus.FATAL]
    assert prebite["stall"]["evidence"] & bus.E_PHASE
    assert prebite["stall"]["timeout_ms"] == TIMEOUT_S * 1000

    (last,), (words,) = previous(vm)
    assert (last["kind"], last["level"]) == (bus.EV_PREBITE, bus.FATAL)
    same = ("rank", "name", "comm", "pid", "tid", "step", "phase", "culprit", "evidence", "deadline_ns")
    assert {name: last["stall"][name] for name in same} == {name: prebite["stall"][name] for name in same}
    assert last["boot_id"] == prebite["boot_id"]
    assert words["bus"]["incident"] == stalled["incident"] == acked["bus"]["incident"]
    assert words["bus"]["snapshot_id"] == acked["bus"]["snapshot_id"] != 0
    assert words["bus"]["source"] == bus.SRC_STALL


def test_all_cpus_are_wedged(vm):
    """Nobody is left to say a word: the permit ends by itself."""
    reset(vm, lambda: wedge(vm, ALL))
    (event,), words = previous(vm)
    assert (event["kind"], event["level"]) == (bus.EV_RESET, bus.FATAL)
    assert words == []


def test_a_reboot_hangs(vm):
    tune(vm, reboot_s=TIMEOUT_S)
    vm.run(f"modprobe nullhz_stall_gen && echo 3600000 > {GENERATOR}/reboot")
    reset(vm, lambda: vm.spawn("reboot"))
    (event,), _ = previous(vm)
    assert event["kind"] == bus.EV_RESET


def test_a_halted_node_stays_halted(vm):
    """The core's notifiers have stopped the device; going down takes long enough to think again.

    A rank that is still there stalls meanwhile: nothing to tell the next boot.
    """
    resets = ask(vm, "info")["resets"]
    vm.run(f"modprobe nullhz_stall_gen && echo 6000 > {GENERATOR}/reboot")
    tune(vm, bite_ms=3000)
    rank = Rank(vm, 5, cpu=2, step=DEADLINE_MS)
    rank.do("quiet")
    seen, since = vm.monitor.position, vm.console.position
    # At once, the processes still there.
    vm.spawn("halt -f")
    vm.wait_log("System halted", 30, since)
    time.sleep(2 * TIMEOUT_S)
    assert not [event for event in vm.monitor.events(seen) if event.name in ("WATCHDOG", "RESET")]
    vm.reset()
    assert previous(vm) == ([], [])
    assert ask(vm, "info")["resets"] == resets


def test_a_restart_limit_that_no_device_can_do(vm):
    """It gets the longest that it can do, and does not keep the few seconds that it has."""
    resets = ask(vm, "info")["resets"]
    tune(vm, reboot_s=3600)
    vm.run(f"modprobe nullhz_stall_gen && echo {2000 * TIMEOUT_S} > {GENERATOR}/reboot")
    seen, since = vm.monitor.position, vm.console.position
    vm.spawn("reboot")
    vm.wait_boot()
    assert not [event for event in vm.monitor.events(seen) if event.name == "WATCHDOG"]
    vm.wait_log(f"a restart may take {LONGEST_S} s, and not 3600", since=since)
    assert previous(vm) == ([], [])
    assert ask(vm, "info")["resets"] == resets


@pytest.fixture
def firmware(boot, tmp_path):
    """firmware(change) boots a node whose ledger is in the firmware's store alone, after
    `change(content)` of its file; (node, content of the file as it was).
    """
    store = tmp_path / "erst.bin"

    def start(change=None):
        before = bytearray(store.read_bytes()) if store.exists() else bytearray()
        if change:
            content = bytearray(before)
            change(content)
            store.write_bytes(content)
        return boot(erst=store, reserved=False, append="nullhz.agent=off", **NODE), before

    return start


def test_a_damaged_ledger_is_dropped(firmware):
    """It is told, and the node starts with a new one."""
    vm, _ = firmware()
    prepare(vm)
    vm.stop()

    def damage(content):
        (ledger,) = erst.holding(content, LEDGER)
        content[content.index(LEDGER, ledger) + 100] ^= 1

    vm, _ = firmware(damage)
    told = [line for line in vm.dmesg() if "nullhz_stall: erst: a damaged ledger is dropped" in line]
    assert len(told) == 1
    prepare(vm)
    vm.stop()
    vm, content = firmware()
    assert len(erst.holding(content, LEDGER)) == 1
    assert not [line for line in vm.dmesg() if "damaged" in line]


def test_a_record_that_cannot_be_read_hides_no_ledger(firmware):
    """Somebody else's, in front of ours: the ledger is found, and replaced by the next one."""
    vm, _ = firmware()
    persist = "/sys/kernel/debug/nullhz_fault_gen/persist"
    vm.run(f"modprobe nullhz_fault_gen; for i in 1 2; do echo 1 > {persist}; done")
    prepare(vm)
    vm.stop()

    def refuse(content):
        (ledger,) = erst.holding(content, LEDGER)
        first = erst.records(content)[0]
        assert first < ledger
        # UEFI 2.10, N.2.1: the record's length, which the firmware refuses.
        content[first + 20 : first + 24] = bytes(4)

    vm, _ = firmware(refuse)
    assert "nullhz_stall: erst: not all can be read: " in "\n".join(vm.dmesg())
    prepare(vm)
    vm.stop()
    _, content = firmware()
    assert len(erst.holding(content, LEDGER)) == 1


def test_a_boot_loop_ends_disarmed(shared_node):
    """After three resets within a day the node stays up, says why, and waits for an operator.

    Those of the tests before count, when they ran.
    """
    vm = shared_node
    while ask(vm, "info")["resets"] < BUDGET:
        prepare(vm)
        reset(vm, lambda: wedge(vm, ALL))
    info = ask(vm, "info")
    assert (info["resets"], info["armed"]) == (BUDGET, 0)
    reader = listen(vm, newest=False)
    held = reader.wait(20, source=bus.SRC_STALL, kind=bus.EV_HELD)
    assert held["level"] == bus.DEGRADING
    assert (held["stall"]["held"], held["stall"]["resets"]) == (bus.H_BUDGET, BUDGET)

    # A clock that is set makes it no younger, as where the battery is dead and NTP is late.
    for days in (3, -10, 7):
        vm.run(f"date -s @$(($(date +%s) + {days * 24 * 3600}))")
        # The hardware is looked after every second.
        time.sleep(2.5)
        info = ask(vm, "info")
        assert (info["resets"], info["armed"]) == (BUDGET, 0), f"{days} days"

    position = reader.position
    tune(vm, no_ack_ms=300, bite_ms=BITE_MS, feed_timeout_s=TIMEOUT_S)
    rank = Rank(vm, 6, cpu=2, step=DEADLINE_MS)
    rank.do("quiet")
    expect(reader, position, rank, bus.EV_HELD, held=bus.H_BUDGET, state=bus.NO_ACK)
    time.sleep(TIMEOUT_S + 1)
    assert told(reader, position, rank=6) == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK", "HELD"]

    # The operator trusts it again: the rank that is still stalled is a reason at once.
    seen = vm.monitor.position
    vm.run(f"echo 1 > {SYSFS}/rearm")
    expect(reader, position, rank, bus.EV_PREBITE, resets=0)
    vm.monitor.wait("WATCHDOG", 30, since=seen)
    vm.wait_boot()
    assert ask(vm, "info")["resets"] == 1
