# SPDX-License-Identifier: GPL-2.0
"""Every kind of real stall is found at its deadline and called by its name."""

import pytest
from nullhz import bus, guest
from stalls import Rank, counter, expect, expect_recovery, expect_stall, generator, listen, state, told, tune

pytestmark = pytest.mark.timed
NODE = {"append": "nullhz.agent=off", "watchdog": None}
DEADLINE_MS = 400
TRAINING = 2
FROZEN = "/root/frozen"
CGROUP = "/sys/fs/cgroup/frozen"


@pytest.fixture
def vm(shared_node):
    # Each stall an incident of its own; nobody answers them.
    shared_node.run("echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")
    tune(shared_node, no_ack_ms=3_600_000, bite_ms=3_600_000, stacks_per_minute=1000)
    return shared_node


@pytest.fixture
def reader(vm):
    reader = listen(vm)
    yield reader
    reader.close()


@pytest.fixture
def rank(vm, reader):
    """A rank on a training CPU, as all of them are."""
    rank = Rank(vm, cpu=TRAINING, step=DEADLINE_MS)
    expect(reader, 0, rank, bus.EV_REGISTERED, pid=rank.pid, tid=rank.pid, name="test", comm="rank")
    yield rank
    rank.kill()


def stacks(vm, rank):
    """What the kernel's log says of a process: the lines from its own on."""
    lines = vm.run(f"dmesg | grep -A 40 'pid:{rank.pid} '", check=False).stdout.splitlines()
    assert lines, "no stack in the log"
    return lines


def test_sigstop(vm, reader, rank):
    rank.signal("STOP")
    stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_STOPPED, tid=rank.pid, comm="rank")
    assert stalled["stall"]["evidence"] & bus.E_PHASE
    assert stalled["flags"] & bus.F_OPENED
    assert state(vm, 0)["stalls"] == 1
    assert any("state:T" in line for line in stacks(vm, rank))
    rank.signal("CONT")
    expect_recovery(reader, 0, rank, bus.STALLED)
    rank.leave()
    expect(reader, 0, rank, bus.EV_LEFT)
    assert told(reader, rank=0) == ["REGISTERED", "SUSPECT", "STALLED", "RECOVERED", "LEFT"]


@pytest.fixture(scope="module")
def frozen(shared_node):
    """A BTRFS volume on a loop device, at FROZEN."""
    # Not `mount -o loop`: it has the device open for writing, which this kernel does not let in.
    shared_node.run(
        f"set -e; truncate -s 128M /tmp/frozen.img; mkfs.btrfs -q /tmp/frozen.img; mkdir -p {FROZEN}; "
        f"mount $(losetup --show -f /tmp/frozen.img) {FROZEN}"
    )
    yield FROZEN
    shared_node.run(f"umount {FROZEN}")


def test_d_state(vm, reader, rank, frozen):
    """A file system that does not come back: the writer is in the kernel, uninterruptible."""
    tune(vm, no_ack_ms=1500)
    vm.run(f"fsfreeze -f {frozen}")
    try:
        rank.tell(f"write {frozen}/checkpoint")
        stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_DISK, tid=rank.pid, comm="rank")
        # One look, or two at a short interval, are those of a thread that just writes.
        assert not stalled["stall"]["evidence"] & bus.E_DISK
        no_ack = expect(reader, 0, rank, bus.EV_NO_ACK, culprit=bus.C_DISK, tid=rank.pid)
        assert no_ack["stall"]["evidence"] & bus.E_DISK
        shown = stacks(vm, rank)
        assert "state:D" in shown[0]
        assert any("btrfs" in line or "freeze" in line or "open" in line for line in shown[1:]), shown
    finally:
        vm.run(f"fsfreeze -u {frozen}")
    assert rank.done()["did"] == "write"
    expect_recovery(reader, 0, rank, bus.NO_ACK)


def test_d_state_of_a_thread_that_goes_on(vm, reader, rank):
    """In D state at each look, and it has run in between, as one that writes a checkpoint."""
    tune(vm, no_ack_ms=1500)
    vm.run("modprobe nullhz_stall_gen")
    rank.tell(f"kernel context=doze ms={DEADLINE_MS + 2500}")
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_DISK, tid=rank.pid)
    no_ack = expect(reader, 0, rank, bus.EV_NO_ACK, culprit=bus.C_DISK, tid=rank.pid)
    assert not no_ack["stall"]["evidence"] & bus.E_DISK
    expect_recovery(reader, 0, rank, bus.NO_ACK)


def test_d_state_at_the_end(vm, reader, rank, frozen):
    """The kernel does not get through with a dying process: that is no crash yet, but a stall."""
    tune(vm, no_ack_ms=1500)
    rank.do(f"hold {frozen}/removed")
    vm.run(f"fsfreeze -f {frozen}")
    try:
        # To close the file is to free it.
        rank.signal("KILL")
        expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_DISK, tid=rank.pid, comm="rank")
        no_ack = expect(reader, 0, rank, bus.EV_NO_ACK, culprit=bus.C_DISK)
        # What it was about to do is no evidence any more.
        assert no_ack["stall"]["evidence"] == bus.E_DISK
        assert told(reader, rank=0) == ["REGISTERED", "SUSPECT", "STALLED", "NO_ACK"]
    finally:
        vm.run(f"fsfreeze -u {frozen}")
    expect(reader, 0, rank, bus.EV_CRASHED, pid=rank.pid)
    assert rank.command.wait().rc == -9


def test_frozen_cgroup(vm, reader):
    vm.run(f"mkdir -p {CGROUP}")
    rank = Rank(vm, 1, cgroup=CGROUP, step=DEADLINE_MS)
    vm.run(f"echo 1 > {CGROUP}/cgroup.freeze")
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_FROZEN, tid=rank.pid)
    vm.run(f"echo 0 > {CGROUP}/cgroup.freeze")
    expect_recovery(reader, 0, rank, bus.STALLED)
    rank.leave()
    vm.run(f"rmdir {CGROUP}")


def test_starved_by_a_fifo_spinner(vm, reader, rank):
    """The rank wants to run and is not let: on no CPU, but runnable."""
    spinner = vm.spawn(["python3", "-S", guest.put_script(vm, "spin.py"), str(TRAINING), "1.5"])
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SPINNING, tid=rank.pid)
    # The kernel's own reserve for others (50 ms of a second) may come before the spinner's end.
    expect_recovery(reader, 0, rank, bus.STALLED)
    assert spinner.wait().rc == 0


def test_spinning_in_user_space(vm, reader):
    """The trainer itself, real-time and busy, as with a collective that polls."""
    rank = Rank(vm, 2, cpu=3, fifo=50, step=DEADLINE_MS)
    rank.tell("spin 1500")
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SPINNING, tid=rank.pid)
    expect_recovery(reader, 0, rank, bus.STALLED)
    rank.kill()


@pytest.mark.parametrize("context", ["preempt", "irq"])
def test_kernel_code_spins_on_its_cpu(vm, reader, rank, context):
    """A driver that keeps the training CPU, with preemption or interrupts off."""
    # Computing all the time: asleep, it would be found asleep, as its timer does not come.
    rank.do("beat 0")
    spinner = generator(vm, f"context={context} ms=1500", cpu=TRAINING)
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SPINNING, tid=rank.pid)
    expect_recovery(reader, 0, rank, bus.STALLED)
    assert spinner.wait().rc == 0


@pytest.mark.parametrize(("context", "culprit"), [("irq", bus.C_SPINNING), ("sleep", bus.C_DISK)])
def test_stuck_in_a_driver(vm, reader, rank, context, culprit):
    """The rank's own system call does not come back."""
    tune(vm, no_ack_ms=1500)
    vm.run("modprobe nullhz_stall_gen")
    rank.tell(f"kernel context={context} ms={DEADLINE_MS + 2500}")
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=culprit, tid=rank.pid)
    no_ack = expect(reader, 0, rank, bus.EV_NO_ACK, culprit=culprit)
    assert bool(no_ack["stall"]["evidence"] & bus.E_DISK) == (culprit == bus.C_DISK)
    expect_recovery(reader, 0, rank, bus.NO_ACK)


@pytest.mark.parametrize(("wedged", "context"), [(0, "irq"), (1, "preempt")])
def test_one_housekeeping_cpu_is_wedged(vm, reader, rank, wedged, context):
    """The other one takes over: stalls are found in time, and the wedge is evidence."""
    before = counter(vm, "passes")
    # Computing: the timers of an idle training CPU are on a housekeeping CPU.
    rank.do("beat 0")
    # The command channel may be on that CPU: what follows takes until it is free again. The wedge
    # has to be there for a second before the rank stalls.
    script = f"sleep 1.8; kill -STOP {rank.pid}; sleep 0.8; kill -CONT {rank.pid}"
    other = vm.spawn(["taskset", "-c", str(1 - wedged), "sh", "-c", script])
    wedge = generator(vm, f"context={context} ms=3500", cpu=wedged)
    stalled = expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_STOPPED)
    assert stalled["stall"]["evidence"] & bus.E_HOUSEKEEPING
    silent = reader.wait(20, source=bus.SRC_STALL, kind=bus.EV_LATE_SAMPLER, cpu=wedged)
    assert silent["stall"]["evidence"] == bus.E_HOUSEKEEPING
    expect(reader, 0, rank, bus.EV_RECOVERED)
    assert wedge.wait().rc == other.wait().rc == 0
    assert counter(vm, "passes") - before > 150
    vm.expect(r"rcu.*kthread starved", r"clocksource: Long readout interval")


def test_python_holds_the_gil(vm, reader):
    """A C library that sleeps with the interpreter's lock: no Python thread runs."""
    rank = Rank.python(vm, "gil.py", 3, DEADLINE_MS)
    expect_stall(reader, 0, rank, DEADLINE_MS, culprit=bus.C_SLEEPING, tid=rank.pid, comm="python3")
    assert any("python3" in line for line in stacks(vm, rank))
    expect(reader, 0, rank, bus.EV_RECOVERED, state=bus.STALLED)
    assert rank.command.wait().rc == 0
    expect(reader, 0, rank, bus.EV_LEFT)


def acknowledge(vm, incident):
    """As an agent whose snapshot failed."""
    script = f"import bus; bus.Device().ack({incident}, 0, -5)"
    folder = guest.put_script(vm, "bus.py").rpartition("/")[0]
    vm.run(["env", f"PYTHONPATH={folder}", "python3", "-S", "-c", script])


def test_an_incident_that_nobody_acknowledges(vm, reader):
    """Evidence against the node only where somebody used to: no agent runs here."""
    deadline = "/sys/class/misc/nullhz-fault/incident_deadline_ms"
    before = vm.read(deadline)
    vm.run(f"echo 500 > {deadline}")
    tune(vm, no_ack_ms=300, bite_ms=1500)
    # It may be waiting for a peer that hangs.
    rank = Rank(vm, 4, step=DEADLINE_MS, waits=0)
    rank.do("quiet")
    held = expect(reader, 0, rank, bus.EV_HELD, held=bus.H_NO_EVIDENCE)
    assert not held["stall"]["evidence"]
    acknowledge(vm, held["stall"]["incident"])
    rank.do("beat 20")
    expect_recovery(reader, 0, rank, bus.NO_ACK)
    # Now there is, or was, somebody.
    position = reader.position
    rank.do("quiet")
    held = expect(reader, position, rank, bus.EV_HELD, held=bus.H_DISARMED)
    assert held["stall"]["evidence"] == bus.E_AGENT
    rank.leave()
    vm.run(f"echo {before} > {deadline}")


@pytest.mark.parametrize(("command", "status"), [("exit", 0), (None, -9)])
def test_exited_and_killed(vm, reader, rank, command, status):
    """A trainer that dies is told at once, and is no stall."""
    if command:
        rank.tell(command)
    else:
        rank.signal("KILL")
    crashed = expect(reader, 0, rank, bus.EV_CRASHED, pid=rank.pid, name="test")
    assert crashed["level"] == bus.DEGRADING
    assert rank.command.wait().rc == status
    assert told(reader, rank=0) == ["REGISTERED", "CRASHED"]


def test_dead_while_a_child_keeps_the_file(vm, reader, rank):
    rank.do("fork")
    rank.signal("KILL")
    expect(reader, 0, rank, bus.EV_CRASHED, pid=rank.pid)
    assert told(reader, rank=0) == ["REGISTERED", "CRASHED"]
    vm.run("pkill -9 rank")


def test_progress_within_a_step_and_grace(vm, reader, rank):
    """What is alive in other ways is not called stalled."""
    rank.do("work 50")
    vm.run("sleep 1")
    rank.do("grace 1500")
    rank.do("quiet")
    vm.run("sleep 1")
    assert told(reader, rank=0) == ["REGISTERED"]
    stalled = expect(reader, 0, rank, bus.EV_STALLED)
    assert stalled["stall"]["age_ns"] >= 1_500_000_000
