# SPDX-License-Identifier: GPL-2.0
"""StallCallback of Lightning: what the kernel sees of a training run.

Each test runs against the order of hooks that Lightning documents, played by
`DocumentedTrainer`, and against the real Trainer of `lightning` and of
`pytorch_lightning` where they are installed: the same assertions hold for all.
"""

import importlib
import importlib.util
import os
import sys
import types

import pytest

from nullhz_stall import Phase

REAL = ("lightning", "pytorch_lightning")
INSTALLED = [name for name in REAL if importlib.util.find_spec(name) is not None]
needs_both = pytest.mark.skipif(
    len(INSTALLED) < len(REAL), reason="Lightning is not installed; samples/python/README.md says how"
)


class Run:
    """A fit of `batches` batches with a validation after every third and a
    checkpoint of its own after every fourth; notes what the kernel sees."""

    def __init__(self, watchdog, folder):
        self.watchdog = watchdog
        self.folder = folder
        self.seen = []
        self.trained = 0
        # Called at the start of every training step.
        self.on_train = lambda run: None

    def note(self, where):
        page = self.watchdog.page()
        self.seen.append((where, Phase(page["phase"]).name, page["step"], page["progress"]))

    def train_step(self):
        self.note("train")
        self.on_train(self)
        self.trained += 1

    def where(self, place):
        return [row[1] for row in self.seen if row[0] == place]

    def requested(self):
        return sorted(name for name in os.listdir(self.folder) if name.startswith("requested-"))


class DocumentedTrainer:
    """Calls a callback's hooks in the order that Lightning's documentation gives."""

    def __init__(self, callback, run):
        self.callback, self.run = callback, run
        self.global_rank, self.world_size, self.is_global_zero = 0, 1, True
        self.global_step = 0
        self.sanity_checking = False
        self.default_root_dir = str(run.folder)
        self.checkpoint_callback = types.SimpleNamespace(dirpath=str(run.folder))

    def hook(self, name, *arguments):
        getattr(self.callback, name)(self, None, *arguments)

    def save_checkpoint(self, path):
        self.hook("on_save_checkpoint", {})
        self.run.note("save")
        with open(path, "w") as file:
            file.write(f"global_step={self.global_step}")

    def evaluate(self):
        self.hook("on_validation_start")
        for batch in range(2):
            self.run.note("sanity" if self.sanity_checking else "validate")
            self.hook("on_validation_batch_end", None, None, batch, 0)
        self.hook("on_validation_end")

    def validate(self):
        self.hook("setup", "validate")
        self.evaluate()
        self.hook("teardown", "validate")

    def fit(self, batches):
        try:
            self.fit_inner(batches)
        except BaseException as exception:
            self.hook("on_exception", exception)
            raise

    def fit_inner(self, batches):
        self.hook("setup", "fit")
        self.sanity_checking = True
        self.evaluate()
        self.sanity_checking = False
        self.hook("on_train_start")
        self.hook("on_train_epoch_start")
        for batch in range(batches):
            self.hook("on_train_batch_start", None, batch)
            self.run.train_step()
            self.global_step += 1
            self.hook("on_train_batch_end", None, None, batch)
            if self.global_step % 4 == 0:
                # ModelCheckpoint, which comes last.
                self.save_checkpoint(os.path.join(self.run.folder, "own.ckpt"))
            if self.global_step % 3 == 0:
                self.evaluate()
        self.hook("teardown", "fit")


def real_trainer(L, callback, run, **options):
    """A Trainer of a real Lightning, with a model that tells `run`."""
    import torch

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch, index):
            run.train_step()
            return self.layer(batch).square().mean()

        def validation_step(self, batch, index):
            run.note("sanity" if self.trainer.sanity_checking else "validate")

        def on_save_checkpoint(self, checkpoint):
            run.note("save")

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    checkpoints = L.callbacks.ModelCheckpoint(
        dirpath=run.folder, filename="own", every_n_train_steps=4, save_on_train_epoch_end=False
    )
    options = {"devices": 1, "val_check_interval": 3, "callbacks": [callback, checkpoints], **options}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run.folder,
        **options,
    )
    trainer.fit_batches = lambda batches, **more: trainer.fit(
        Model(), torch.ones(batches, 1, 4), torch.ones(4, 1, 4), **more
    )
    trainer.validate_alone = lambda: trainer.validate(Model(), torch.ones(4, 1, 4), verbose=False)
    return trainer


@pytest.fixture(params=["documented", *INSTALLED])
def flavour(request, monkeypatch):
    """A module with StallCallback on top of one of the three, and a maker of trainers."""
    monkeypatch.delitem(sys.modules, "nullhz_stall.lightning", raising=False)
    if request.param == "documented":
        base = types.ModuleType("lightning.pytorch")
        base.Callback = type("Callback", (), {})
        monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
        monkeypatch.setitem(sys.modules, "lightning.pytorch", base)

        def trainer(callback, run):
            played = DocumentedTrainer(callback, run)
            played.fit_batches = played.fit
            played.validate_alone = played.validate
            return played
    else:
        name = {"lightning": "lightning.pytorch"}.get(request.param, request.param)
        L = importlib.import_module(name)
        if request.param == "pytorch_lightning":
            # As if it were the only one.
            monkeypatch.setitem(sys.modules, "lightning.pytorch", None)

        def trainer(callback, run, **options):
            return real_trainer(L, callback, run, **options)

    made = importlib.import_module("nullhz_stall.lightning").StallCallback
    assert (made.__mro__[1].__module__.split(".")[0] == request.param) == (request.param != "documented")
    yield types.SimpleNamespace(name=request.param, StallCallback=made, trainer=trainer)
    sys.modules.pop("nullhz_stall.lightning", None)


@pytest.fixture
def run(watchdog, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return Run(watchdog, tmp_path / "checkpoints")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestRun:
    def test_phases(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run).fit_batches(9)
        assert run.where("sanity") == ["INIT"] * 2
        assert run.where("train") == ["STEP"] * 9
        assert run.where("validate") == ["EVAL"] * 6
        assert set(run.where("save")) == {"CHECKPOINT"} and len(run.where("save")) >= 2

    def test_every_batch_beats(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run).fit_batches(5)
        assert [row[2] for row in run.seen if row[0] == "train"] == [0, 1, 2, 3, 4]
        assert run.watchdog.page()["step"] == 5
        progress = [row[3] for row in run.seen]
        assert len(set(progress)) >= 8 and progress == sorted(progress)

    def test_rank_and_clean_end(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job", warmup=3), run).fit_batches(3)
        assert run.watchdog.registered["rank"] == 0
        assert run.watchdog.registered["name"].rstrip(b"\0") == b"job"
        assert run.watchdog.registered["warmup"] == 3
        assert run.watchdog.left == 1 and not run.watchdog.is_open()

    @pytest.mark.parametrize("exception", [RuntimeError("NaN loss"), SystemExit(1)])
    def test_exception_is_a_crash(self, flavour, run, exception):
        def fail(run):
            if run.trained == 3:
                raise exception

        run.on_train = fail
        with pytest.raises(type(exception)):
            flavour.trainer(flavour.StallCallback("job"), run).fit_batches(9)
        assert run.watchdog.left == 0 and not run.watchdog.is_open()

    def test_request_is_answered_after_the_save(self, flavour, run):
        acks = []

        def ask(run):
            acks.append(run.watchdog.page()["checkpoint_ack"])
            if run.trained == 1:
                run.watchdog.request(5)

        run.on_train = ask
        flavour.trainer(flavour.StallCallback("job"), run).fit_batches(3)
        assert acks == [0, 0, 5]
        assert run.requested() == ["requested-step=2.ckpt"]
        assert run.where("save")[0] == "CHECKPOINT"
        assert run.where("train") == ["STEP"] * 3

    def test_checkpoint_is_synced_before_the_answer(self, flavour, run, monkeypatch):
        acks, fsync = {}, os.fsync

        def recording(descriptor):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            acks[path] = run.watchdog.page()["checkpoint_ack"]
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", recording)
        run.on_train = lambda run: run.watchdog.request(5) if run.trained == 1 else None
        flavour.trainer(flavour.StallCallback("job"), run).fit_batches(3)
        assert acks[f"{run.folder}/requested-step=2.ckpt"] == 0
        assert acks[str(run.folder)] == 0
        assert run.watchdog.page()["checkpoint_ack"] == 5

    def test_failed_save_answers_nothing(self, flavour, run, monkeypatch):
        callback = flavour.StallCallback("job")
        trainer = flavour.trainer(callback, run)

        def fail(path):
            raise OSError("disk full")

        monkeypatch.setattr(trainer, "save_checkpoint", fail)
        run.on_train = lambda run: run.watchdog.request(5)
        with pytest.raises(OSError, match="disk full"):
            trainer.fit_batches(3)
        assert run.watchdog.page()["checkpoint_ack"] == 0
        assert run.watchdog.left == 0

    def test_newest_requested_checkpoint_is_kept(self, flavour, run):
        run.on_train = lambda run: run.watchdog.request(run.trained + 1)
        flavour.trainer(flavour.StallCallback("job"), run).fit_batches(3)
        assert run.requested() == ["requested-step=3.ckpt"]
        assert (run.folder / "own.ckpt").exists() is False
        assert run.watchdog.page()["checkpoint_ack"] == 3

    def test_own_folder(self, flavour, run, tmp_path):
        run.on_train = lambda run: run.watchdog.request(1)
        (tmp_path / "mine").mkdir()
        callback = flavour.StallCallback("job", checkpoint_dir=tmp_path / "mine")
        flavour.trainer(callback, run).fit_batches(3)
        assert os.listdir(tmp_path / "mine") == ["requested-step=1.ckpt"]

    def test_validation_alone_is_not_watched(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run).validate_alone()
        assert run.watchdog.calls == []
        assert run.where("validate") == ["INIT"] * 2

    def test_fit_twice(self, flavour, run):
        callback = flavour.StallCallback("job")
        flavour.trainer(callback, run).fit_batches(3)
        flavour.trainer(callback, run).fit_batches(3)
        assert run.watchdog.left == 2 and not run.watchdog.is_open()

    def test_without_a_watchdog(self, flavour, run):
        callback = flavour.StallCallback("job", device="/nonexistent", missing="ignore")
        flavour.trainer(callback, run).fit_batches(5)
        assert run.trained == 5
        assert run.watchdog.calls == []


# --- Only with the real one ---------------------------------------------------------------


@pytest.fixture
def lightning(monkeypatch):
    L = importlib.import_module("lightning.pytorch")
    monkeypatch.delitem(sys.modules, "nullhz_stall.lightning", raising=False)
    return types.SimpleNamespace(L=L, module=importlib.import_module("nullhz_stall.lightning"))


@needs_both
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_requested_checkpoint_resumes(lightning, run):
    run.on_train = lambda run: run.watchdog.request(1) if run.trained == 2 else None
    real_trainer(lightning.L, lightning.module.StallCallback("job"), run).fit_batches(6)
    path = run.folder / "requested-step=3.ckpt"
    again = Run(run.watchdog, run.folder)
    trainer = real_trainer(lightning.L, lightning.module.StallCallback("job"), again)
    trainer.fit_batches(6, ckpt_path=path, weights_only=False)
    assert again.trained == 3
    assert [row[2] for row in again.seen if row[0] == "train"] == [0, 4, 5]
    assert run.watchdog.page()["step"] == 6


def paged_by_rank(module, folder):
    """StallCallback with a page for each rank: in the kernel they have their own, too."""

    class PagedByRank(module.StallCallback):
        def setup(self, trainer, pl_module, stage):
            self._options["device"] = f"{folder}/page{trainer.global_rank}"
            super().setup(trainer, pl_module, stage)

    return PagedByRank("job", agree_every=2)


@needs_both
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_two_ranks_save_together(lightning, run, tmp_path):
    for rank in range(2):
        (tmp_path / f"page{rank}").write_bytes(bytes(4096))

    def ask_rank_1(run):
        if os.environ.get("LOCAL_RANK", "0") == "1" and run.trained == 2:
            with open(tmp_path / "page1", "r+b") as file:
                file.seek(64)
                file.write((9).to_bytes(4, "little"))

    run.on_train = ask_rank_1
    callback = paged_by_rank(lightning.module, tmp_path)
    options = {"devices": 2, "strategy": "ddp_fork"}
    real_trainer(lightning.L, callback, run, **options).fit_batches(12)
    # Asked in the third batch, answered after the fourth.
    assert run.requested() == ["requested-step=4.ckpt"]
    pages = [(tmp_path / f"page{rank}").read_bytes() for rank in range(2)]
    assert [page[20] for page in pages] == [0, 9]
    assert [page[0] for page in pages] == [12, 12]
