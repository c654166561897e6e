# SPDX-License-Identifier: GPL-2.0
"""Training loops written by hand, sync_tree(), and how ranks agree on checkpoints."""

import os
import warnings

import pytest

from nullhz_stall import Phase, pytorch, register, sync_tree
from nullhz_stall._requests import Requests


@pytest.fixture
def synced(monkeypatch):
    """Paths in the order of their fsync()."""
    paths, fsync = [], os.fsync

    def recording(descriptor):
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    return paths


def test_file_is_synced_and_its_folder(tmp_path, synced):
    (tmp_path / "a").write_text("x")
    sync_tree(tmp_path / "a")
    assert synced == [f"{tmp_path}/a", f"{tmp_path}"]


def test_relative_path_has_a_folder_too(tmp_path, synced, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("x")
    sync_tree("a")
    assert synced == [f"{tmp_path}/a", f"{tmp_path}"]


def test_tree_is_synced_with_all_in_it(tmp_path, synced):
    top = tmp_path / "checkpoint"
    (top / "inner").mkdir(parents=True)
    (top / "a").write_text("x")
    (top / "inner/b").write_text("x")
    (top / "gone").symlink_to("nowhere")
    os.mkfifo(top / "fifo")
    sync_tree(top)
    assert sorted(synced) == sorted(map(str, [top, top / "a", top / "inner", top / "inner/b", tmp_path]))
    assert synced[-1] == str(tmp_path)


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_tree(tmp_path / "none")


# --- Agreement -----------------------------------------------------------------------


def test_alone_every_step_is_asked(watchdog):
    requests = Requests(None, 10)
    with register(0, "job") as heartbeat:
        assert not requests.due(heartbeat)
        watchdog.request(3)
        assert requests.due(heartbeat)
        assert watchdog.page()["checkpoint_ack"] == 0
        requests.done(heartbeat)
        assert watchdog.page()["checkpoint_ack"] == 3
        assert not requests.due(heartbeat)


def test_ranks_ask_each_other_at_the_same_steps(watchdog):
    asked = []

    def any_rank(flag):
        asked.append(flag)
        return flag

    requests = Requests(any_rank, 3)
    with register(0, "job") as heartbeat:
        watchdog.request(3)
        assert [requests.due(heartbeat) for _ in range(7)] == [False, False, True, False, False, True, False]
    assert asked == [True, True]


def test_rank_that_was_not_asked_saves_with_the_others(watchdog):
    requests = Requests(lambda flag: True, 1)
    with register(0, "job") as heartbeat:
        assert requests.due(heartbeat)
        # Comes too late to be meant.
        watchdog.request(4)
        requests.done(heartbeat)
        assert watchdog.page()["checkpoint_ack"] == 0
        assert requests.due(heartbeat)
        requests.done(heartbeat)
        assert watchdog.page()["checkpoint_ack"] == 4


def test_every_is_checked(watchdog):
    with pytest.raises(ValueError):
        Requests(None, 0)
    with pytest.raises(ValueError):
        pytorch.TrainingLoop(agree_every=0)
    assert watchdog.calls == []


# --- TrainingLoop ---------------------------------------------------------------------


def test_each_batch_is_a_step(watchdog):
    with pytorch.TrainingLoop(name="job", rank=2) as loop:
        assert watchdog.page()["phase"] == Phase.INIT
        for batch in loop.steps("abc"):
            page = watchdog.page()
            assert page["phase"] == Phase.STEP
            assert page["step"] == loop.step == "abc".index(batch)
        assert watchdog.page()["step"] == loop.step == 3
    assert watchdog.registered["rank"] == 2
    assert watchdog.left == 1


def test_resumed_run_counts_on(watchdog):
    with pytorch.TrainingLoop() as loop:
        for _ in loop.steps(range(2), start=100):
            pass
        assert watchdog.page()["step"] == 102


def test_phases_of_blocks(watchdog):
    with pytorch.TrainingLoop() as loop:
        for _ in loop.steps(range(1)):
            with loop.evaluation():
                assert watchdog.page()["phase"] == Phase.EVAL
            with loop.waiting():
                assert watchdog.page()["phase"] == Phase.COMM_WAIT
            assert watchdog.page()["phase"] == Phase.STEP


def test_a_loop_promises_nothing(watchdog):
    """It hides waits of its own, and DDP's: marking one tells nothing of the others."""
    with pytorch.TrainingLoop() as loop:
        with loop.waiting():
            pass
        assert watchdog.registered["flags"] == 0
    with pytest.raises(TypeError, match="tells_waits"):
        pytorch.TrainingLoop(tells_waits=True)


@pytest.mark.parametrize("returns", ["path", "paths", "none"])
def test_requested_checkpoint_is_saved_synced_and_answered(watchdog, tmp_path, synced, returns):
    saved = []

    def save(step):
        assert watchdog.page()["phase"] == Phase.CHECKPOINT
        saved.append(step)
        path = tmp_path / str(step)
        path.write_text("x")
        return {"path": path, "paths": [str(path)], "none": None}[returns]

    with pytorch.TrainingLoop(save) as loop:
        for _ in loop.steps(range(5)):
            if loop.step == 2:
                watchdog.request(8)
            if loop.step == 3:
                page = watchdog.page()
                assert page["phase"] == Phase.STEP
                assert page["checkpoint_ack"] == 8
    assert saved == [3]
    assert synced == ([] if returns == "none" else [f"{tmp_path}/3", str(tmp_path)])


def test_failed_save_answers_nothing(watchdog):
    def save(step):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), pytorch.TrainingLoop(save) as loop:
        for _ in loop.steps(range(5)):
            watchdog.request(8)
    assert watchdog.page()["checkpoint_ack"] == 0
    assert watchdog.left == 0 and not watchdog.is_open()


def test_own_checkpoints_answer_nothing_that_was_not_due(watchdog):
    with pytorch.TrainingLoop(lambda step: None) as loop:
        watchdog.request(8)
        loop.checkpoint()
        assert watchdog.page()["checkpoint_ack"] == 0


def test_loop_without_save_leaves_requests_alone(watchdog):
    with pytorch.TrainingLoop() as loop:
        watchdog.request(8)
        for _ in loop.steps(range(3)):
            pass
        with pytest.raises(ValueError):
            loop.checkpoint()
    assert watchdog.page()["checkpoint_ack"] == 0


def test_loop_may_use_a_heartbeat_that_is_there(watchdog):
    with register(5, "job") as heartbeat:
        loop = pytorch.TrainingLoop(heartbeat=heartbeat)
        for _ in loop.steps(range(2)):
            pass
        assert watchdog.page()["step"] == 2
    assert watchdog.left == 1


def test_loop_runs_without_a_watchdog():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytorch.TrainingLoop(lambda step: None, device="/nonexistent", missing="ignore") as loop:
            assert list(loop.steps(range(3))) == [0, 1, 2]


# --- With torch.distributed -------------------------------------------------------------


def rank_of_two(rank, folder, results):
    """One of two processes, of which only rank 1 is asked for a checkpoint."""
    import torch.distributed as dist

    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    page = f"{folder}/page{rank}"
    with register(rank, "job", device=page) as heartbeat:
        saved = []

        def save(step):
            # Collective, as real saving is: alone in here is a deadlock.
            dist.barrier()
            saved.append(step)

        loop = pytorch.TrainingLoop(save, heartbeat=heartbeat, agree_every=4)
        for batch in loop.steps(range(20)):
            if rank == 1 and batch == 5:
                with open(page, "r+b") as file:
                    file.seek(64)
                    file.write((9).to_bytes(4, "little"))
            dist.barrier()
    dist.destroy_process_group()
    results.put((rank, saved))


def test_two_processes_save_at_the_same_step(watchdog, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed; samples/python/README.md says how")
    import multiprocessing

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    for rank in range(2):
        (tmp_path / f"page{rank}").write_bytes(bytes(4096))
    ranks = [context.Process(target=rank_of_two, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in ranks:
        process.start()
    answers = dict(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(30)
    assert answers == {0: [8], 1: [8]}
    acks = [(tmp_path / f"page{rank}").read_bytes()[20] for rank in range(2)]
    assert acks == [0, 9]
