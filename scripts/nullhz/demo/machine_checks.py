# SPDX-License-Identifier: GPL-2.0
"""Machine checks: corrected ones, one that the node survives, one that it does not."""

import time

from nullhz import bus

from .story import require, since_record

# Corrected: memory read on channel 0, one error, address and MISC valid.
CORRECTED = 0x8C00004000010090
# Uncorrected, signalled, action optional: found by the memory's patrol scrub.
ACTION_OPTIONAL = 0xBD000000000000C0
# Uncorrected, processor context corrupt: internal timer error (three strikes).
FATAL = 0xBE00000000800400
# No RAM there: the kernel's own handling of the page has nothing to do.
PAGE = 0x12_3456_7000
LINE = 0x86  # MISC: physical address, to a cache line
WHOLE_PAGE = 0x8C  # MISC: physical address, to a page

MCG_RESTARTABLE = 5  # MCIP, RIPV
MCG_NOT_RESTARTABLE = 4  # MCIP


def degrade(story):
    """Two corrected errors of one page."""
    vm, reader = story.vm, story.reader
    vm.poll_machine_checks(1)
    for number in (1, 2):
        sent = vm.mce(0, 7, CORRECTED, addr=PAGE + 64 * number, misc=LINE)
        event = reader.wait(15, source=bus.SRC_MCE, addr=PAGE + 64 * number)
        level = bus.LEVELS[event["level"]]
        require(event["kind"] == bus.MCE_CORRECTED, f"graded as {event['kind']}, not as corrected")
        seen = story.host(event["awake_ns"])
        text = f"corrected memory error {number} of the page {PAGE:#x}: {level}"
        if number == 1:
            require(event["level"] == bus.WATCH, f"one corrected error is {level}")
            text += "\n(no interrupt for these in QEMU: found by the kernel's 1 s poll)"
        else:
            require(event["level"] == bus.DEGRADING, f"the second error of a page is {level}")
            require(event["mce"]["reason"] & bus.R_PAGE, "DEGRADING for another reason than the page")
            text += ", checkpoint at the next step"
        story.step(
            f"corrected-{number}",
            text,
            seen,
            (seen - sent) * 1000,
            level=level,
            record_to_reader_ms=since_record(event),
            event=event,
        )


def survive(story, training):
    """An imminent failure: checkpoint, snapshot, and training goes on. Returns the
    incident's number and the snapshot."""
    vm, reader, step = story.vm, story.reader, story.step
    position = reader.position
    before = training.last_step()
    sent = vm.mce(
        0, 5, ACTION_OPTIONAL, MCG_RESTARTABLE, addr=PAGE + 0x10_0000, misc=WHOLE_PAGE, broadcast=True
    )
    event = reader.wait(15, since=position, source=bus.SRC_MCE, status=ACTION_OPTIONAL)
    require(event["level"] == bus.IMMINENT, f"the machine check is {bus.LEVELS[event['level']]}")
    require(event["kind"] == bus.MCE_ACTION_OPTIONAL, f"graded as {event['kind']}, not action optional")
    require(event["flags"] & bus.F_OPENED, "the machine check opened no incident")
    raised, seen = story.host(event["mono_ns"]), story.host(event["awake_ns"])
    step(
        "machine-check",
        f"machine check, action optional, on all CPUs: status {ACTION_OPTIONAL:#x}",
        raised,
        (raised - sent) * 1000,
    )
    step(
        "imminent",
        f"IMMINENT: incident {event['incident']} is open, the reader awake",
        seen,
        since_record(event),
        event=event,
    )
    acked, snapshot = story.acknowledged(event, position)
    held = training.verify(snapshot["path"])
    require(held["step"] >= before, f"the snapshot's checkpoint is older than the request: {held}")
    snapshot["step"] = held["step"]
    report = story.report(event["incident"])
    asked = report["checkpoint"]
    require(asked, "the ranks were not asked for a checkpoint")
    require(asked["end"] == "answered", f"not all ranks wrote a checkpoint: {asked}")
    step(
        "checkpoint",
        f"{asked['answered']} of {asked['asked']} ranks, asked for it, have a checkpoint of step "
        f"{held['step']} on disk",
        raised + (report["awake_ms"] + asked["wait_ms"]) / 1000,
        asked["wait_ms"],
        request=asked,
        checkpoint=held,
    )
    step(
        "snapshot",
        f"snapshot {snapshot['id']} with it is durable and acknowledged (pre-flush "
        f"{report['preflush_ms']:.1f} ms, snapshot {report['snapshot_ms']:.1f} ms)\n{snapshot['path']}",
        story.host(acked["mono_ns"]),
        acked["bus"]["age_ns"] / 1e6,
        snapshot=snapshot,
        report=report,
        event=acked,
    )
    now = training.goes_on(held["step"])
    step(
        "goes-on",
        f"the snapshot is read-only and its checkpoint whole; training goes on at step {now}",
        time.monotonic(),
        checkpoint_step=held["step"],
        training_step=now,
    )
    return event["incident"], snapshot


def die(story, training):
    """A machine check that nothing survives: panic, reset. Returns when the node is up again."""
    vm, step = story.vm, story.step
    last = training.keep()
    seen = vm.monitor.position
    lines = vm.console.position
    sent = vm.mce(1, 4, FATAL, MCG_NOT_RESTARTABLE, addr=PAGE, misc=LINE, broadcast=True)
    panic, match = vm.wait_log(r"Kernel panic - not syncing: (.*)", 20, since=lines)
    step(
        "panic",
        f"fatal machine check, context corrupt, in step {last} or later: status {FATAL:#x}\n{match[0]}",
        panic.time,
        (panic.time - sent) * 1000,
        message=match[1],
    )
    reset = vm.monitor.wait("RESET", 30, since=seen)
    step("reset", "the node resets itself", reset.time, (reset.time - panic.time) * 1000)
    vm.wait_boot()
    up = time.monotonic()
    step("reboot", "the node is up again", up, (up - reset.time) * 1000)
    return up


def remember(story, incident, snapshot, up):
    """What the boot after a fatal machine check knows."""
    event = story.reader.wait(15, source=bus.SRC_MCE, level=bus.FATAL)
    words = story.last_words(incident, snapshot)
    require(event["flags"] & bus.F_PREVIOUS_BOOT, "the fatal event is not of the boot before")
    registers = {name: event["mce"][name] for name in ("status", "addr", "misc", "mcgstatus", "bank")}
    expected = {"status": FATAL, "addr": PAGE, "misc": LINE, "mcgstatus": MCG_NOT_RESTARTABLE, "bank": 4}
    require(registers == expected, f"the registers are {registers}, not {expected}")
    require(event["cpu"] == 1, f"the CPU is {event['cpu']}, not 1")
    now = time.monotonic()
    story.step(
        "last-words",
        f"FATAL event of the boot before: CPU 1 bank 4 status {FATAL:#x} addr {PAGE:#x}\n"
        f"its last incident {incident}, last snapshot {snapshot['id']}",
        now,
        (now - up) * 1000,
        event=event,
        last_words=words,
    )
