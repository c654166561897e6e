# SPDX-License-Identifier: GPL-2.0
"""The snapshot agent when it dies at the wrong moment, and its rotation."""

import subprocess
import time

import pytest
from nullhz import bus, guest
from nullhz.qemu import build_dir
from records import action_optional, agent_status, imminent, page, snapshots

NODE = {"append": "nullhz.agent=off"}
AGENT = f"{guest.HOME}/nullhz-agent"
KEPT = 3
COOLDOWN = "/sys/class/misc/nullhz-fault/incident_cooldown_ms"


@pytest.fixture(scope="module")
def crashing_agent():
    """The agent with points at which a test may have it killed."""
    manifest = guest.TOP / "samples/snapshot-agent/Cargo.toml"
    target = build_dir() / "cargo" / "crash-points"
    command = ["cargo", "build", "--quiet", "--locked", "--release", "--features", "crash-points"]
    command += ["--manifest-path", manifest, "--target-dir", target]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(path for path in target.glob("**/release/nullhz-agent") if path.is_file())


@pytest.fixture
def vm(shared_node, crashing_agent):
    shared_node.put(crashing_agent, AGENT, 0o755)
    shared_node.run(f"echo 0 > {COOLDOWN}")
    return shared_node


def start(vm, **env):
    """Runs the agent; returns when it has opened the bus."""
    running = vm.spawn([AGENT, "run"], env=env, timeout=300)
    end = time.monotonic() + 20
    while not ((status := agent_status(vm)) and status["running"]):
        assert time.monotonic() < end, "the agent does not start"
        time.sleep(0.1)
    return running


def stop(running):
    running.kill(15)
    result = running.wait(20)
    assert result.rc == 0, result


def valid(vm):
    """The snapshots; asserts that each is whole: read-only, with the state file."""
    found = snapshots(vm)
    for path in found.values():
        assert vm.run(["btrfs", "property", "get", "-ts", path, "ro"]).stdout.strip() == "ro=true"
        assert vm.read(f"{path}/state") == "state"
    return found


@pytest.fixture(autouse=True)
def state(vm):
    vm.run("echo state > /checkpoint/current/state && sync -f /checkpoint")


# The snapshot that the dead agent made is taken by the next one, which makes none.
@pytest.mark.parametrize(
    ("point", "left_behind"),
    [("before-snapshot", 0), ("after-snapshot", 1), ("before-ack", 1)],
)
def test_killed_before_the_acknowledgement(vm, point, left_behind):
    before = set(valid(vm))
    reader = guest.Reader(vm)
    running = start(vm, NULLHZ_AGENT_CRASH_AT=point)
    action_optional(vm, page(10))
    opened = imminent(reader, page(10))
    assert opened["flags"] & bus.F_OPENED
    assert running.wait(30).rc == -9
    assert len(set(valid(vm)) - before) == left_behind
    state = guest.incident(vm, opened["incident"])
    assert state["state"] in (bus.INCIDENT_OPEN, bus.INCIDENT_EXPIRED)
    made = set(valid(vm)) - before

    running = start(vm)
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert (acked["incident"], acked["result"]) == (opened["incident"], 0)
    state = guest.incident(vm, opened["incident"])
    assert state["state"] == bus.INCIDENT_ACKED
    assert state["snapshot_id"] == acked["snapshot_id"]
    after = valid(vm)
    assert acked["snapshot_id"] in after
    assert len(set(after) - before) == 1
    assert made <= set(after)
    stop(running)
    reader.close()


def test_killed_after_the_acknowledgement(vm):
    before = set(valid(vm))
    reader = guest.Reader(vm)
    running = start(vm, NULLHZ_AGENT_CRASH_AT="after-ack")
    action_optional(vm, page(11))
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert running.wait(30).rc == -9
    running = start(vm)
    # A second incident is answered as well, the first not once more.
    action_optional(vm, page(12))
    imminent(reader, page(12))
    second = reader.wait(30, count=2, source=bus.SRC_BUS, kind=bus.BUS_ACKED)[1]["bus"]
    assert second["incident"] == acked["incident"] + 1
    assert len(set(valid(vm)) - before) == 2
    stop(running)
    reader.close()


def test_the_state_is_for_the_readers_of_the_bus(vm):
    running = start(vm)
    readers = vm.run("stat -c '%U %G %a' /dev/nullhz-fault /run/nullhz/agent.json").stdout
    assert readers == "root nullhz 640\n" * 2
    status = [f"/tmp/{AGENT.rpartition('/')[2]}", "status"]
    vm.run(["cp", AGENT, status[0]])
    refused = vm.run(status, user="nobody", cwd="/tmp", check=False)
    assert refused.rc == 4 and "member of group nullhz" in refused.stderr, refused
    assert "agent:     /run/nullhz/agent.json: Permission denied" in refused.stdout, refused
    member = vm.run(status, user="nobody", groups=["nullhz"], cwd="/tmp")
    assert "agent:     running" in member.stdout, member
    stop(running)


def test_hooks_are_not_protected_from_the_oom_killer(vm):
    """The agent is, by its unit; what a hook eats must not cost other programs their lives."""
    report = f"{guest.HOME}/oom_score_adj"
    vm.run(f"mkdir -p {guest.HOME}/hooks.d && rm -f {report}")
    hook = f"#!/bin/sh\ncat /proc/self/oom_score_adj > {report}.new && mv {report}.new {report}\n"
    vm.put(hook, f"{guest.HOME}/hooks.d/report", 0o755)
    reader = guest.Reader(vm)
    running = start(vm, NULLHZ_HOOKS=f"{guest.HOME}/hooks.d")
    own = f"/proc/{agent_status(vm)['pid']}/oom_score_adj"
    vm.run(f"echo -1000 > {own}")
    action_optional(vm, page(13))
    reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)
    settle(vm, lambda: vm.run(["test", "-e", report], check=False).rc == 0)
    assert (vm.read(report), vm.read(own)) == ("0", "-1000")
    stop(running)
    reader.close()


def test_three_snapshots_are_kept(vm):
    """The new one is there before the oldest goes; killed in between, it still goes later."""
    reader = guest.Reader(vm)
    running = start(vm)
    answered = []
    for number in range(5):
        seen = reader.position
        action_optional(vm, page(20 + number))
        acked = reader.wait(30, since=seen, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
        answered.append(acked["snapshot_id"])
    settle(vm, lambda: sorted(valid(vm)) == sorted(answered[-KEPT:]))
    stop(running)

    seen = reader.position
    running = start(vm, NULLHZ_AGENT_CRASH_AT="before-delete")
    action_optional(vm, page(30))
    acked = reader.wait(30, since=seen, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert running.wait(30).rc == -9
    answered.append(acked["snapshot_id"])
    assert sorted(valid(vm)) == sorted(answered[-KEPT - 1 :])
    running = start(vm)
    settle(vm, lambda: sorted(valid(vm)) == sorted(answered[-KEPT:]))
    stop(running)
    reader.close()


def settle(vm, done, seconds=20):
    """Waits until `done` holds: what the agent does after the acknowledgement."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, snapshots(vm)
        time.sleep(0.3)


def test_killed_at_any_moment(vm):
    """SIGKILL at moments spread over the whole answer to an incident."""
    reader = guest.Reader(vm)
    for number, delay in enumerate((0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.2)):
        seen = reader.position
        running = start(vm)
        action_optional(vm, page(40 + number))
        time.sleep(delay)
        running.kill(9)
        running.wait(20)
        opened = imminent(reader, page(40 + number))
        running = start(vm)
        acked = reader.wait(
            30, since=seen, source=bus.SRC_BUS, kind=bus.BUS_ACKED, incident=opened["incident"]
        )["bus"]
        assert acked["result"] == 0
        found = valid(vm)
        assert acked["snapshot_id"] in found
        stop(running)
        assert len(found) <= KEPT + 1
    reader.close()
