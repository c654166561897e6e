# SPDX-License-Identifier: GPL-2.0
"""What all chapters share: the node, its clock, and the list of what happened."""

import json
import time

from nullhz import bus, guest
from nullhz.errors import NodeError, TimedOut

CURRENT = "/checkpoint/current"
SNAPSHOTS = "/checkpoint/.snapshots"


def require(condition, message):
    """Ends the demo when a step is not what it has to be."""
    if not condition:
        raise NodeError(message)


def until(found, seconds, message):
    """What `found()` returns as soon as it is true; `message` ends the demo if it never is."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        require(time.monotonic() < end, message)
        time.sleep(0.1)
    return answer


def since_record(event):
    """Milliseconds from the kernel's record to the reader's being awake."""
    return (event["awake_ns"] - event["mono_ns"]) / 1e6


def wrap(line, width=96):
    """A long line in lines of at most `width`."""
    lines = [""]
    for word in line.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


class Timeline:
    """Prints steps as they happen, and keeps them."""

    def __init__(self):
        self.start = None
        self.steps = []

    def chapter(self, title):
        print(f"\n{'':27}--- {title} ---", flush=True)

    def step(self, name, text, when, latency_ms=None, **details):
        """`when`: the host's monotonic time; `text` may have more lines."""
        t_ms = (when - self.start) * 1000
        first, *more = text.split("\n")
        latency = "" if latency_ms is None else f"{latency_ms:9.1f} ms"
        print(f"{t_ms / 1000:9.3f} s  {latency:>12}  {first}", flush=True)
        for line in more:
            print(f"{'':27}{line}", flush=True)
        step = {"name": name, "t_ms": round(t_ms, 3), "text": first}
        step["latency_ms"] = None if latency_ms is None else round(latency_ms, 3)
        self.steps.append({**step, "details": details})


class Story:
    """A node through all its boots."""

    def __init__(self, vm):
        self.vm = vm
        self.timeline = Timeline()
        self.step = self.timeline.step
        self.chapter = self.timeline.chapter
        self.reader = None
        self.release = None
        self._offset = 0

    def host(self, mono_ns):
        """The host's time of a time in the node's present boot."""
        return mono_ns / 1e9 + self._offset

    def booted(self, *, newest):
        """To be called in each boot: its clock, and a reader of its fault bus from now on or
        from the oldest record."""
        self._offset = guest.clock_offset(self.vm)
        self.reader = guest.Reader(self.vm, newest=newest, fifo=60)

    def agent_status(self):
        return json.loads(self.vm.run(["nullhz-agent", "status", "--json"]).stdout)["agent"]

    def await_agent(self):
        """The agent's status as soon as it runs."""

        def running():
            agent = self.agent_status()
            return agent if agent and agent["running"] else None

        return until(running, 20, "the snapshot agent does not run")

    def acknowledged(self, event, since):
        """The acknowledgement of the incident that `event` opened, and its snapshot."""
        incident = event["incident"]
        try:
            acked = self.reader.wait(
                30, since=since, where=lambda one: one["bus"]["incident"] == incident, **ACKED
            )
        except TimedOut as error:
            raise NodeError(f"nobody acknowledged incident {incident}: does the agent run?") from error
        answer = acked["bus"]
        require(answer["result"] == 0, f"the snapshot failed: errno {-answer['result']}")
        snapshot = self.find_snapshot(answer["snapshot_id"])
        state = guest.incident(self.vm, incident)
        require(state["state"] == bus.INCIDENT_ACKED, f"the incident's state is {state['state']}")
        require(state["snapshot_id"] == snapshot["id"], "the incident holds another snapshot")
        return acked, snapshot

    def report(self, incident):
        """What the agent says of how it dealt with an incident; it writes that down last."""

        def written():
            report = self.agent_status()["last_incident"]
            return report if report and report["incident"] == incident else None

        return until(written, 10, f"the agent says nothing of incident {incident}")

    def find_snapshot(self, ident):
        """The snapshot directory's subvolume with this id, which must be read-only."""
        for name in self.vm.run(["ls", SNAPSHOTS]).stdout.split():
            path = f"{SNAPSHOTS}/{name}"
            shown = self.vm.run(["btrfs", "inspect-internal", "rootid", path]).stdout.strip()
            if int(shown) == ident:
                flag = self.vm.run(["btrfs", "property", "get", "-ts", path, "ro"]).stdout.strip()
                require(flag == "ro=true", f"the snapshot is writable: {flag}")
                return {"id": ident, "path": path}
        raise NodeError(f"no subvolume {ident} in {SNAPSHOTS}")

    def last_words(self, incident, snapshot):
        """The record of the boot before's last incident and snapshot."""
        words = self.reader.wait(15, source=bus.SRC_BUS, kind=bus.BUS_LAST_WORDS)
        last = words["bus"]
        require(last["incident"] == incident, f"last incident {last['incident']}, not {incident}")
        require(last["snapshot_id"] == snapshot["id"], f"last snapshot {last['snapshot_id']}")
        return words


ACKED = {"source": bus.SRC_BUS, "kind": bus.BUS_ACKED}
