# SPDX-License-Identifier: GPL-2.0
"""A trainer that does everything wrong gets its error, its event, and harms nobody."""

import json
import time

import pytest
from memory import memory
from nullhz import bus, guest
from stalls import LATE_NS, SYSFS, Rank, ask, counter, expect, expect_stall, listen, told, tune

pytestmark = pytest.mark.timed
NODE = {"append": "nullhz.agent=off", "watchdog": None}
DEADLINE_MS = 400
# A number that none of the hostile ranks has: it is of another job, and they may.
BYSTANDER = 20_000
# What the kernel's own caches may move.
SLACK_KIB = 2048


@pytest.fixture
def vm(shared_node):
    shared_node.run("echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")
    tune(shared_node, no_ack_ms=3_600_000, bite_ms=3_600_000)
    return shared_node


@pytest.fixture
def reader(vm):
    reader = listen(vm)
    yield reader
    reader.close()


@pytest.fixture
def bystander(vm, reader):
    """A rank that behaves, on a training CPU: nothing may happen to it."""
    rank = Rank(vm, BYSTANDER, cpu=3, step=DEADLINE_MS)
    yield rank
    rank.leave()
    expect(reader, 0, rank, bus.EV_LEFT)
    assert told(reader, rank=BYSTANDER) == ["REGISTERED", "LEFT"]


def hostile(vm, *command, timeout=60, cpu=None):
    """guest/hostile.c; what it prints."""
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    result = vm.run([*pinned, guest.put_program(vm, "hostile"), *map(str, command)], timeout)
    return json.loads(result.stdout)


def ranks(vm, *arguments):
    """guest/ranks.py, ready."""
    for name in ("bus.py", "stall.py"):
        guest.put_script(vm, name)
    running = vm.spawn(["python3", "-S", guest.put_script(vm, "ranks.py"), *map(str, arguments)])
    assert running.read_line() == "ready"
    return running


def test_random_bytes(vm, reader, bystander):
    """At full speed, over the kernel's part of the page as well."""
    before = counter(vm, "passes")
    rounds = hostile(vm, "bytes", 2000, cpu=2)["rounds"]
    assert rounds > 100
    passes = counter(vm, "passes") - before
    assert passes > 150, "the sampler was kept from its work"
    reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_LEFT, rank=0)
    # Once, however often.
    assert told(reader, rank=0) == ["REGISTERED", "BAD_PAGE", "LEFT"]


def test_steps_that_jump_wrap_and_go_back(vm, reader, bystander):
    hostile(vm, "steps", 1500, cpu=2)
    reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_LEFT, rank=0)
    assert told(reader, rank=0) == ["REGISTERED", "BAD_PAGE", "LEFT"]


def test_mappings(vm, reader):
    answers = hostile(vm, "maps")
    expected = dict.fromkeys(
        ("none", "two pages", "huge", "offset", "far offset", "private", "read only", "write only"), "EINVAL"
    )
    expected["executable"] = "EINVAL"
    # The kernel's own check, before the driver's.
    expected["file opened for reading"] = "EACCES"
    expected["again"] = "EBUSY"
    expected["mprotect exec"] = "EACCES"
    expected["mremap larger"] = "EFAULT"
    # A child has no page: a heartbeat of it would be taken for its parent's.
    expected["child's store"] = "Segmentation fault"
    assert answers == expected


def test_ten_thousand_ranks(vm, reader, bystander, flavour):
    """Up to the limit, none beyond it; all memory comes back."""
    limit = ask(vm, "info")["max_ranks"]
    program = ["many", 10_000]
    # The dead are taken out a few at a time.
    buried = f"until [ $(cat {SYSFS}/ranks) = 1 ]; do sleep 0.1; done"
    # The first round fills caches that stay.
    hostile(vm, *program)
    vm.run(buried, 10)
    before = memory(vm)
    for _ in range(3):
        # Nor do they keep anybody out while they are there.
        answer = hostile(vm, *program)
        assert answer["registered"] == min(limit - 1, 10_000)
        assert answer["refused"] == 10_000 - answer["registered"]
        assert answer["error"] == ("ENOSPC" if answer["refused"] else "none")
    vm.run(buried, 10)
    after = memory(vm)
    grown = {name: after[name] - before[name] for name in after}
    print(f"grown, KiB: {grown}")
    # The debug kernel keeps for a while what is freed, and tells of every leak.
    assert flavour == "debug" or sum(grown.values()) < SLACK_KIB, grown
    assert [rank["rank"] for rank in ask(vm, "ranks")] == [BYSTANDER]


def test_memory_of_a_rank_is_bounded(vm):
    """Each rank costs its page and a few KiB, whoever registers them."""
    count = 256
    before = memory(vm)
    running = ranks(vm, count)
    after = memory(vm)
    running.kill(9)
    running.wait()
    grown = sum(after.values()) - sum(before.values())
    assert grown < count * 16, f"{grown} KiB for {count} ranks"


@pytest.mark.parametrize("what", ["pass", "exec", "thread"])
def test_the_file_outlives_what_registered(vm, reader, what):
    """Handed to another process, taken along by exec, kept by other threads."""
    running = vm.spawn([guest.put_program(vm, "hostile"), what])
    pid = json.loads(running.read_line())["pid"]
    if what == "pass":
        # The process is dead, whoever holds its file.
        reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_CRASHED, rank=0, pid=pid)
        assert told(reader, rank=0) == ["REGISTERED", "CRASHED"]
    else:
        # Where the thread that registered is dead, the others' state is told.
        fields = {"culprit": bus.C_SLEEPING, "tid": pid, "comm": "sleep" if what == "exec" else "hostile"}
        stalled = reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_STALLED, rank=0, pid=pid, **fields)
        assert stalled["stall"]["age_ns"] < (DEADLINE_MS * 1_000_000) + LATE_NS
    vm.run("pkill -9 hostile; pkill -9 sleep", check=False)
    reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_CRASHED, rank=0)


def test_many_die_at_once(vm, reader, bystander):
    """kill -9 of 64 ranks: an event for each, exactly one."""
    running = ranks(vm, 64, "fork")
    running.kill(9)
    crashed = reader.wait(
        30, count=64, source=bus.SRC_STALL, kind=bus.EV_CRASHED, where=lambda e: e["stall"]["rank"] < 64
    )
    assert sorted(event["stall"]["rank"] for event in crashed) == list(range(64))
    time.sleep(0.3)
    assert len(reader.events(kind=bus.EV_CRASHED)) == 64


def test_a_stall_goes_on_being_found(vm, reader):
    """After all that."""
    rank = Rank(vm, 101, cpu=2, step=DEADLINE_MS)
    rank.do("quiet")
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SLEEPING)
    rank.kill()
    expect(reader, 0, rank, bus.EV_CRASHED)
