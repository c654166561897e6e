# SPDX-License-Identifier: GPL-2.0
"""The ladder over a hardware watchdog that must not fire: who steps back, and who is held."""

import time

import pytest
from nullhz import bus, guest
from records import agent_status, snapshots
from stalls import (
    LATE_NS,
    SYSFS,
    Rank,
    arm,
    ask,
    counter,
    expect,
    expect_recovery,
    expect_stall,
    listen,
    state,
    told,
    tune,
    wedge,
)

pytestmark = pytest.mark.timed
NODE = {"watchdog": "i6300esb"}
DEADLINE_MS = 400
BITE_MS = 1500
TIMEOUT_S = 3


@pytest.fixture
def vm(shared_node):
    vm = shared_node
    vm.run("echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")
    tune(vm, no_ack_ms=300, bite_ms=BITE_MS, signal="none")
    arm(vm, TIMEOUT_S)
    return vm


@pytest.fixture(autouse=True)
def no_reset(vm):
    seen = vm.monitor.position
    boot = vm.read("/proc/sys/kernel/random/boot_id")
    yield
    assert not {event.name for event in vm.monitor.events(seen)} & {"WATCHDOG", "RESET", "SHUTDOWN"}
    assert vm.read("/proc/sys/kernel/random/boot_id") == boot


@pytest.fixture
def reader(vm):
    reader = listen(vm)
    yield reader
    reader.close()


@pytest.fixture
def rank(vm, reader):
    rank = Rank(vm, cpu=2, step=DEADLINE_MS, comm=DEADLINE_MS)
    yield rank
    rank.kill()


def test_waiting_for_a_peer_never_resets(vm, reader, rank):
    rank.do(f"phase {bus.COMM_WAIT}")
    rank.do("quiet")
    stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SLEEPING, phase=bus.COMM_WAIT)
    assert not stalled["stall"]["evidence"] & bus.E_PHASE
    held = expect(reader, 0, rank, bus.EV_HELD, held=bus.H_NO_EVIDENCE, state=bus.NO_ACK)
    assert held["level"] == bus.DEGRADING
    # Long enough for the hardware, had the permit been shut.
    time.sleep(TIMEOUT_S + 0.5)
    assert told(reader, rank=0) == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK", "HELD"]
    rank.do("beat 20")
    expect_recovery(reader, 0, rank, bus.NO_ACK)


def test_a_rank_that_does_not_promise_to_tell_its_waits(vm, reader):
    """Its framework may hide some in a step: then its phase proves nothing against this node,
    though it has marked a barrier."""
    rank = Rank(vm, 3, cpu=3, step=DEADLINE_MS, waits=0)
    for phase in (bus.COMM_WAIT, bus.STEP):
        rank.do(f"phase {phase}")
        vm.run("sleep 0.1")
    assert state(vm, 3)["phase"] == bus.STEP
    rank.do("quiet")
    expect(reader, 0, rank, bus.EV_HELD, held=bus.H_NO_EVIDENCE, phase=bus.STEP)
    rank.do("beat 20")
    expect_recovery(reader, 0, rank, bus.NO_ACK)
    # Stuck in a driver it is another matter.
    position = reader.position
    vm.run("modprobe nullhz_stall_gen")
    rank.tell(f"kernel context=sleep ms={DEADLINE_MS + BITE_MS + 500}")
    bite = expect(reader, position, rank, bus.EV_PREBITE, culprit=bus.C_DISK, timeout=20)
    assert bite["stall"]["evidence"] & bus.E_DISK
    expect_recovery(reader, position, rank, bus.PREBITE)
    rank.leave()


def test_recovery_just_before_the_bite(vm, reader, rank):
    rank.do(f"spin {DEADLINE_MS + BITE_MS - 100}")
    expect_recovery(reader, 0, rank, bus.NO_ACK)
    time.sleep(TIMEOUT_S + 0.5)
    assert told(reader, rank=0) == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK", "RECOVERED"]


def test_recovery_after_the_bite_before_the_hardware(vm, reader, rank):
    """The gate opens again, and the hardware is fed as before."""
    rank.do(f"spin {DEADLINE_MS + BITE_MS + 1000}")
    expect(reader, 0, rank, bus.EV_PREBITE)
    expect_recovery(reader, 0, rank, bus.PREBITE)
    time.sleep(TIMEOUT_S + 0.5)
    assert told(reader, rank=0)[-2:] == ["PREBITE", "RECOVERED"]
    assert ask(vm, "info")["armed"] == 1


def test_the_agent_is_killed(vm, reader, rank):
    """SIGKILL just when a rank stalls: the next agent takes the snapshot, nobody is reset."""
    tune(vm, bite_ms=3_600_000)
    before = set(snapshots(vm))
    vm.run(f"kill -9 {agent_status(vm)['pid']}; kill -STOP {rank.pid}")
    stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_STOPPED)
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert (acked["incident"], acked["result"]) == (stalled["incident"], 0)
    assert acked["snapshot_id"] in set(snapshots(vm)) - before
    rank.signal("CONT")
    expect(reader, 0, rank, bus.EV_RECOVERED)


@pytest.mark.parametrize(("policy", "then"), [("cont", bus.EV_RECOVERED), ("kill", bus.EV_CRASHED)])
def test_signals_by_policy(vm, reader, rank, policy, then):
    tune(vm, signal=policy)
    rank.signal("STOP")
    expect(reader, 0, rank, bus.EV_NO_ACK, culprit=bus.C_STOPPED)
    expect(reader, 0, rank, then)
    assert "PREBITE" not in told(reader)


def test_a_stuck_peer_ends_no_rank(vm, reader, rank):
    """No signal to who waits in COMM_WAIT, nor to who may be waiting in a step."""
    tune(vm, signal="kill")
    waiting = Rank(vm, 1, cpu=3, step=DEADLINE_MS, waits=0)
    before = counter(vm, "signals")
    rank.do(f"phase {bus.COMM_WAIT}")
    for quiet in (rank, waiting):
        quiet.do("quiet")
    for quiet in (rank, waiting):
        expect(reader, 0, quiet, bus.EV_HELD, held=bus.H_NO_EVIDENCE)
        quiet.do("beat 20")
        expect_recovery(reader, 0, quiet, bus.NO_ACK)
    assert counter(vm, "signals") == before
    # Its own fault, by its promise.
    rank.do(f"phase {bus.STEP}")
    rank.do("quiet")
    expect(reader, 0, rank, bus.EV_CRASHED)
    assert counter(vm, "signals") == before + 1
    waiting.leave()


def test_who_has_recovered_is_not_signalled_late(vm, reader, rank):
    """Who sends the signals is held up until the rank goes on; who looks at the ranks is not."""
    # Who feeds the hardware is held up, too.
    arm(vm, 15)
    tune(vm, signal="kill")
    before = counter(vm, "signals")
    # Computing: the timers of an idle training CPU are on a housekeeping CPU.
    rank.do("beat 0")
    spin = f"python3 -S {guest.put_script(vm, 'spin.py')}"
    # As urgent as the thread that sends, on all CPUs that it may use, and for longer than one
    # takes to start after the other.
    script = (
        f"{spin} 0 6 79 & one=$!; {spin} 1 6 79 & two=$!; "
        "until chrt -p $one | grep -q FIFO && chrt -p $two | grep -q FIFO; do :; done; "
        f"echo spin {DEADLINE_MS + 800} > {rank.control}; wait"
    )
    held_up = vm.spawn(["taskset", "-c", "3", "sh", "-c", script])
    expect(reader, 0, rank, bus.EV_RECOVERED, state=bus.NO_ACK)
    assert held_up.wait().rc == 0
    vm.run("sleep 0.5")
    # What comes after that is the host's doing.
    events = told(reader, rank=0)
    assert events[:5] == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK", "RECOVERED"]
    assert "CRASHED" not in events
    assert counter(vm, "signals") == before


@pytest.mark.parametrize(
    ("reset", "kind", "rung"), [(1, bus.EV_PREBITE, bus.PREBITE), (0, bus.EV_HELD, bus.NO_ACK)]
)
def test_who_feeds_the_face_and_falls_silent(vm, reader, reset, kind, rung):
    """A program at the module's own /dev/watchdogN: the evidence that counts has no say in it."""
    tune(vm, reset=reset, evidence=bus.E_DISK)
    name = vm.run("cd /sys/class/watchdog && grep -l ^nullhz */identity").stdout.partition("/")[0]
    running = vm.spawn(["python3", "-S", guest.put_script(vm, "feeder.py"), f"/dev/{name}", "1"])
    assert running.read_line() == "pinged"
    late = reader.wait(10, source=bus.SRC_STALL, kind=kind, rank=bus.FEEDER)["stall"]
    assert (late["name"], late["deadline_ns"]) == ("watchdog feeder", 1_000_000_000)
    assert late["deadline_ns"] <= late["age_ns"] < late["deadline_ns"] + LATE_NS
    assert late["evidence"] & bus.E_AGENT
    assert late["held"] == (bus.H_NOT if reset else bus.H_DISARMED)
    # In time for the hardware.
    running.kill(10)
    recovered = reader.wait(10, source=bus.SRC_STALL, kind=bus.EV_RECOVERED, rank=bus.FEEDER)
    assert recovered["stall"]["state"] == rung
    running.kill(15)
    assert running.wait().rc == 0
    tune(vm, evidence=bus.E_PHASE | bus.E_DISK | bus.E_HOUSEKEEPING | bus.E_AGENT)
    time.sleep(TIMEOUT_S + 0.5)
    assert told(reader, rank=bus.FEEDER) == [{1: "PREBITE", 0: "HELD"}[reset], "RECOVERED"]


def test_disarmed_by_the_operator(vm, reader, rank):
    tune(vm, reset=0)
    rank.do("quiet")
    expect(reader, 0, rank, bus.EV_HELD, held=bus.H_DISARMED)
    assert vm.read(f"{SYSFS}/armed") == "0"
    rank.do("beat 20")
    expect_recovery(reader, 0, rank, bus.NO_ACK)


def test_a_gap_of_the_sampler_is_no_stall(vm, reader, rank):
    """Both housekeeping CPUs are gone for longer than the permit and the rank's deadline."""
    late = counter(vm, "late")
    for running in wedge(vm, (0, 1), 1300):
        assert running.wait().rc == 0
    event = reader.wait(20, source=bus.SRC_STALL, kind=bus.EV_LATE_SAMPLER)
    assert event["level"] == bus.DEGRADING
    assert 1_000_000_000 < event["stall"]["age_ns"] < 4_000_000_000
    assert counter(vm, "late") > late
    # It is as watchful as before. No test of how fast the agent is.
    tune(vm, no_ack_ms=30_000)
    rank.do("quiet")
    expect_stall(reader, 0, rank, DEADLINE_MS)
    rank.do("beat 20")
    expect_recovery(reader, 0, rank, bus.STALLED)
    assert told(reader, rank=0) == ["REGISTERED", "SUSPECT", "STALLED", "RECOVERED"]
    time.sleep(TIMEOUT_S)


def test_the_wall_clock_jumps(vm, reader, rank):
    for jump in ("+2 days", "-4 days", "+2 days"):
        vm.run(["date", "-s", jump])
        vm.run("sleep 0.5")
    assert told(reader, rank=0) == ["REGISTERED"]
    assert ask(vm, "info")["armed"] == 1


def test_checkpoint_requests(vm, reader, rank):
    """All living ranks are asked; a mute one and one that leaves are told apart."""
    mute, leaving = Rank(vm, 1), Rank(vm, 2)
    for other in (mute, leaving):
        other.do("answer 0")
    request = ask(vm, "checkpoint")
    number = request["request"]
    assert number and request["asked"] == 3
    vm.run("sleep 0.2")
    leaving.leave()
    expect(reader, 0, leaving, bus.EV_LEFT)
    answers = ask(vm, "answers", number)
    assert answers == {"request": number, "asked": 3, "answered": 1, "gone": 1}
    assert state(vm, 0)["checkpoint_ack"] == number
    mute.do("answer 1")
    vm.run("sleep 0.2")
    assert ask(vm, "answers", number)["answered"] == 2
    mute.leave()
