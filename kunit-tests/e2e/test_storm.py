# SPDX-License-Identifier: GPL-2.0
"""Ten thousand records at once: one incident, one snapshot, and exact counts."""

import json
import time

import pytest
from nullhz import bus, guest
from records import CORRECTED, LINE, generate, mce_counter, page, snapshots

RECORDS = 10_000
# Intel UCNA: an uncorrected error that nobody has consumed yet; IMMINENT each.
DEFERRED = 0xBC00000000010090


@pytest.fixture
def vm(boot):
    """Without the stall watchdog: what it says of a busy host would be counted, too."""
    return boot(append="modprobe.blacklist=nullhz_stall")


def log(vm, count, status, step, base=0, context="process"):
    """Machine checks as fast as possible."""
    job = {"status": hex(status), "addr": hex(page(base)), "step": step, "misc": hex(LINE), "bank": 7}
    generate(vm, "nullhz_mce_gen", count=count, context=context, **job)


def storm(vm, status, step, context):
    """RECORDS of them, and what a reader found."""
    tally = vm.spawn([guest.put_program(vm, "tally"), str(bus.SRC_MCE)], timeout=300)
    assert tally.read_line() == "ready"
    reader = guest.Reader(vm, sources=1 << bus.SRC_BUS)
    log(vm, RECORDS, status, step, context=context)
    # Logged is not yet reported: a thread does that.
    end = time.monotonic() + 60
    while mce_counter(vm, "records") + mce_counter(vm, "lost") < RECORDS:
        assert time.monotonic() < end, "records are missing"
    # Whatever was summed up last is told after 100 ms.
    vm.run("sleep 0.5")
    tally.kill(15)
    result = tally.wait(300)
    assert result.rc == 0, result
    total = json.loads(result.stdout.splitlines()[-1])
    assert total["backwards"] == 0
    assert mce_counter(vm, "records") + mce_counter(vm, "lost") == RECORDS
    return total, reader


def counters(vm):
    names = ("watch", "degrading", "imminent", "fatal")
    path = "/sys/class/misc/nullhz-fault"
    return {name: int(vm.read(f"{path}/events_{name}")) for name in names}


def one_incident(vm, reader):
    """The only incident, acknowledged with the only snapshot."""
    acked = reader.wait(30, kind=bus.BUS_ACKED)["bus"]
    assert acked["result"] == 0
    assert guest.info(vm)["last_incident"] == acked["incident"] == 1
    assert list(snapshots(vm)) == [acked["snapshot_id"]]
    return guest.incident(vm, 1)


@pytest.mark.exact
@pytest.mark.parametrize("context", ["process", "hardirq"])
def test_corrected_errors_of_one_page(vm, context):
    total, reader = storm(vm, CORRECTED, 0, context)
    counts = counters(vm)
    records = mce_counter(vm, "records")
    assert sum(counts.values()) == mce_counter(vm, "corrected") == records, counts
    assert counts["watch"] >= 1 and counts["degrading"] >= 1 and counts["imminent"] >= 1, counts
    # What the reader missed is in its own count, what was summed up in the sums.
    sums = [event["count"] for event in reader.events(kind=bus.BUS_STORM)]
    assert total["occurrences"] + total["lost"] + sum(sums) == records, (total, sums)
    incident = one_incident(vm, reader)
    assert incident["joined"] == counts["imminent"]


@pytest.mark.exact
def test_uncorrected_errors_of_many_pages(vm):
    total, reader = storm(vm, DEFERRED, 4096, "hardirq")
    counts = counters(vm)
    records = mce_counter(vm, "records")
    assert counts["imminent"] == mce_counter(vm, "deferred") == records, counts
    sums = [event["count"] for event in reader.events(kind=bus.BUS_STORM)]
    assert sums, "a storm that nobody summed up"
    assert total["occurrences"] + total["lost"] + sum(sums) == records, (total, sums)
    # 16 a second of its own records, the rest in a sum each 100 ms.
    assert total["records"] + total["lost"] < RECORDS // 4
    incident = one_incident(vm, reader)
    assert incident["joined"] == counts["imminent"]


def test_one_incident_per_cooldown(vm):
    """Two storms more than a cooldown apart: two incidents, two snapshots."""
    vm.run("echo 1000 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")
    reader = guest.Reader(vm, sources=1 << bus.SRC_BUS)
    for number in (1, 2):
        log(vm, 50, DEFERRED, 4096, number * 100)
        acked = reader.wait(30, kind=bus.BUS_ACKED, incident=number)["bus"]
        vm.run("sleep 1.5")
    assert guest.info(vm)["last_incident"] == 2
    assert len(snapshots(vm)) == 2
    assert acked["snapshot_id"] in snapshots(vm)
