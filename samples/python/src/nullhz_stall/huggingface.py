# SPDX-License-Identifier: GPL-2.0
"""For the Trainer of Hugging Face Transformers.

from nullhz_stall.huggingface import StallCallback

trainer = Trainer(..., callbacks=[StallCallback("my-model")])
"""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback

from ._abi import Phase
from ._heartbeat import Heartbeat, register
from ._requests import Requests
from ._sync import sync_tree
from .pytorch import any_rank


class StallCallback(TrainerCallback):
    """Registers the rank for `train()`, beats after every step, tells evaluation
    and checkpoints apart, and has the Trainer save when the node asks for it.

    name         as in `register()`; `options` too, but `tells_waits`, since the
                 Trainer hides its waits. The rank is the Trainer's
    agree_every  steps from one exchange with the other ranks, whether one of them
                 was asked, to the next; a Trainer with one process has none

    The checkpoint is an ordinary one of the Trainer, output_dir/checkpoint-<step>.
    The heartbeat's step is `state.global_step`, its progress counts
    micro-batches and evaluation steps.

    The Trainer tells its callbacks nothing of exceptions: a training run that
    ends with one is a crash when the process ends, or at the next `train()`.
    """

    def __init__(self, name: str | None = None, *, agree_every: int = 10, **options: Any) -> None:
        self.heartbeat: Heartbeat | None = None
        self._name = name
        self._agree_every = agree_every
        self._options = options
        self._requests = Requests(None, agree_every)
        self._progressed = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.heartbeat is not None:
            self.heartbeat.abandon()
        self._requests = Requests(any_rank if args.world_size > 1 else None, self._agree_every)
        self._progressed = 0
        self.heartbeat = register(args.process_index, self._name, tells_waits=False, **self._options)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phase(Phase.STEP)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        heartbeat = self.heartbeat
        if heartbeat is None:
            return control
        heartbeat.beat(state.global_step)
        if self._requests.due(heartbeat):
            control.should_save = True
        self._expect(control)
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._expect(control)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phase(Phase.EVAL)
        self._progress()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # It is over; what was to be saved comes next.
        self._phase(Phase.CHECKPOINT if control.should_save else Phase.STEP)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.heartbeat is None:
            return
        path = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        if os.path.isdir(path):
            sync_tree(path)
        else:
            # A hyperparameter search has folders of its own.
            os.sync()
        self._requests.done(self.heartbeat)
        self._phase(Phase.STEP)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.heartbeat is not None:
            heartbeat, self.heartbeat = self.heartbeat, None
            heartbeat.leave()

    def _phase(self, phase: Phase) -> None:
        if self.heartbeat is not None:
            self.heartbeat.phase = phase

    def _progress(self) -> None:
        if self.heartbeat is not None:
            self._progressed += 1
            self.heartbeat.progress(self._progressed)

    def _expect(self, control: Any) -> None:
        """What the Trainer does next, as its other callbacks have set it."""
        if control.should_evaluate:
            self._phase(Phase.EVAL)
        elif control.should_save:
            self._phase(Phase.CHECKPOINT)
