# SPDX-License-Identifier: GPL-2.0
"""From a machine check to an event, an incident, a snapshot."""

import json
import time

import pytest
from nullhz import bus, guest
from records import (
    ACTION_OPTIONAL,
    BYSTANDER,
    CORRECTED,
    FATAL,
    LINE,
    RESTARTABLE,
    UCNA,
    WHOLE_PAGE,
    action_optional,
    agent_status,
    corrected,
    generate,
    imminent,
    inject,
    page,
    snapshots,
)


@pytest.fixture
def vm(boot, request):
    return boot(**getattr(request, "param", {}))


def test_corrected_errors_become_degrading(vm):
    vm.poll_machine_checks(1)
    reader = guest.Reader(vm)
    for number, level in enumerate((bus.WATCH, bus.DEGRADING), 1):
        addr = page(1) + 64 * number
        corrected(vm, addr)
        event = reader.wait(20, source=bus.SRC_MCE, addr=addr)
        assert event["kind"] == bus.MCE_CORRECTED
        assert event["level"] == level
        assert event["cpu"] == 0
        assert event["incident"] == 0
        assert event["mce"]["page_count"] == number
        assert event["mce"]["bank"] == 7
        assert event["mce"]["status"] == CORRECTED
        assert event["mce"]["misc"] == LINE
    assert event["mce"]["reason"] & bus.R_PAGE
    # Another page is another bucket.
    corrected(vm, page(2))
    event = reader.wait(20, source=bus.SRC_MCE, addr=page(2))
    assert (event["level"], event["mce"]["page_count"]) == (bus.WATCH, 1)
    sequence = [event["seq"] for event in reader.events()]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))
    assert guest.info(vm)["last_incident"] == 0


def test_a_machine_check_ends_in_an_acknowledged_snapshot(vm):
    vm.run("echo state of step 41 > /checkpoint/current/state")
    before = set(snapshots(vm))
    reader = guest.Reader(vm)
    action_optional(vm, page(3))
    event = imminent(reader, page(3))
    assert event["kind"] == bus.MCE_ACTION_OPTIONAL
    assert event["flags"] & bus.F_OPENED
    assert event["cpu"] == 0
    assert event["incident"] == 1
    registers = {name: event["mce"][name] for name in ("status", "mcgstatus", "misc", "bank")}
    assert registers == {"status": ACTION_OPTIONAL, "mcgstatus": RESTARTABLE, "misc": WHOLE_PAGE, "bank": 5}
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert acked["incident"] == event["incident"]
    assert acked["result"] == 0
    incident = guest.incident(vm, event["incident"])
    assert incident["state"] == bus.INCIDENT_ACKED
    assert incident["snapshot_id"] == acked["snapshot_id"]
    assert incident["first_seq"] == event["seq"]
    assert not incident["late"]
    new = {ident: path for ident, path in snapshots(vm).items() if ident not in before}
    assert list(new) == [acked["snapshot_id"]]
    path = new[acked["snapshot_id"]]
    assert vm.read(f"{path}/state") == "state of step 41"
    refused = vm.run(["touch", f"{path}/state"], check=False)
    assert refused.rc and "Read-only file system" in refused.stderr
    status = agent_status(vm)
    assert acked["acker"] == status["pid"]
    assert guest.info(vm)["open_incidents"] == 0


def test_every_cpu_of_a_broadcast_is_told_apart(vm):
    """The bystanders' empty records open no incident and raise no level."""
    reader = guest.Reader(vm)
    action_optional(vm, page(4), cpu=2)
    event = imminent(reader, page(4))
    assert event["cpu"] == 2
    reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)
    others = reader.events(source=bus.SRC_MCE, status=BYSTANDER)
    assert {other["cpu"] for other in others} <= {0, 1, 3}
    assert all(other["level"] == bus.WATCH for other in others), others
    assert guest.info(vm)["last_incident"] == 1


def test_the_agent_knows_what_the_event_means(vm):
    action_optional(vm, page(5))
    end = time.monotonic() + 20
    while guest.info(vm)["last_snapshot_id"] == 0:
        assert time.monotonic() < end
    lines = vm.run(["nullhz-agent", "events", "--json"]).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert any("IMMINENT" in json.dumps(event).upper() for event in events)
    text = vm.run(["nullhz-agent", "events"]).stdout
    assert "IMMINENT" in text.upper()
    assert "scrub" in text.lower()


NOT_LOADED = {"append": "modprobe.blacklist=nullhz_stall,nullhz_mce,nullhz_fault"}


@pytest.mark.parametrize("vm", [NOT_LOADED], indirect=True)
def test_what_happened_before_the_module_was_loaded(vm):
    assert vm.run("ls /sys/module | grep nullhz", check=False).rc
    inject(vm, CORRECTED, page(6), LINE)
    inject(vm, CORRECTED, page(7), LINE)
    vm.run("modprobe nullhz_mce")
    reader = guest.Reader(vm, newest=False)
    for addr in (page(6), page(7)):
        event = reader.wait(10, source=bus.SRC_MCE, addr=addr)
        assert event["flags"] & bus.F_BOOT
        assert event["kind"] == bus.MCE_CORRECTED
    inject(vm, CORRECTED, page(8), LINE)
    event = reader.wait(10, source=bus.SRC_MCE, addr=page(8))
    assert not event["flags"] & bus.F_BOOT
    # Each of them once.
    assert len(reader.events(source=bus.SRC_MCE)) == 3


def test_records_of_software_are_graded_as_the_machines(vm):
    """They have no MCG_CAP, which would say that the processor can recover."""
    reader = guest.Reader(vm)
    for status, kind in {ACTION_OPTIONAL: bus.MCE_ACTION_OPTIONAL, UCNA: bus.MCE_DEFERRED}.items():
        inject(vm, status, addr=page(8), misc=LINE)
        event = reader.wait(20, source=bus.SRC_MCE, status=status)
        assert event["mce"]["mcgcap"] == 0
        assert (event["kind"], event["level"]) == (kind, bus.IMMINENT)


@pytest.mark.parametrize("vendor", [0, 2, 9], ids=["Intel", "AMD", "Hygon"])
def test_what_firmware_calls_recoverable_opens_an_incident(vm, vendor):
    reader = guest.Reader(vm)
    status = 0xBC0000000000009F
    record = {"status": status, "misc": WHOLE_PAGE, "addr": page(9), "mcgcap": 0, "bank": 255}
    generate(vm, "nullhz_mce_gen", vendor=vendor, **record)
    event = reader.wait(20, source=bus.SRC_MCE, status=status)
    assert (event["kind"], event["level"]) == (bus.MCE_DEFERRED, bus.IMMINENT)
    assert event["flags"] & bus.F_OPENED


def test_what_should_have_been_fatal_opens_an_incident(vm):
    """The node goes on after it, as after a record that only software has made."""
    reader = guest.Reader(vm)
    inject(vm, FATAL, addr=page(10), misc=LINE)
    event = reader.wait(20, source=bus.SRC_MCE, status=FATAL)
    assert (event["kind"], event["level"]) == (bus.MCE_FATAL, bus.IMMINENT)
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED, incident=event["incident"])
    assert acked["bus"]["snapshot_id"]
