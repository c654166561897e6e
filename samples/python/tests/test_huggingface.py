# SPDX-License-Identifier: GPL-2.0
"""StallCallback of Hugging Face: what the kernel sees of a training run.

Each test runs against the order of events that the Trainer documents, played by
`DocumentedTrainer`, and against the real Trainer where it is installed: the same
assertions hold for both.
"""

import importlib
import importlib.util
import os
import sys
import types

import pytest

from nullhz_stall import Phase

STEPS = 6
NEEDED = ("transformers", "torch", "accelerate")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
FLAVOURS = ["documented"] if ABSENT else ["documented", "transformers"]


class Run:
    """Training of six steps of two micro-batches, an evaluation after every
    third, a checkpoint of its own after every fourth; notes what the kernel sees."""

    def __init__(self, watchdog, folder):
        self.watchdog = watchdog
        self.folder = folder
        self.seen = []
        self.trained = 0
        # Called at the start of every micro-batch.
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


class DocumentedTrainer:
    """Calls a callback's events in the order that the Trainer's documentation gives."""

    def __init__(self, callback, run, evaluate_on_start=False):
        self.callback, self.run = callback, run
        self.evaluate_on_start = evaluate_on_start
        self.args = types.SimpleNamespace(output_dir=str(run.folder), world_size=1, process_index=0)
        self.state = types.SimpleNamespace(global_step=0)
        self.control = types.SimpleNamespace(should_save=False, should_evaluate=False)

    def event(self, name, **more):
        if hasattr(self.callback, name):
            result = getattr(self.callback, name)(self.args, self.state, self.control, **more)
            self.control = result or self.control

    def evaluate(self):
        for _ in range(2):
            self.run.note("evaluate")
            self.event("on_prediction_step")
        self.event("on_evaluate", metrics={})

    def save(self):
        self.run.note("save")
        os.makedirs(f"{self.run.folder}/checkpoint-{self.state.global_step}", exist_ok=True)
        self.event("on_save")

    def do_as_told(self):
        if self.control.should_evaluate:
            self.evaluate()
        if self.control.should_save:
            self.save()
        self.control.should_save = self.control.should_evaluate = False

    def train(self):
        self.event("on_train_begin")
        if self.evaluate_on_start:
            self.evaluate()
        self.event("on_epoch_begin")
        for step in range(1, STEPS + 1):
            self.event("on_step_begin")
            self.run.train_step()
            self.event("on_substep_end")
            self.run.train_step()
            self.state.global_step = step
            # The Trainer's own callback comes first.
            self.control.should_evaluate = step % 3 == 0
            self.control.should_save = step % 4 == 0
            self.event("on_step_end")
            self.do_as_told()
        self.event("on_epoch_end")
        self.do_as_told()
        self.event("on_train_end")


def real_trainer(transformers, callback, run, evaluate_on_start=False):
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x, labels=None):
            if self.training:
                run.train_step()
            else:
                run.note("evaluate")
            loss = self.layer(x).square().mean()
            return {"loss": loss, "logits": loss.detach().reshape(1, 1)}

        def state_dict(self, *args, **kwargs):
            run.note("save")
            return super().state_dict(*args, **kwargs)

    rows = [{"x": [1.0, 2.0, 3.0, 4.0], "labels": [0.0]}] * (2 * STEPS)
    arguments = transformers.TrainingArguments(
        output_dir=run.folder,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        eval_strategy="steps",
        eval_steps=3,
        eval_on_start=evaluate_on_start,
        save_strategy="steps",
        save_steps=4,
        logging_strategy="no",
    )
    return transformers.Trainer(
        Model(), arguments, train_dataset=rows, eval_dataset=rows[:2], callbacks=[callback]
    )


@pytest.fixture(params=FLAVOURS)
def flavour(request, monkeypatch):
    """A module with StallCallback on top of one of the two, and a maker of trainers."""
    monkeypatch.delitem(sys.modules, "nullhz_stall.huggingface", raising=False)
    if request.param == "documented":
        base = types.ModuleType("transformers")
        base.TrainerCallback = type("TrainerCallback", (), {})
        monkeypatch.setitem(sys.modules, "transformers", base)
        trainer = DocumentedTrainer
    else:
        import transformers

        def trainer(*arguments, **options):
            return real_trainer(transformers, *arguments, **options)

    made = importlib.import_module("nullhz_stall.huggingface").StallCallback
    yield types.SimpleNamespace(name=request.param, StallCallback=made, trainer=trainer)
    sys.modules.pop("nullhz_stall.huggingface", None)


@pytest.fixture
def run(watchdog, tmp_path):
    (tmp_path / "output").mkdir()
    return Run(watchdog, tmp_path / "output")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
class TestRun:
    def test_phases(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run).train()
        assert run.where("train") == ["STEP"] * 2 * STEPS
        assert run.where("evaluate") == ["EVAL"] * 4
        assert set(run.where("save")) == {"CHECKPOINT"} and run.where("save")

    def test_evaluation_on_start(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run, evaluate_on_start=True).train()
        # The first one is not announced.
        assert run.where("evaluate")[:2] == ["INIT", "EVAL"]
        assert run.where("train") == ["STEP"] * 2 * STEPS

    def test_every_step_beats_and_every_micro_batch_is_progress(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job"), run).train()
        trained = [row for row in run.seen if row[0] == "train"]
        assert [row[2] for row in trained] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        signs = [row[2:] for row in trained]
        assert len(set(signs)) == 2 * STEPS
        assert run.watchdog.page()["step"] == STEPS

    def test_rank_and_clean_end(self, flavour, run):
        flavour.trainer(flavour.StallCallback("job", floor=2.5), run).train()
        assert run.watchdog.registered["rank"] == 0
        assert run.watchdog.registered["name"].rstrip(b"\0") == b"job"
        assert run.watchdog.registered["floor_ms"] == 2500
        assert run.watchdog.left == 1 and not run.watchdog.is_open()

    def test_exception_is_no_clean_end(self, flavour, run):
        def fail(run):
            if run.trained == 5:
                raise RuntimeError("NaN loss")

        run.on_train = fail
        callback = flavour.StallCallback("job")
        with pytest.raises(RuntimeError):
            flavour.trainer(callback, run).train()
        assert run.watchdog.left == 0
        # The next run ends what the process's end would have ended.
        run.on_train = lambda run: None
        flavour.trainer(callback, run).train()
        assert run.watchdog.left == 1 and not run.watchdog.is_open()

    def test_request_is_answered_after_the_save(self, flavour, run):
        acks = []

        def ask(run):
            acks.append(run.watchdog.page()["checkpoint_ack"])
            if run.trained == 1:
                run.watchdog.request(5)

        run.on_train = ask
        flavour.trainer(flavour.StallCallback("job"), run).train()
        assert acks == [0, 0] + [5] * 10
        assert (run.folder / "checkpoint-1").is_dir()
        assert run.where("train") == ["STEP"] * 2 * STEPS

    def test_request_at_an_evaluation(self, flavour, run):
        run.on_train = lambda run: run.watchdog.request(5) if run.trained == 5 else None
        flavour.trainer(flavour.StallCallback("job"), run).train()
        assert (run.folder / "checkpoint-3").is_dir()
        assert set(run.where("save")) == {"CHECKPOINT"}
        assert run.where("evaluate") == ["EVAL"] * 4
        assert run.watchdog.page()["checkpoint_ack"] == 5

    def test_checkpoint_is_synced_before_the_answer(self, flavour, run, monkeypatch):
        acks, fsync = {}, os.fsync

        def recording(descriptor):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            acks[path] = run.watchdog.page()["checkpoint_ack"]
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", recording)
        run.on_train = lambda run: run.watchdog.request(5) if run.trained == 1 else None
        flavour.trainer(flavour.StallCallback("job"), run).train()
        top = f"{run.folder}/checkpoint-1"
        assert acks[top] == 0
        for folder, _, names in os.walk(top):
            for name in names:
                assert acks[f"{folder}/{name}"] == 0

    def test_without_a_watchdog(self, flavour, run):
        callback = flavour.StallCallback("job", device="/nonexistent", missing="ignore")
        flavour.trainer(callback, run).train()
        assert run.trained == 2 * STEPS
        assert run.watchdog.calls == []


@pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}; samples/python/README.md says how"
)
def test_real_trainer_was_there_for_all_of_them():
    assert "transformers" in FLAVOURS


def test_ranks_ask_each_other_when_there_are_several(monkeypatch, run):
    base = types.ModuleType("transformers")
    base.TrainerCallback = type("TrainerCallback", (), {})
    monkeypatch.setitem(sys.modules, "transformers", base)
    monkeypatch.delitem(sys.modules, "nullhz_stall.huggingface", raising=False)
    module = importlib.import_module("nullhz_stall.huggingface")
    asked = []
    monkeypatch.setattr(module, "any_rank", lambda flag: asked.append(flag) or True)
    trainer = DocumentedTrainer(module.StallCallback("job", agree_every=2), run)
    trainer.args.world_size, trainer.args.process_index = 2, 1
    trainer.train()
    sys.modules.pop("nullhz_stall.huggingface", None)
    assert asked == [False] * 3
    assert run.watchdog.registered["rank"] == 1
    saved = sorted(name for name in os.listdir(run.folder) if name.startswith("checkpoint-"))
    assert saved == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert run.watchdog.page()["checkpoint_ack"] == 0
