# SPDX-License-Identifier: GPL-2.0
"""The node of a soak: its agent, its training, and what is set for the time of the soak."""

import contextlib
import json
import threading
import time

from nullhz import guest
from nullhz.errors import CommandError, NodeError, NodeGone, TimedOut

STALL = "/sys/class/misc/nullhz-stall"
BUS = "/sys/class/misc/nullhz-fault"
MCE = "/sys/devices/faux/nullhz_mce"
CHECKS = "/sys/devices/system/machinecheck/machinecheck0"
CPUS = "/sys/devices/system/cpu"
CURRENT = "/checkpoint/current"
LOG = "/run/loss.jsonl"
# More than a node keeps: the watcher has to see each one.
KEPT = 8
RANKS = 2
MODEL = "--batch 2 --context 10 --width 16 --heads 2 --layers 1"
# A step takes some 40 ms, and many times that when the machine is busy with all the rest.
DEADLINES_MS = {"step": 2000, "comm-wait": 3000, "checkpoint": 4000, "eval": 4000}
# A sampler that is held up itself gives that time to the ranks.
STOPPED_S = 30
COOLDOWN_MS = 2500
GENERATORS = ("nullhz_fault_gen", "nullhz_mce_gen", "nullhz_stall_gen")

# As init starts it, with more snapshots kept.
AGENT = f"""#!/bin/sh
until [ -c /dev/nullhz-fault ]; do
	sleep 0.2
done
exec /usr/sbin/nullhz-agent run --keep {KEPT}
"""


class Node:
    """The virtual machine through all boots of a soak."""

    def __init__(self, vm, made):
        self.vm, self.made = vm, made
        # CPUs do not come and go while a machine check waits for all of them.
        self.cpus = threading.RLock()
        # What QEMU raises is waited for while there is a module to see it.
        self.mce = threading.Lock()
        # Ranks are not made while the module goes.
        self.ranks = threading.RLock()
        # One thing at a time happens to the checkpoint volume.
        self.volume = threading.Lock()
        self.training = None

    def write(self, path, value):
        self.vm.run(["sh", "-c", 'echo "$1" > "$2"', "sh", str(value), path])

    def number(self, path):
        return int(self.vm.read(path))

    def prepare(self):
        """To be called in each boot, before anything happens."""
        vm = self.vm
        vm.put(AGENT, "/run/agent", 0o755)
        vm.run("mount --bind /run/agent /usr/lib/nullhz/agent && pkill -x nullhz-agent", check=False)
        for module in GENERATORS:
            vm.run(["modprobe", module])
        self.write(f"{BUS}/incident_cooldown_ms", COOLDOWN_MS)
        self.write(f"{CHECKS}/check_interval", 1)
        # An emulated CPU may not run for a second, which is how long the others wait by default.
        self.write(f"{CHECKS}/monarch_timeout", 20_000_000)
        self.tune()

    def tune(self):
        """What a load of nullhz_stall forgets. Nothing resets the node but what is to."""
        for name, value in (("reset", 0), ("no_ack_ms", 2000), ("bite_ms", 600_000)):
            self.write(f"{STALL}/tunables/{name}", value)

    def agent_pid(self):
        found = self.vm.run(["pgrep", "-xo", "nullhz-agent"], check=False).stdout.split()
        return int(found[0]) if found else None

    def await_agent(self, timeout=30):
        end = time.monotonic() + timeout * self.vm.patience
        while True:
            status = self.vm.run(["nullhz-agent", "status", "--json"], check=False)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(status.stdout)["agent"]["running"]:
                    return
            if time.monotonic() > end:
                raise NodeError(f"the snapshot agent does not run: {status}")
            time.sleep(0.3)

    def online(self):
        shown = self.vm.read(f"{CPUS}/online")
        bounds = [[int(end) for end in part.split("-")] for part in shown.split(",")]
        return [cpu for bound in bounds for cpu in range(bound[0], bound[-1] + 1)]

    def all_online(self):
        with self.cpus:
            for cpu in range(1, self.vm.config.cpus):
                self.write(f"{CPUS}/cpu{cpu}/online", 1)

    def counters(self, place, names):
        shown = self.vm.run(["sh", "-c", 'cd "$0" && cat "$@"', f"{place}/counters", *names]).stdout
        return dict(zip(names, map(int, shown.split()), strict=True))


class Training:
    """A training job that is started again whenever it has ended, as a cluster's scheduler does."""

    def __init__(self, node):
        self.node, self.vm = node, node.vm
        self._job = None
        self._stop = threading.Event()
        self._lock = threading.RLock()
        # Cleared while it cannot train: the volume is full, or the module gone.
        self.allowed = threading.Event()
        self.allowed.set()
        self._thread = threading.Thread(target=self._supervise, name="training", daemon=True)

    def start(self):
        """Returns when there is a checkpoint, so that every snapshot has one."""
        self._thread.start()
        end = time.monotonic() + 90 * self.vm.patience
        while not self.vm.run(f"ls -d {CURRENT}/step-*", check=False).stdout:
            if time.monotonic() > end:
                raise NodeError("training writes no checkpoint")
            time.sleep(0.3)

    def _command(self):
        command = ["nullhz-trainer", "run", "--dir", CURRENT, "--log", LOG, "--steps", 10_000_000]
        command += ["--ranks", RANKS, "--cpus", "2-3", "--eval-every", 0, *MODEL.split()]
        command += ["--checkpoint-every", 20, "--require-watchdog", "--name", "training"]
        for phase, ms in DEADLINES_MS.items():
            command += ["--deadline", f"{phase}={ms}"]
        return [str(word) for word in command]

    def _supervise(self):
        try:
            while not self._stop.is_set():
                if not self.allowed.wait(0.2):
                    continue
                with self._lock:
                    if self._stop.is_set() or not self.allowed.is_set():
                        continue
                    self._job = job = self.vm.spawn(self._command(), timeout=None)
                self.node.made.note("training started")
                result = job.wait(24 * 3600)
                if result.rc and not self._stop.is_set():
                    self.node.made.note("training ended by a failure")
                self._stop.wait(0.5)
        except (NodeGone, TimedOut):
            # The node is being reset.
            pass
        except CommandError as error:
            self.node.made.problem(f"training: {error}")

    def running(self):
        with self._lock:
            return self._job is not None and self._job._result is None

    def pause(self, number=15):
        """Ends the job, and keeps it from being started again."""
        with self._lock:
            self.allowed.clear()
            if self._job:
                self._job.kill(number)
        end = time.monotonic() + 30 * self.vm.patience
        while self.vm.run(["pgrep", "-x", "nullhz-trainer"], check=False).stdout:
            if time.monotonic() > end:
                raise NodeError("the training does not end")
            time.sleep(0.1)

    def resume(self):
        self.allowed.set()

    def stop(self, in_node=True):
        self._stop.set()
        if in_node:
            self.pause()
        self._thread.join(10)

    def rank_pids(self):
        """Processes of the ranks, not of their launcher."""
        return list(map(int, self.vm.run(["pgrep", "-f", "nullhz-trainer rank"], check=False).stdout.split()))


def put_tools(vm):
    """Programs and scripts that the actions run."""
    for name in ("rank", "hostile"):
        guest.put_program(vm, name)
    for name in ("bus.py", "clock.py"):
        guest.put_script(vm, name)
