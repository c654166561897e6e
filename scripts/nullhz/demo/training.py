# SPDX-License-Identifier: GPL-2.0
"""The training job of the demo: two ranks, and what they write down."""

import json

from nullhz import bus
from nullhz.errors import NodeError

from .story import CURRENT, require, until

RANKS = 2
CPUS = "2-3"
# A file system of its own, as a log or a data set is on one in a cluster; this one is in RAM.
LOGS = "/run/logs"
LOG = f"{LOGS}/loss.jsonl"
REFERENCE = "/run/reference"
# Without heartbeats for so long a step has stalled. Fixed, so that the demo need not first
# train for as long as learning takes.
DEADLINE_MS = 1500
# Every so many steps.
CHECKPOINT = 40
ENDLESS = 1_000_000
# Small: an emulated CPU takes some 40 ms for a step of it.
MODEL = "--batch 2 --context 10 --width 16 --heads 2 --layers 1"


class Training:
    """nullhz-trainer in the node. The losses of a life are those of one boot."""

    def __init__(self, story):
        self.story = story
        self.vm = story.vm
        self.lives = []
        self._job = None

    def prepare(self):
        """To be called in each boot."""
        self.vm.run(
            f"set -e; truncate -s 256M /run/logs.img; mkfs.btrfs -q --csum xxhash /run/logs.img; "
            # Not mount -o loop, which keeps the device open for writing meanwhile: the kernel
            # refuses to mount what somebody else may write to.
            f"mkdir -p {LOGS}; mount -o noatime $(losetup --find --show /run/logs.img) {LOGS}"
        )

    def command(self, directory, log, steps, *more):
        command = ["nullhz-trainer", "run", "--dir", directory, "--log", log, "--steps", steps]
        command += ["--ranks", RANKS, "--cpus", CPUS, "--eval-every", 0, *MODEL.split(), *more]
        return [str(word) for word in command]

    def start(self, steps=ENDLESS):
        """Trains in the background; returns the log's first line when two steps are done."""
        command = self.command(CURRENT, LOG, steps, "--checkpoint-every", CHECKPOINT, "--require-watchdog")
        command += ["--name", "demo", "--deadline", f"step={DEADLINE_MS}"]
        position = self.story.reader.position
        self._job = self.vm.spawn(command, timeout=None)
        for rank in range(RANKS):
            self.story.reader.wait(
                30, since=position, source=bus.SRC_STALL, kind=bus.EV_REGISTERED, rank=rank
            )
        until(lambda: len(self.losses()) >= 2, 30, "the training does not get on")
        return self.log()[0]

    def log(self, path=LOG):
        """What has been written down so far; nothing before a rank has opened the file."""
        text = self.vm.run(["cat", path], check=False).stdout
        # The last line may be there in part.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def losses(self, path=LOG):
        """{step: loss} so far."""
        return {line["step"]: line["loss"] for line in self.log(path) if line["event"] == "step"}

    def last_step(self):
        return max(self.losses())

    def keep(self):
        """Keeps the losses of this boot; returns their last step."""
        self.lives.append(self.losses())
        return max(self.lives[-1])

    def goes_on(self, after):
        """The step that it is in, which is a later one."""
        until(lambda: self.last_step() > after, 15, f"training has stopped at step {after}")
        return self.last_step()

    def far_from_a_checkpoint(self):
        """Waits for a step that none follows soon: a rank that writes one has much more time."""
        until(
            lambda: self.last_step() % CHECKPOINT in range(2, CHECKPOINT // 2),
            60,
            "there is nothing but checkpoints",
        )

    def finish(self):
        """Waits until all steps are done; returns the last one."""
        result = self._job.wait(120)
        require(result.rc == 0, f"the training failed: {result}")
        return self.keep()

    def verify(self, directory):
        """The newest checkpoint in a directory, all of which must be whole."""
        result = self.vm.run(["nullhz-trainer", "verify", "--json", directory], check=False)
        require(result.rc == 0, f"no whole checkpoint in {directory}: {result}")
        return [json.loads(line) for line in result.stdout.splitlines()][-1]

    def undisturbed(self, steps):
        """{step: loss} of a run of the same job that nothing happens to."""
        log = f"{REFERENCE}.jsonl"
        command = self.command(REFERENCE, log, steps, "--checkpoint-every", 0, "--name", "reference")
        result = self.vm.run(command, 240)
        require(result.rc == 0, f"the undisturbed run failed: {result}")
        return self.losses(log)

    def compare(self, reference):
        """How many losses there are of which step, all of them exactly those of `reference`."""
        compared = 0
        for number, losses in enumerate(self.lives, 1):
            for step, loss in losses.items():
                if step not in reference:
                    raise NodeError(f"step {step} of boot {number} is not in the undisturbed run")
                wanted = reference[step]
                require(loss == wanted, f"loss of step {step} in boot {number}: {loss!r}, not {wanted!r}")
                compared += 1
        return compared
