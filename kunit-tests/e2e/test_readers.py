# SPDX-License-Identifier: GPL-2.0
"""Readers of the fault bus: how they are woken, and that no record is lost uncounted."""

import json
import time

import pytest
from nullhz import bus, guest
from records import CORRECTED, LINE, action_optional, generate, inject, page

NODE = {"append": "nullhz.agent=off"}
MILLION = 1_000_000
SOURCE = bus.SRC_PRIVATE
LOST = "/sys/class/misc/nullhz-fault/lost"


@pytest.fixture(autouse=True)
def no_cooldown(shared_node):
    """Every test opens an incident of its own."""
    shared_node.run("echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")


def tally(vm, *arguments):
    """Starts guest/tally.c."""
    running = vm.spawn([guest.put_program(vm, "tally"), *map(str, arguments)], timeout=300)
    assert running.read_line() == "ready"
    return running


def total(running):
    """What it has read; all that it could is reported."""
    running.kill(15)
    result = running.wait(300)
    assert result.rc == 0, result
    return json.loads(result.stdout.splitlines()[-1])


FILL = """
import errno, os, resource, signal
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
files = 0
try:
    while True:
        os.open("/dev/nullhz-fault", os.O_RDONLY)
        files += 1
except OSError as error:
    print(files, errno.errorcode[error.errno], flush=True)
signal.pause()
"""


def test_open_files_are_bounded(shared_node):
    """Those of the group: each costs the bus's thread time. Who may acknowledge still gets in."""
    vm = shared_node
    running = vm.spawn(["python3", "-c", FILL], user="nobody", groups=["nullhz"])
    assert running.read_line() == "1024 ENFILE"
    guest.Reader(vm).close()
    running.kill(9)
    running.wait()


@pytest.mark.parametrize("how", ["sigio", "epoll", "uring"])
def test_imminent_wakes(shared_node, how):
    vm = shared_node
    running = vm.spawn([guest.put_program(vm, "waiter"), how, "30"])
    assert running.read_line() == "ready"
    action_optional(vm, page(1))
    result = running.wait(40)
    assert result.rc == 0, result
    woken = json.loads(result.stdout.splitlines()[-1])
    assert woken["urgent"]
    assert woken["level"] == bus.IMMINENT


def test_what_can_wait_is_not_urgent(shared_node):
    """A corrected error does not wake those who wait for EPOLLPRI alone."""
    vm = shared_node
    reader = guest.Reader(vm)
    running = vm.spawn([guest.put_program(vm, "waiter"), "epoll", "2"])
    assert running.read_line() == "ready"
    inject(vm, CORRECTED, page(2), LINE)
    reader.wait(10, source=bus.SRC_MCE, addr=page(2))
    reader.close()
    assert running.wait(20).rc == 2


def those_of(others, between, expected):
    """How many records in a range of numbers another reader has got in a while, and how many
    records it was told to have missed: it may be kept from the processor, too.
    """
    end = time.monotonic() + 10
    while True:
        events = others.events()
        seen, missed = (
            sum(event["seq"] in between for event in events),
            sum(event["lost"] for event in events),
        )
        if seen + missed >= expected or time.monotonic() > end:
            return seen, missed
        time.sleep(0.1)


@pytest.mark.exact
@pytest.mark.parametrize("context", ["process", "hardirq"])
def test_a_million_events_are_accounted_for(shared_node, context):
    """By a reader that keeps up as well as it can, and by one that cannot."""
    vm = shared_node
    # The bus and the watchdogs may have something to say as well, at any time.
    others = guest.Reader(vm, sources=~(1 << SOURCE) & (1 << 64) - 1)
    lost = int(vm.read(LOST))
    readers = [tally(vm, SOURCE, 256), tally(vm, SOURCE, 16, 5000)]
    generate(vm, "nullhz_fault_gen", count=MILLION, level="watch", context=context, source=SOURCE)
    fast, slow = totals = [total(reader) for reader in readers]
    for reader in totals:
        assert reader["records"] + reader["lost"] == MILLION, reader
        assert reader["occurrences"] == reader["records"], reader
        assert reader["backwards"] == 0, reader
        # No number is missing: each that was not ours is that of another source's record.
        assert reader["last_seq"] - reader["first_seq"] == MILLION + reader["others"], reader
        between = range(reader["first_seq"] + 1, reader["last_seq"])
        seen, missed = those_of(others, between, reader["others"])
        assert seen <= reader["others"] <= seen + missed, (reader, seen, missed)
    assert slow["lost"] > 0, "it was not slow"
    # The bus counts what its readers missed.
    assert int(vm.read(LOST)) - lost == fast["lost"] + slow["lost"]
    others.close()


@pytest.mark.exact
def test_nobody_misses_anything_at_a_bearable_rate(shared_node):
    vm = shared_node
    readers = [tally(vm, SOURCE, batch, pause) for batch, pause in ((1, 0), (64, 0), (64, 10000))]
    generate(vm, "nullhz_fault_gen", count=2000, level="degrading", source=SOURCE, rate=1000)
    for reader in map(total, readers):
        assert (reader["records"], reader["lost"]) == (2000, 0)


@pytest.mark.exact
def test_sums_stand_for_what_they_sum_up(shared_node):
    vm = shared_node
    reader = tally(vm, SOURCE)
    generate(vm, "nullhz_fault_gen", count=500, level="watch", source=SOURCE, sum=7, rate=1000)
    found = total(reader)
    assert (found["records"], found["occurrences"], found["lost"]) == (500, 3500, 0)


def test_filters_let_through_what_was_asked_for(shared_node):
    vm = shared_node
    by_level = guest.Reader(vm, min_level=bus.DEGRADING)
    by_source = guest.Reader(vm, sources=1 << 33)
    for level in ("watch", "degrading"):
        for source in (32, 33):
            generate(vm, "nullhz_fault_gen", count=3, level=level, source=source)
    levels = [event["level"] for event in by_level.wait(10, count=6)]
    assert levels == [bus.DEGRADING] * 6
    sources = [event["source"] for event in by_source.wait(10, count=6)]
    assert sources == [33] * 6
    # What a filter holds back is not lost.
    assert sum(event["lost"] for event in by_level.events() + by_source.events()) == 0
    by_level.close()
    by_source.close()


def test_replay_of_what_was_before_the_open(shared_node):
    vm = shared_node
    generate(vm, "nullhz_fault_gen", count=5, level="watch", source=34)
    reader = guest.Reader(vm, newest=False, sources=1 << 34)
    events = reader.wait(10, count=5)
    numbers = [int.from_bytes(bytes.fromhex(event["payload"]), "little") for event in events]
    assert numbers == [0, 1, 2, 3, 4]
    reader.close()


@pytest.mark.exact
def test_an_unacknowledged_incident_outlives_the_ring(shared_node):
    vm = shared_node
    generate(vm, "nullhz_fault_gen", count=1, level="imminent", source=35)
    number = guest.info(vm)["last_incident"]
    ring = guest.info(vm)["ring_events"]
    generate(vm, "nullhz_fault_gen", count=2 * ring, level="watch", source=32)
    reader = guest.Reader(vm, newest=False, min_level=bus.IMMINENT)
    event = reader.wait(10, incident=number, source=35)
    assert event["flags"] & bus.F_REPLAYED and event["flags"] & bus.F_OPENED
    reader.close()
    guest.bus_command(vm, "ack", number, 256)
    reader = guest.Reader(vm, newest=False, min_level=bus.IMMINENT)
    vm.run("sleep 0.5")
    assert reader.events(incident=number, source=35) == []
    reader.close()
