# SPDX-License-Identifier: GPL-2.0
"""A rank hangs in the kernel, the ladder, and the hardware watchdog at its end."""

import itertools
import re
import time

from nullhz import bus
from nullhz.errors import NodeError, TimedOut

from .story import require, until
from .training import LOGS

STALL = "/sys/class/misc/nullhz-stall"
# The board has a TCO watchdog as well, which does not reset it.
HARDWARE = "i6300ESB"
# Of the hardware watchdog, s.
TIMEOUT_S = 4
# From STALLED to the rungs above it; minutes on a node.
NO_ACK_MS = 2000
BITE_MS = 4000
CARD_RESET = 0x20  # WDIOF_CARDRESET


def arm(story):
    """Short times, and a hardware watchdog that runs. In each boot."""
    vm = story.vm
    for name, value in (("no_ack_ms", NO_ACK_MS), ("bite_ms", BITE_MS), ("feed_timeout_s", TIMEOUT_S)):
        vm.run(f"echo {value} > {STALL}/tunables/{name}")

    def ready():
        return vm.read(f"{STALL}/watchdog_timeout_ms") == f"{TIMEOUT_S * 1000}"

    until(ready, 15, "no hardware watchdog runs: nothing would reset the node (see wdctl)")
    require(vm.read(f"{STALL}/armed") == "1", f"not armed: {vm.read(f'{STALL}/held')}")


def watchdogs(vm):
    """What the kernel shows of each."""
    text = vm.run("cd /sys/class/watchdog && grep -Hs . */identity */bootstatus", check=False).stdout
    found = {}
    for line in text.splitlines():
        path, value = line.split(":", 1)
        name, attribute = path.split("/")
        found.setdefault(name, {"identity": "", "bootstatus": "0"})[attribute] = value
    return list(found.values())


def introduce(story):
    """What will reset the node if nothing else helps."""
    arm(story)
    shown = [watchdog for watchdog in watchdogs(story.vm) if watchdog["identity"].startswith(HARDWARE)]
    require(shown, f"no {HARDWARE} among the watchdogs: {watchdogs(story.vm)}")
    story.step(
        "armed",
        f"hardware watchdog ({HARDWARE}, {TIMEOUT_S} s) is fed while the stall watchdog permits it",
        time.monotonic(),
        watchdog=shown[0],
        timeout_s=TIMEOUT_S,
        no_ack_ms=NO_ACK_MS,
        bite_ms=BITE_MS,
    )


def hang(story, training):
    """Rank 0 stalls in D state. Returns what the steps after this need."""
    vm, reader, step = story.vm, story.reader, story.step
    training.far_from_a_checkpoint()
    position = reader.position
    vm.run(["fsfreeze", "-f", LOGS])
    frozen = time.monotonic()
    step(
        "hang",
        f"the file system of the log hangs (fsfreeze {LOGS}): rank 0 blocks in its next write",
        frozen,
    )
    suspect = rung(reader, position, bus.EV_SUSPECT, bus.WATCH)
    step(
        "suspect",
        f"SUSPECT: rank {suspect['stall']['rank']} without progress for {age(suspect):.0f} ms, "
        f"of {suspect['stall']['deadline_ns'] / 1e6:.0f}; stacks are logged",
        story.host(suspect["mono_ns"]),
        event=suspect,
    )
    stalled = rung(reader, position, bus.EV_STALLED, bus.IMMINENT)
    stall = stalled["stall"]
    late = age(stalled) - stall["deadline_ns"] / 1e6
    expected = {
        "rank": 0,
        "phase": bus.STEP,
        "culprit": bus.C_DISK,
        "ranks": 2,
        "stalled": 1,
        "comm": "nullhz-trainer",
    }
    wrong = {name: stall[name] for name, value in expected.items() if stall[name] != value}
    require(not wrong, f"the stall is told as {wrong}, not {expected}")
    step(
        "stalled",
        f"STALLED, {late:.1f} ms after the deadline: IMMINENT, incident {stalled['incident']}\n"
        f"rank 0, pid {stall['pid']} ({stall['comm']}), in D state, phase STEP, after step {stall['step']}",
        story.host(stalled["mono_ns"]),
        late,
        event=stalled,
    )
    peer(story, position)
    return position, stalled


def rung(reader, since, kind, level):
    try:
        event = reader.wait(20, since=since, source=bus.SRC_STALL, kind=kind)
    except TimedOut as error:
        raise NodeError(f"the stall watchdog told of no rung {kind}: {error}") from error
    require(event["level"] == level, f"rung {kind} is {bus.LEVELS[event['level']]}")
    return event


def age(event):
    return event["stall"]["age_ns"] / 1e6


def stacks(story, tid):
    """The culprit's stack in the kernel's log, as far as it is worth a look."""

    def found():
        lines = iter(story.vm.dmesg())
        for line in lines:
            if re.search(rf"\bstate:D\b.*\bpid:{tid}\b", line):
                # To the end of this trace; what begins with "?" is no caller for sure.
                trace = itertools.takewhile(lambda line: "</TASK>" not in line, lines)
                frames = [re.search(r"\] +(\w+)\+0x", line) for line in trace]
                return [frame[1] for frame in frames if frame]
        return None

    frames = until(found, 5, f"no stack of thread {tid} in the kernel's log")
    waits = list(itertools.dropwhile(lambda name: "schedule" in name, frames))
    require("vfs_write" in waits, f"the stack does not say that it hangs in a write: {frames}")
    story.step(
        "stack",
        f"its stack: {' < '.join(waits[: waits.index('vfs_write') + 2])}",
        time.monotonic(),
        frames=frames,
    )


def peer(story, position):
    """The other rank waits for this one, and nobody blames it."""
    # A first step on a slow kernel may have taken too long before.
    events = story.reader.events(since=position, source=bus.SRC_STALL, rank=1)
    blamed = [event["kind"] for event in events if event["kind"] in (bus.EV_SUSPECT, bus.EV_STALLED)]
    require(not blamed, f"rank 1, which only waits, was blamed: {blamed}")


def snapshot(story, training, position, stalled):
    """The answer to the stall."""
    acked, taken = story.acknowledged(stalled, position)
    held = training.verify(taken["path"])
    taken["step"] = held["step"]
    report = story.report(stalled["incident"])
    asked = report["checkpoint"]
    require(asked, "the ranks were not asked for a checkpoint")
    # Neither the stalled rank nor the one that waits for it can answer, and the agent knows.
    require(asked["end"] == "stalled", f"the agent waited in vain: {asked}")
    story.step(
        "stall-snapshot",
        f"no rank can write a checkpoint now (known after {asked['wait_ms']:.1f} ms); snapshot "
        f"{taken['id']} with that of\nstep {held['step']} is durable and acknowledged\n{taken['path']}",
        story.host(acked["mono_ns"]),
        acked["bus"]["age_ns"] / 1e6,
        snapshot=taken,
        checkpoint=held,
        report=report,
        event=acked,
    )
    stacks(story, stalled["stall"]["tid"])
    return taken


def bite(story, training, position, stalled):
    """To the reset. Returns when the node is up again."""
    vm, reader, step = story.vm, story.reader, story.step
    seen = vm.monitor.position
    last = training.keep()
    no_ack = rung(reader, position, bus.EV_NO_ACK, bus.DEGRADING)
    # In D state at two looks, and it has not run in between.
    evidence = no_ack["stall"]["evidence"]
    require(evidence & bus.E_DISK, f"no evidence of the D state: {evidence:#x}")
    step("no-ack", "NO_ACK: still no progress", story.host(no_ack["mono_ns"]), age(no_ack), event=no_ack)
    prebite = rung(reader, position, bus.EV_PREBITE, bus.FATAL)
    shut = story.host(prebite["mono_ns"])
    step(
        "prebite",
        "PREBITE: the reason is kept for the next boot, no ping is permitted any more",
        shut,
        age(prebite),
        event=prebite,
    )
    try:
        fired = vm.monitor.wait("WATCHDOG", TIMEOUT_S + 10, since=seen)
    except TimedOut as error:
        raise NodeError("the hardware watchdog did not fire: is it fed by somebody else?") from error
    require(fired.data.get("action") == "reset", f"the watchdog's action is {fired.data}")
    begun = story.host(stalled["mono_ns"]) - age(stalled) / 1e3
    step(
        "watchdog",
        f"the hardware watchdog resets the node, {fired.time - begun:.1f} s after the last heartbeat",
        fired.time,
        (fired.time - shut) * 1000,
        last_step=last,
    )
    vm.wait_boot()
    up = time.monotonic()
    step("stall-reboot", "the node is up again", up, (up - fired.time) * 1000)
    return up


def remember(story, incident, taken, up):
    """What the next boot knows."""
    vm = story.vm
    event = story.reader.wait(15, source=bus.SRC_STALL, kind=bus.EV_PREBITE)
    words = story.last_words(incident, taken)
    stall = event["stall"]
    require(event["flags"] & bus.F_PREVIOUS_BOOT, "the stall is not told as of the boot before")
    require((stall["rank"], stall["culprit"]) == (0, bus.C_DISK), f"another stall: {stall}")

    def hardware():
        return [watchdog for watchdog in watchdogs(vm) if watchdog["identity"].startswith(HARDWARE)]

    [watchdog] = until(hardware, 15, "the hardware watchdog has not come up")
    bits = int(watchdog["bootstatus"])
    require(bits & CARD_RESET, f"the hardware does not say that it reset the node: {watchdog}")
    resets = vm.read(f"{STALL}/resets")
    require(resets == "1", f"{resets} watchdog resets are counted, not 1")
    now = time.monotonic()
    story.step(
        "reset-reason",
        f"reset reason: PREBITE of rank 0 ({stall['comm']}), in D state after step {stall['step']}\n"
        f"its last incident {incident}, last snapshot {taken['id']}; hardware: CARDRESET; "
        "1 of 3 resets a day",
        now,
        (now - up) * 1000,
        event=event,
        last_words=words,
        bootstatus=bits,
    )
