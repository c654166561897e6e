# SPDX-License-Identifier: GPL-2.0
"""The demo's story, as demo.json tells it, in a picture."""

from nullhz.svg import Bar, Drawing, Lane, Mark, Panel

RESUMED = ("resumed", "resumed-again")


class Steps:
    """The steps by name; times in milliseconds since power-on."""

    def __init__(self, steps):
        self._steps = {step["name"]: step for step in steps}

    def __getitem__(self, name):
        return self._steps[name]

    def at(self, name):
        return self._steps[name]["t_ms"]

    def mark(self, name, kind, text):
        return Mark(self.at(name), kind, text)

    def bar(self, first, last, kind, text=""):
        return Bar(self.at(first), self.at(last), kind, text)

    def last_heartbeat(self):
        """Of the rank that hangs."""
        return self.at("stalled") - self["stalled"]["details"]["event"]["stall"]["age_ns"] / 1e6


def whole(steps):
    held = steps["snapshot"]["details"]["snapshot"]
    again = steps["stall-snapshot"]["details"]["snapshot"]
    losses = steps["same-loss"]["details"]
    restored = [f"restored: on from step {steps[name]['details']['from_step']}" for name in RESUMED]
    node = Lane(
        "node",
        [
            steps.bar("power-on", "boot", "idle", "boots"),
            steps.bar("boot", "panic", "good", "up"),
            steps.bar("panic", "reset", "bad"),
            steps.bar("reset", "reboot", "idle", "boots"),
            steps.bar("reboot", "watchdog", "good", "up"),
            steps.bar("watchdog", "stall-reboot", "idle", "boots"),
            steps.bar("stall-reboot", "same-loss", "good", "up"),
        ],
        [
            steps.mark("panic", "bad", "panic: the node resets itself"),
            steps.mark("watchdog", "bad", "the hardware watchdog resets the node"),
        ],
    )
    training = Lane(
        "training",
        [
            steps.bar("training", "panic", "good", f"to step {steps['goes-on']['details']['training_step']}"),
            steps.bar("resumed", "hang", "good"),
            steps.bar("hang", "watchdog", "warn", "a rank hangs in the kernel"),
            steps.bar("reset-reason", "resumed-again", "good", f"to step {losses['last_step']}"),
            steps.bar("resumed-again", "same-loss", "idle", "undisturbed"),
        ],
        [steps.mark("same-loss", "good", f"all {losses['compared']} losses equal")],
    )
    events = Lane(
        "events",
        marks=[
            steps.mark("corrected-1", "watch", "WATCH: a corrected memory error"),
            steps.mark("corrected-2", "warn", "DEGRADING: another one"),
            steps.mark("imminent", "bad", "IMMINENT: an uncorrected one"),
            steps.mark("panic", "bad", "FATAL: context corrupt"),
            steps.mark("last-words", "store", "its registers, in the next boot"),
            steps.mark("stalled", "bad", "IMMINENT: a rank has stalled"),
            steps.mark("reset-reason", "store", "reset reason, in the next boot"),
        ],
    )
    snapshots = Lane(
        "snapshots",
        marks=[
            steps.mark("snapshot", "store", f"of step {held['step']}"),
            steps.mark("resumed", "good", restored[0]),
            steps.mark("stall-snapshot", "store", f"of step {again['step']}"),
            # The step of that name is told when the training has ended.
            steps.mark("reset-reason", "good", restored[1]),
        ],
        links=[
            (steps.at("snapshot"), steps.at("resumed")),
            (steps.at("stall-snapshot"), steps.at("reset-reason")),
        ],
    )
    end = steps.at("same-loss")
    title = f"A training job survives a fatal machine check and a hang: {end / 1000:.0f} s, emulated"
    return Panel(title, 0, end, "s", 1e-3, [node, training, events, snapshots])


def machine_check(steps):
    raised, told = steps.at("machine-check"), steps.at("imminent")
    written, durable = steps.at("checkpoint"), steps.at("snapshot")

    def bar(start, end, kind, text):
        return Bar(start, end, kind, f"{text}, {end - start:.0f} ms")

    lanes = [
        Lane("kernel", [bar(raised, told, "bad", "#MC to the reader of /dev/nullhz-fault")]),
        Lane("ranks", [bar(told, written, "good", "asked for a checkpoint, written")]),
        Lane("agent", [bar(written, durable, "store", "BTRFS snapshot on disk, acknowledged")]),
    ]
    title = f"The machine check that it survives: {durable - raised:.0f} ms to a snapshot on disk"
    return Panel(title, raised, durable, "ms", 1, lanes)


def hang(steps):
    begun, end = steps.last_heartbeat(), steps.at("watchdog")
    deadline = steps["stalled"]["details"]["event"]["stall"]["deadline_ns"] / 1e6
    late, durable = steps["stalled"]["latency_ms"], steps["stall-snapshot"]["latency_ms"]
    lanes = [
        Lane(
            "rank",
            [
                Bar(begun, begun + deadline, "watch", "until its deadline"),
                steps.bar("stalled", "prebite", "warn", "incident: is there progress, or an operator?"),
                steps.bar("prebite", "watchdog", "bad", "no ping any more"),
            ],
        ),
        Lane(
            "ladder",
            marks=[
                Mark(begun, "good", "last heartbeat"),
                steps.mark("suspect", "watch", "SUSPECT: its stack is logged"),
                steps.mark("stalled", "bad", f"STALLED, {late:.0f} ms after the deadline"),
                steps.mark("stall-snapshot", "store", f"snapshot on disk, {durable:.0f} ms later"),
                steps.mark("no-ack", "warn", "NO_ACK"),
                steps.mark("prebite", "bad", "PREBITE: the reason is kept"),
                steps.mark("watchdog", "bad", "the hardware resets"),
            ],
        ),
    ]
    title = f"The rank that hangs: {(end - begun) / 1000:.1f} s from its last heartbeat to the reset"
    return Panel(title, begun, end, "s", 1e-3, lanes)


def picture(story):
    """SVG of a demo.json whose steps all happened."""
    steps = Steps(story["steps"])
    drawing = Drawing(
        "Timeline of the nullhz demo",
        "; ".join(f"{step['t_ms'] / 1000:.3f} s: {step['text']}" for step in story["steps"]),
    )
    for panel in (whole, machine_check, hang):
        drawing.add(panel(steps))
    return drawing.svg()
