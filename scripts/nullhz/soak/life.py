# SPDX-License-Identifier: GPL-2.0
"""One boot of the node in a soak: chaos, silence, account, and how the boot ends."""

import threading
import time

from nullhz import bus, guest
from nullhz.errors import KernelBug, NodeError
from nullhz.memory import memory

from . import chaos
from .books import MCE_COUNTERS, STALL_COUNTERS, Books, live
from .node import BUS, KEPT, MCE, STALL, Training, put_tools

# Uncorrected, context corrupt.
FATAL, NOT_RESTARTABLE = 0xBE00000000800400, 4
LAST_ADDR = 0x7F_0000_0000
HARDWARE_S = 4
# What the kernel's own caches may take in a boot: BTRFS's, the page allocator's, cgroups'.
SLACK_KIB = 32 * 1024
QUIET_S = 60


class Life:
    """A boot, from the time that it answers."""

    def __init__(self, node, seed, sabotage):
        self.node, self.vm, self.made, self.seed = node, node.vm, node.made, seed
        self.over = threading.Event()
        self.made.begin_boot()
        forget, spoil = sabotage
        put_tools(self.vm)
        self.books = Books(self.vm, self.made, forget, spoil)

    # --- Chaos ---------------------------------------------------------------

    def begin(self, restore):
        """Until training is on its way."""
        node, vm = self.node, self.vm
        node.prepare()
        node.await_agent()
        if restore:
            vm.run(["nullhz-agent", "restore", "latest"], 60)
            vm.run("btrfs -q subvolume delete /checkpoint/current.before-restore-*", 60)
            self.made.note("restores")
        self.memory = self.measure()
        node.training = Training(node)
        node.training.start()

    def measure(self):
        shown = memory(self.vm)
        return sum(shown.values())

    def rage(self, seconds, progress):
        """Everything at once for so long."""
        end = time.monotonic() + seconds
        running = chaos.lanes(self, self.seed)
        for lane in running:
            lane.start()
        while not self.over.wait(min(10, max(0, end - time.monotonic()))):
            progress()
            if time.monotonic() >= end:
                break
        self.over.set()
        for lane in running:
            lane.join(240)
            if lane.is_alive():
                raise NodeError(f"what {lane.name} did last does not come to an end")

    def close_mce(self):
        """Before nullhz_mce goes: what it knows to be lost."""
        self.made.kernel_lost.update(self.node.counters(MCE, MCE_COUNTERS))

    def close_stall(self):
        """Before nullhz_stall goes: how many events of each kind it has made."""
        end = time.monotonic() + 30 * self.vm.patience
        while self.node.number(f"{STALL}/ranks"):
            if time.monotonic() > end:
                raise NodeError("a rank of a process that has ended is still registered")
            time.sleep(0.1)
        self.made.counters.update(self.node.counters(STALL, (*STALL_COUNTERS.values(), "refused")))

    # --- Silence -------------------------------------------------------------

    def silence(self):
        """Nothing happens any more; all that did is dealt with. Returns the ledger's account."""
        node, vm = self.node, self.vm
        node.all_online()
        vm.run("modprobe -r nullhz_soft_gpu nullhz_soft_gpu_c 2> /dev/null; true")
        node.training.stop()
        for index in range(len(self.made.reports)):
            self.made.reports[index] += 1
            job = f"count=1 level=watch source={bus.SRC_PRIVATE + index}"
            node.write("/sys/kernel/debug/nullhz_fault_gen/run", job)
        node.await_agent()
        # Sums of storms are told after 100 ms.
        time.sleep(0.5)
        self.close_mce()
        self.close_stall()
        self.await_answers()
        return self.books.account()

    def answers(self):
        """{incident: its acknowledgement}"""
        events = self.books.events(source=bus.SRC_BUS, kind=bus.BUS_ACKED)
        return {event["bus"]["incident"]: event for event in events if live(event)}

    def await_answers(self):
        """Until every incident has its answer, and every snapshot was looked at."""
        end = time.monotonic() + QUIET_S * self.vm.patience
        last = self.node.number(f"{BUS}/last_incident")
        while time.monotonic() < end:
            answers = self.answers()
            taken = {event["bus"]["snapshot_id"] for event in answers.values()} - {0}
            looked = {line["id"] for line in self.books.snapshots.all() if "id" in line}
            names = self.vm.run(["ls", "/checkpoint/.snapshots"]).stdout.split()
            unseen = set(names) - {line["name"] for line in self.books.snapshots.all() if "name" in line}
            if len(answers) >= last and taken <= looked and not unseen:
                return
            time.sleep(0.5)

    # --- The end -------------------------------------------------------------

    def grown(self):
        return self.measure() - self.memory

    def check_kernel(self):
        try:
            self.vm.assert_clean()
        except KernelBug as error:
            self.made.problem(str(error))

    def check_rotation(self):
        names = self.vm.run(["ls", "/checkpoint/.snapshots"]).stdout.split()
        if len(names) > KEPT + 1:
            self.made.problem(f"{len(names)} snapshots are kept, not {KEPT}")

    def die(self, how):
        """Ends the boot; returns when the next one is up. What that has to know: see recall()."""
        vm = self.vm
        self.made.add(f"boots ended by {how}")
        if how == "fatal machine check":
            vm.expect("Kernel panic - not syncing: Fatal")
            vm.mce(1, 4, FATAL, NOT_RESTARTABLE, LAST_ADDR, chaos.LINE, broadcast=True)
        elif how == "watchdog":
            self.bite()
        elif how == "reset button":
            vm.reset(wait=False)
        else:
            vm.spawn("reboot")
        vm.wait_boot()

    def bite(self):
        node, vm = self.node, self.vm
        for name, value in (("feed_timeout_s", HARDWARE_S), ("no_ack_ms", 300), ("bite_ms", 1500)):
            node.write(f"{STALL}/tunables/{name}", value)
        node.write(f"{STALL}/rearm", 1)
        node.write(f"{STALL}/tunables/reset", 1)
        vm.run(f"until [ $(cat {STALL}/armed) = 1 ]; do sleep 0.1; done")
        seen = vm.monitor.position
        program = guest.put_program(vm, "rank")
        # It promises to tell its waits, so that its phase is evidence.
        rank = vm.spawn([program, "7", "/run/rank-7", "name=last", "step=800"], timeout=None)
        rank.read_line(60)
        node.write("/run/rank-7", "quiet")
        vm.monitor.wait("WATCHDOG", 60, since=seen)


ENDINGS = ("fatal machine check", "watchdog", "reset button", "reboot")


def recall(books, how):
    """The next boot knows how the last one ended; returns what is wrong with that."""
    old = [
        line
        for line in books.ledger.all(lambda line: "seq" in line and line["flags"] & bus.F_PREVIOUS_BOOT)
        if line["source"] != bus.SRC_BUS
    ]
    found = {
        "fatal machine check": lambda: [
            line for line in old if line["source"] == bus.SRC_MCE and line["mce"]["addr"] == LAST_ADDR
        ],
        "watchdog": lambda: [
            line
            for line in old
            if line["source"] == bus.SRC_STALL
            and (line["kind"], line["stall"]["rank"]) == (bus.EV_PREBITE, 7)
        ],
    }
    if how not in found:
        return [f"a {how} left {old}"] if old else []
    if len(found[how]()) != 1 or len(old) != 1:
        return [f"{how}: {len(found[how]())} records of it, not 1, among {old}"]
    return []
