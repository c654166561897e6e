# SPDX-License-Identifier: GPL-2.0
"""Heartbeats for the nullhz stall watchdog, /dev/nullhz-stall.

A training process registers and says after every step that it is alive: one
store to a page that the kernel reads, no system call.

    import nullhz_stall

    with nullhz_stall.register(rank=0, name="my-model") as heartbeat:
        heartbeat.phase = nullhz_stall.Phase.STEP
        for step, batch in enumerate(batches, 1):
            train(batch)
            heartbeat.beat(step)

Ready-made parts for training loops: `nullhz_stall.pytorch`,
`nullhz_stall.lightning`, `nullhz_stall.huggingface`.
"""

from ._abi import DEVICE, Phase, State
from ._device import NoWatchdogError, WatchdogError
from ._heartbeat import Heartbeat, register
from ._sync import sync_tree

__all__ = [
    "DEVICE",
    "Heartbeat",
    "NoWatchdogError",
    "Phase",
    "State",
    "WatchdogError",
    "register",
    "sync_tree",
]
