# SPDX-License-Identifier: GPL-2.0
"""For Lightning (`lightning` or `pytorch_lightning`, 2.0 or later).

from nullhz_stall.lightning import StallCallback

trainer = Trainer(callbacks=[StallCallback("my-model")])
"""

from __future__ import annotations

import os
import shutil
from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback

from ._abi import Phase
from ._heartbeat import Heartbeat, register
from ._requests import Requests
from ._sync import sync_tree


class StallCallback(Callback):
    """Registers the rank for `fit()`, beats after every batch, tells evaluation
    and checkpoints apart, and saves a checkpoint when the node asks for one.

    name            as in `register()`; `options` too, but `tells_waits`, since the
                    strategy hides its waits. The rank is the trainer's
    checkpoint_dir  of checkpoints on request, the newest of which is kept; None:
                    where ModelCheckpoint saves, else <default_root_dir>/checkpoints
    agree_every     batches from one exchange with the other ranks, whether one of
                    them was asked, to the next; a trainer with one process has none

    The heartbeat's step is `trainer.global_step`, its progress counts batches.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        agree_every: int = 10,
        **options: Any,
    ) -> None:
        super().__init__()
        self.heartbeat: Heartbeat | None = None
        self._name = name
        self._checkpoint_dir = checkpoint_dir
        self._agree_every = agree_every
        self._options = options
        self._requests = Requests(None, agree_every)
        self._batches = 0
        self._saved: str | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Here, not before: a strategy may have started this process just now."""
        if stage != "fit" or self.heartbeat is not None:
            return
        alone = trainer.world_size == 1
        self._requests = Requests(
            None if alone else lambda flag: trainer.strategy.reduce_boolean_decision(flag, all=False),
            self._agree_every,
        )
        self._batches = 0
        self.heartbeat = register(trainer.global_rank, self._name, tells_waits=False, **self._options)

    def _phase(self, phase: Phase) -> None:
        if self.heartbeat is not None:
            self.heartbeat.phase = phase

    def _progress(self) -> None:
        if self.heartbeat is not None:
            self._batches += 1
            self.heartbeat.progress(self._batches)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._phase(Phase.STEP)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # After ModelCheckpoint, which saves last of all callbacks.
        self._phase(Phase.STEP)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        heartbeat = self.heartbeat
        if heartbeat is None:
            return
        heartbeat.beat(trainer.global_step)
        self._progress()
        if self._requests.due(heartbeat):
            self._save(trainer, heartbeat)

    def _save(self, trainer: Any, heartbeat: Heartbeat) -> None:
        folder = self._checkpoint_dir or getattr(trainer.checkpoint_callback, "dirpath", None)
        folder = os.fspath(folder or os.path.join(trainer.default_root_dir, "checkpoints"))
        path = os.path.join(folder, f"requested-step={trainer.global_step}.ckpt")
        with heartbeat.enter(Phase.CHECKPOINT):
            # Of all ranks; returns when all have written.
            trainer.save_checkpoint(path)
            if os.path.exists(path):
                sync_tree(path)
            self._requests.done(heartbeat)
        if trainer.is_global_zero and self._saved not in (None, path):
            _remove(self._saved)
        self._saved = path

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        # Whoever saves. There is no hook for the end of it: the next one to be
        # called sets its own phase.
        if not trainer.sanity_checking:
            self._phase(Phase.CHECKPOINT)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        # The sanity check is part of INIT.
        if not trainer.sanity_checking:
            self._phase(Phase.EVAL)

    def on_validation_batch_end(self, *_: Any) -> None:
        self._progress()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._phase(Phase.STEP)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._phase(Phase.STEP)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and self.heartbeat is not None:
            heartbeat, self.heartbeat = self.heartbeat, None
            heartbeat.leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.heartbeat is not None:
            heartbeat, self.heartbeat = self.heartbeat, None
            heartbeat.abandon()


def _remove(path: str | None) -> None:
    """A checkpoint, which some strategies write as a folder."""
    if path is None:
        return
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)
