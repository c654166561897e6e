# SPDX-License-Identifier: GPL-2.0
"""What happens to the node: lanes of actions, each at random, all lanes at the same time."""

import json
import random
import threading
import time
import traceback

from nullhz import bus, guest
from nullhz.errors import NodeError, NodeGone

from .books import GENERATORS, PAGE, RAISED
from .node import CPUS, STOPPED_S

# Corrected: memory read on channel 0. Deferred: uncorrected, not consumed yet. Action optional:
# found by the patrol scrub; on all CPUs.
CORRECTED, DEFERRED, ACTION_OPTIONAL = 0x8C00004000010090, 0xBC00000000010090, 0xBD000000000000C0
LINE, WHOLE_PAGE = 0x86, 0x8C
RESTARTABLE = 5
DEADLINE_MS = 800
FILLER = "/checkpoint/filler"
# Sources whose records join an open incident are summed up beyond 16 a second.
STORM_OVER_S = 1.2


class Lane(threading.Thread):
    """Does one action after the other until it is told to stop."""

    def __init__(self, life, seed):
        super().__init__(name=type(self).__name__.lower(), daemon=True)
        self.life = life
        self.vm, self.node, self.made, self.books = life.vm, life.node, life.made, life.books
        self.rng = random.Random(f"{seed}/{self.name}")

    # (weight, name of the method)
    ACTIONS = ()
    PAUSE_S = (0, 1)

    def run(self):
        weights, names = zip(*self.ACTIONS, strict=True)
        try:
            while not self.life.over.is_set():
                [name] = self.rng.choices(names, weights)
                getattr(self, name)()
                self.made.add(name)
                self.life.over.wait(self.rng.uniform(*self.PAUSE_S))
        except Exception as error:  # noqa: BLE001 - told by the account
            where = traceback.extract_tb(error.__traceback__)[1].name
            if not isinstance(error, NodeGone):
                self.vm.run("dmesg | tail -n 30 > /dev/console", check=False)
            self.made.problem(f"{where}: {error}")
            self.life.over.set()

    def report(self, count, level, context="process", source=bus.SRC_PRIVATE):
        with self.made.lock:
            self.made.reports[source - bus.SRC_PRIVATE] += count
        job = f"count={count} level={level} context={context} source={source}"
        self.node.write("/sys/kernel/debug/nullhz_fault_gen/run", job)

    def imminent(self):
        """A report that opens an incident, or joins one."""
        self.report(1, "imminent", source=bus.SRC_PRIVATE + 1)

    def pause(self, least, most):
        time.sleep(self.rng.uniform(least, most))


class Checks(Lane):
    """Machine checks, and reports of other sources."""

    ACTIONS = (
        (5, "corrected_errors"),
        (2, "storm"),
        (2, "raise_machine_check"),
        (1, "raise_corrected"),
        (5, "reports"),
        (1, "imminent"),
    )

    def log(self, count, status):
        """Records of a page each, by the kernel's own path."""
        address = self.made.take_checks(count)
        context = self.rng.choice(("process", "hardirq"))
        rate = self.rng.choice((0, 0, 500))
        job = f"count={count} status={status:#x} addr={address:#x} step={PAGE} misc={LINE} bank=7"
        self.node.write("/sys/kernel/debug/nullhz_mce_gen/run", f"{job} rate={rate} context={context}")

    def corrected_errors(self):
        self.log(self.rng.randint(1, 800), CORRECTED)

    def storm(self):
        self.log(self.rng.randint(20, 300), DEFERRED)
        time.sleep(STORM_OVER_S)

    def await_check(self, addr):
        if not self.books.wait(timeout=40, source=bus.SRC_MCE, addr=addr):
            raise NodeError(f"the machine check at {addr:#x} is not seen")

    def raised(self):
        """An address for a machine check by QEMU's monitor."""
        with self.made.lock:
            addr = RAISED + len(self.made.raised) * PAGE
            self.made.raised[addr] = time.monotonic()
        return addr

    def raise_machine_check(self):
        with self.node.mce, self.node.cpus:
            addr = self.raised()
            self.vm.mce(0, 5, ACTION_OPTIONAL, RESTARTABLE, addr, WHOLE_PAGE, broadcast=True)
            self.await_check(addr)

    def raise_corrected(self):
        with self.node.mce:
            addr = self.raised()
            self.vm.mce(0, 7, CORRECTED, addr=addr, misc=LINE)
            self.await_check(addr)

    def reports(self):
        source = bus.SRC_PRIVATE + self.rng.randrange(GENERATORS)
        context = self.rng.choice(("process", "softirq", "hardirq", "raw"))
        level = self.rng.choice(("watch", "watch", "degrading"))
        self.report(self.rng.randint(1, 2500), level, context, source)


class Stalls(Lane):
    """Ranks that stall, die and come back."""

    ACTIONS = ((5, "stalled_rank"), (2, "stopped_trainer"), (1, "killed_trainer"), (1, "churn"))
    numbers = 100

    def stalled_rank(self):
        """A rank of our own: at its deadline it is told of, then it goes on, then it ends."""
        kind = self.rng.choice(("quiet", "spin", "stop", "sleep"))
        with self.node.ranks:
            rank = self.begin_rank()
            try:
                self.stall(rank, kind)
                self.finish(rank)
            finally:
                rank["command"].kill(9)

    def begin_rank(self):
        Stalls.numbers += 1
        number, control = Stalls.numbers, f"/run/rank-{Stalls.numbers}"
        program = guest.put_program(self.vm, "rank")
        command = [program, number, control, "name=soak", f"step={DEADLINE_MS}", "waits=0"]
        command = self.vm.spawn([str(word) for word in command], timeout=600)
        line = command.read_line(60)
        if not line:
            raise NodeError(f"a rank does not start: {command.wait()}")
        return {"number": number, "control": control, "command": command, "pid": json.loads(line)["pid"]}

    def tell(self, rank, text):
        self.node.write(rank["control"], text)

    def expect(self, rank, kind, since=0):
        line = self.books.wait(since, 60, source=bus.SRC_STALL, kind=kind, rank=rank["number"])
        if line is None:
            raise NodeError(f"no event {kind} of rank {rank['number']}")
        return line

    def stall(self, rank, kind):
        since = self.books.ledger.position
        self.made.stalls[kind] += 1
        if kind == "stop":
            self.vm.run(["kill", "-STOP", str(rank["pid"])])
        elif kind == "spin":
            self.tell(rank, f"spin {DEADLINE_MS + 1500}")
        elif kind == "sleep":
            self.tell(rank, f"kernel context=sleep ms={DEADLINE_MS + 1500}")
        else:
            self.tell(rank, "quiet")
        self.expect(rank, bus.EV_STALLED, since)
        if kind == "stop":
            self.vm.run(["kill", "-CONT", str(rank["pid"])])
        elif kind == "quiet":
            self.tell(rank, "beat 20")
        self.expect(rank, bus.EV_RECOVERED, since)

    def finish(self, rank):
        if self.rng.random() < 0.5:
            self.tell(rank, "leave")
            self.expect(rank, bus.EV_LEFT)
        else:
            rank["command"].kill(9)
            self.expect(rank, bus.EV_CRASHED)

    def stopped_trainer(self):
        """A rank of the training job; the others wait for it."""
        with self.node.ranks:
            pids = self.node.training.rank_pids()
            if not pids:
                return
            pid, since = self.rng.choice(pids), self.books.ledger.position
            self.vm.run(["kill", "-STOP", str(pid)], check=False)
            stalled = self.books.wait(since, STOPPED_S, source=bus.SRC_STALL, kind=bus.EV_STALLED, pid=pid)
            self.vm.run(["kill", "-CONT", str(pid)], check=False)
            # Ended by what else happens, or before it was a rank.
            registered = self.books.events(source=bus.SRC_STALL, kind=bus.EV_REGISTERED, pid=pid)
            if not stalled and registered and pid in self.node.training.rank_pids():
                raise NodeError(f"process {pid} was stopped for {STOPPED_S} s, and is no stall")
            self.made.stalls["stopped trainer"] += bool(stalled)

    def killed_trainer(self):
        with self.node.ranks:
            if pids := self.node.training.rank_pids():
                self.vm.run(["kill", "-KILL", str(self.rng.choice(pids))], check=False)

    def churn(self):
        with self.node.ranks:
            self.vm.run([guest.put_program(self.vm, "hostile"), "churn", str(self.rng.randint(200, 900))])


class Volume(Lane):
    """What happens to the agent and to its disk."""

    ACTIONS = ((5, "kill_agent"), (2, "fill_volume"), (2, "remount_read_only"))
    PAUSE_S = (1, 4)

    def kill_agent(self):
        """In the middle of its work, or of nothing."""
        if self.rng.random() < 0.7:
            self.imminent()
            self.pause(0, 0.4)
        if pid := self.node.agent_pid():
            self.vm.run(["kill", "-KILL", str(pid)], check=False)

    def fill_volume(self):
        with self.node.volume:
            excuse = self.made.excuse()
            sizes = " ".join(f"{1 << shift}" for shift in range(30, 15, -1))
            script = (
                f"for size in {sizes}; do n=0; while [ $n -lt 8 ] && "
                f'fallocate -l "$size" "{FILLER}.$size.$n" 2> /dev/null; do n=$((n + 1)); done; done; true'
            )
            self.vm.run(script, 120)
            self.imminent()
            self.pause(0.5, 3)
            self.vm.run(f"rm -f {FILLER}.*; sync -f /checkpoint", 60)
            excuse.end()

    def remount_read_only(self):
        with self.node.volume:
            excuse = self.made.excuse()
            # Busy while somebody has a file open for writing.
            script = "for n in $(seq 100); do mount -o remount,ro /checkpoint && exit; sleep 0.05; done"
            done = self.vm.run(f"{script}; exit 1", 60, check=False)
            self.made.note("remounts read-only" if done.rc == 0 else "remounts refused as busy")
            self.imminent()
            self.pause(0.5, 2)
            self.vm.run("mount -o remount,rw /checkpoint", 60)
            excuse.end()


class Machine(Lane):
    """CPUs, clocks and modules come and go."""

    ACTIONS = ((4, "hotplug"), (4, "change_clock"), (4, "reload_mce"), (2, "reload_stall"))

    def hotplug(self):
        cpus = self.rng.sample(range(1, self.vm.config.cpus), self.rng.randint(1, 2))
        for cpu in cpus:
            self.set_online(cpu, 0)
        self.pause(0.1, 1.5)
        for cpu in cpus:
            self.set_online(cpu, 1)

    def set_online(self, cpu, online):
        with self.node.cpus:
            self.node.write(f"{CPUS}/cpu{cpu}/online", online)

    def change_clock(self):
        what = self.rng.choice(("jump", "offset", "slew"))
        most = 400 if what == "slew" else self.rng.choice((2, 3600, 90 * 86_400))
        amount = self.rng.uniform(-most, most)
        self.vm.run(["python3", "-S", guest.put_script(self.vm, "clock.py"), what, f"{amount:.6f}"])

    def reload_mce(self):
        """With records on their way, by the other lane."""
        for _ in range(self.rng.randint(1, 3)):
            with self.node.mce:
                self.life.close_mce()
                self.vm.run("rmmod nullhz_mce")
                self.pause(0, 0.3)
                self.vm.run("modprobe nullhz_mce")

    def reload_stall(self):
        """Refused while it is in use; the ranks' last words are counted before it goes."""
        with self.node.ranks:
            training = self.node.training
            # An open file, of which each rank has one: those of the training may end at any moment.
            in_use = "exec 3< /dev/nullhz-stall; rmmod nullhz_stall 2>&1 | grep 'in use'"
            if self.vm.run(in_use, check=False).rc:
                raise NodeError("nullhz_stall was not refused to go although it is in use")
            training.pause(self.rng.choice((15, 9)))
            self.life.close_stall()
            # The agent may just have a look at the ranks.
            self.vm.run(
                "for n in $(seq 100); do rmmod nullhz_stall && exit; sleep 0.05; done 2> /dev/null; exit 1"
            )
            self.pause(0, 0.3)
            self.vm.run("modprobe nullhz_stall")
            self.node.tune()
            training.resume()


class Gpu(Lane):
    """The software GPU's workloads, and its oracle, beside all that."""

    ACTIONS = ((6, "workload"), (1, "reload_gpu"))
    PROGRAM = "/usr/lib/nullhz/nullhz-soft-gpu"
    DEVICES = {"/dev/nullhz-soft-gpu": "soft-gpu", "/dev/nullhz-soft-gpu-c": "soft-gpu-c"}
    # Those that pin no thread of theirs to a CPU that may be gone, and that both devices know.
    WORKLOADS = (["munmap", "--intervals", "64"], ["swap", "--operations", "8"], ["fork"])

    def workload(self):
        self.vm.run("modprobe nullhz_soft_gpu; modprobe nullhz_soft_gpu_c")
        device = self.rng.choice(list(self.DEVICES))
        library = f"/sys/devices/faux/nullhz_mmu_batch.{self.DEVICES[device]}/counters"
        command = [self.PROGRAM, "--device", device, "--library", library]
        # The one that is always there.
        command += ["--cpus", "0"]
        # A machine that is busy with all the rest may have no time for it.
        command = ["timeout", "-s", "KILL", "60", "nice", *command, *self.rng.choice(self.WORKLOADS)]
        result = self.vm.run(command, 120, check=False)
        if result.rc in (-9, 137):
            self.made.note("GPU workloads killed after a minute")
            return
        if result.rc:
            raise NodeError(str(result))
        report = json.loads(result.stdout)
        if report["violations"]:
            raise NodeError(f"the device saw what it should not: {report}")
        accesses = (mode["verdict"]["accesses"] for mode in report["modes"].values())
        self.made.note("accesses of the GPU judged", sum(accesses))

    def reload_gpu(self):
        self.vm.run("modprobe -r nullhz_soft_gpu nullhz_soft_gpu_c")


def lanes(life, seed):
    kinds = [Checks, Stalls, Volume, Machine]
    if not life.vm.run(f"modinfo -n nullhz_soft_gpu && test -x {Gpu.PROGRAM}", check=False).rc:
        kinds.append(Gpu)
    return [kind(life, seed) for kind in kinds]
