# SPDX-License-Identifier: GPL-2.0
"""Checkpoint requests, turned into decisions that all ranks take at the same step.

The request reaches each rank through its own page, and only the ranks of the
node that may fail. Saving is a collective operation in most jobs: a rank that
saves alone would wait for the others forever. So the ranks tell each other, at
the same step each, whether one of them has been asked.
"""

from __future__ import annotations

from typing import Callable

from ._heartbeat import Heartbeat


class Requests:
    """What to do about requests; used by the ready-made parts for training loops.

    any_rank  tells whether its argument is true on any rank; a collective call.
              None: this rank is alone
    every     calls of `due()` from one `any_rank()` to the next
    """

    def __init__(self, any_rank: Callable[[bool], bool] | None, every: int) -> None:
        if every < 1:
            raise ValueError(f"every: {every} is not at least 1")
        self._any_rank = any_rank
        self._every = every
        self._calls = 0
        self._pending: int | None = None

    def due(self, heartbeat: Heartbeat) -> bool:
        """Whether to save now. To be called after every step, by all ranks."""
        self._calls += 1
        if self._any_rank is None:
            self._pending = heartbeat.checkpoint_wanted()
            return self._pending is not None
        if self._calls % self._every:
            return False
        wanted = heartbeat.checkpoint_wanted()
        if not self._any_rank(wanted is not None):
            return False
        # None where only another rank was asked: nothing to answer then.
        self._pending = wanted
        return True

    def done(self, heartbeat: Heartbeat) -> None:
        """What was due is on disk."""
        if self._pending is not None:
            heartbeat.checkpoint_done(self._pending)
            self._pending = None
