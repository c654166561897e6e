# SPDX-License-Identifier: GPL-2.0
"""The library's tracepoints tell what its counters count."""

import re

import mmu
import pytest

pytestmark = pytest.mark.exact

TRACE = "/sys/kernel/tracing/instances/mmu"
INTERVALS = 64
LINE = re.compile(r"nullhz_mmu_batch_(\w+): (device=soft-gpu .*)")


@pytest.fixture
def vm(shared_node):
    mmu.load(shared_node)
    return shared_node


def traced(vm, *workload, mode="batched"):
    """Runs a workload; returns the library's counters, and {tracepoint: [{field: value}]}."""
    before = mmu.counters(vm)
    vm.run(f"mkdir {TRACE}; echo 1 > {TRACE}/events/nullhz_mmu_batch/enable")
    try:
        mmu.workload(vm, *workload, modes=mode)
        vm.run(f"echo 0 > {TRACE}/tracing_on")
        found = LINE.findall(vm.run(f"cat {TRACE}/trace").stdout)
    finally:
        vm.run(f"echo 0 > {TRACE}/events/nullhz_mmu_batch/enable; rmdir {TRACE}")
    after = mmu.counters(vm)
    seen = {}
    for name, fields in found:
        seen.setdefault(name, []).append(dict(field.split("=") for field in fields.split()))
    return {name: after[name] - before[name] for name in after}, seen


# All intervals lie in one block of 512 MB, or in two.
@pytest.mark.parametrize("mode, tickets", [("batched", (1, 2)), ("typed", (INTERVALS,))])
def test_events_and_flushes(vm, mode, tickets):
    counted, seen = traced(vm, "munmap", "--intervals", INTERVALS, mode=mode)
    assert counted["tickets"] in tickets, counted
    intervals = {outcome: 0 for outcome in ("ticket", "elided")}
    for event in seen["event"]:
        intervals[event["outcome"]] += int(event["intervals"])
    assert intervals["ticket"] == INTERVALS, seen["event"]
    assert intervals["elided"] == counted["elided"], (intervals, counted)
    assert sum(intervals.values()) == counted["intervals"], (intervals, counted)
    outcomes = [event["outcome"] for event in seen["event"]]
    assert outcomes.count("ticket") == counted["tickets"], counted
    # The munmap(); and the end of the process, which finds nothing any more.
    assert {event["kind"] for event in seen["event"]} <= {"unmap", "release"}
    [flush] = seen["flush_end"]
    assert counted["flushes"] == 1 and int(flush["tickets"]) == counted["tickets"], flush
    assert int(flush["generation"]) == int(seen["wait"][0]["ticket"]), (flush, seen["wait"])
    [span] = seen["span"]
    ends = [int(span[end], 0) for end in ("start", "end")]
    assert ends[1] - ends[0] == INTERVALS * 2 << 20, span
    assert flush["spans"] == seen["flush_begin"][0]["spans"] == "1", seen


def test_deferred_unmaps(vm):
    counted, seen = traced(vm, "gather", "--buffers", 128)
    assert len(seen["defer"]) == counted["deferred"] == counted["released"] == 128, counted
    assert sum(int(defer["pages"]) for defer in seen["defer"]) == counted["deferred_pages"], counted
    drains = [drain["cause"] for drain in seen["drain"]]
    for cause in ("submit", "reuse", "size", "time", "shrinker", "release"):
        assert drains.count(cause) == counted[f"drains_{cause}"], (cause, counted, drains)
    assert sum(int(flush["tickets"]) for flush in seen["flush_end"]) == 128, seen["flush_end"]
