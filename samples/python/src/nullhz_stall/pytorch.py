# SPDX-License-Identifier: GPL-2.0
"""For training loops written by hand, with PyTorch.

from nullhz_stall.pytorch import TrainingLoop

def save(step):
    path = f"checkpoints/{step}.pt"
    torch.save({"model": model.state_dict(), "step": step}, path)
    return path

with TrainingLoop(save) as loop:
    for batch in loop.steps(dataloader):
        train(batch)
        if loop.step % 1000 == 0:
            with loop.evaluation():
                evaluate()
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Callable, TypeVar, Union

from ._abi import Phase
from ._heartbeat import Heartbeat, register
from ._requests import Requests
from ._sync import sync_tree

Batch = TypeVar("Batch")
Path = Union[str, "os.PathLike[str]"]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on any rank of torch.distributed's default group: a
    collective call, which all ranks have to make. Without a group: `flag`."""
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return flag
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def is_distributed() -> bool:
    """Whether this process is one of several of torch.distributed."""
    try:
        import torch.distributed as dist
    except ImportError:
        return False
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


class TrainingLoop:
    """Heartbeats, phases and checkpoints on request around a loop over batches.

    save         writes a checkpoint; gets the number of steps that are done and
                 returns the path or paths that it wrote, for fsync, or None when
                 it has synced them itself. Called on all ranks at the same step.
                 None: requests go unanswered
    heartbeat    None: register() with `options`, in the thread that makes the loop.
                 `tells_waits` is none of them: the exchange below, and what DDP
                 does in the backward pass, are waits that the loop does not tell
    agree_every  steps from one exchange with the other ranks, whether one of
                 them was asked for a checkpoint, to the next; alone there is none
    """

    def __init__(
        self,
        save: Callable[[int], Path | Iterable[Path] | None] | None = None,
        *,
        heartbeat: Heartbeat | None = None,
        agree_every: int = 10,
        **options: Any,
    ) -> None:
        self.step = 0
        """Steps that are done."""
        self._save = save
        self._agree_every = agree_every
        # Refuses a bad number before there is a rank.
        self._requests = Requests(None, agree_every)
        self.heartbeat = register(tells_waits=False, **options) if heartbeat is None else heartbeat

    def steps(self, batches: Iterable[Batch], start: int = 0) -> Iterator[Batch]:
        """The batches; each has been one step when the next is asked for.
        `start`: steps that a resumed run has done before."""
        heartbeat = self.heartbeat
        self.step = start
        if is_distributed():
            self._requests = Requests(any_rank, self._agree_every)
        heartbeat.phase = Phase.STEP
        for batch in batches:
            yield batch
            self.step += 1
            heartbeat.beat(self.step)
            if self._save is not None and self._requests.due(heartbeat):
                self.checkpoint()

    def checkpoint(self) -> None:
        """Saves now, in phase CHECKPOINT, and answers what was asked for. For
        checkpoints that the job writes by itself, too."""
        if self._save is None:
            raise ValueError("this loop was made without save=")
        with self.heartbeat.enter(Phase.CHECKPOINT):
            saved = self._save(self.step)
            if isinstance(saved, (str, os.PathLike)):
                sync_tree(saved)
            elif saved is not None:
                for path in saved:
                    sync_tree(path)
            self._requests.done(self.heartbeat)

    def evaluation(self) -> AbstractContextManager[None]:
        """A block in phase EVAL."""
        return self.heartbeat.enter(Phase.EVAL)

    def waiting(self) -> AbstractContextManager[None]:
        """A block in phase COMM_WAIT: barriers and all-reduces, in which a stuck
        peer is not this rank's fault. It promises nothing of other blocks."""
        return self.heartbeat.enter(Phase.COMM_WAIT)

    def __enter__(self) -> TrainingLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, value, trace)
