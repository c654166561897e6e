# SPDX-License-Identifier: GPL-2.0
"""What each call does to the page and to the device (which is played)."""

import copy
import errno
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings

import pytest

import nullhz_stall
from nullhz_stall import NoWatchdogError, Phase, State, WatchdogError, _abi, register

ABSENT = "/nonexistent/nullhz-stall"


def test_stores_reach_their_place(watchdog):
    with register(7, "job") as heartbeat:
        assert heartbeat.watched
        assert watchdog.page()["phase"] == Phase.INIT
        heartbeat.beat(0x0123456789ABCDEF)
        heartbeat.progress(2**64 - 1)
        heartbeat.phase = Phase.COMM_WAIT
        page = watchdog.page()
        assert page["step"] == 0x0123456789ABCDEF
        assert page["progress"] == 2**64 - 1
        assert page["phase"] == Phase.COMM_WAIT
        assert page["checkpoint_ack"] == 0
        heartbeat.beat(0)
        assert watchdog.page()["step"] == 0


def test_step_may_be_any_integer_type(watchdog):
    class Scalar:
        def __index__(self):
            return 12

    with register(0, "job") as heartbeat:
        heartbeat.beat(Scalar())
        assert watchdog.page()["step"] == 12
        heartbeat.beat(True)
        assert watchdog.page()["step"] == 1


@pytest.mark.parametrize("step", [-1, 2**64])
def test_step_out_of_range(watchdog, step):
    with register(0, "job") as heartbeat:
        heartbeat.beat(5)
        with pytest.raises(ValueError):
            heartbeat.beat(step)
        assert watchdog.page()["step"] == 5


def test_kernel_is_heard(watchdog):
    with register(0, "job") as heartbeat:
        assert (heartbeat.state, heartbeat.incident, heartbeat.deadline) == (State.OK, None, 0)
        watchdog.poke(68, "I", State.STALLED)
        watchdog.poke(72, "Q", 12)
        watchdog.poke(80, "Q", 1_500_000_000)
        assert (heartbeat.state, heartbeat.incident, heartbeat.deadline) == (State.STALLED, 12, 1.5)


def test_request_is_wanted_until_it_is_answered(watchdog):
    with register(0, "job") as heartbeat:
        assert heartbeat.checkpoint_wanted() is None
        watchdog.request(41)
        assert heartbeat.checkpoint_wanted() == 41
        assert heartbeat.checkpoint_wanted() == 41
        heartbeat.checkpoint_done(41)
        assert watchdog.page()["checkpoint_ack"] == 41
        assert heartbeat.checkpoint_wanted() is None


def test_request_during_a_checkpoint_is_another_one(watchdog):
    with register(0, "job") as heartbeat:
        watchdog.request(2**32 - 1)
        first = heartbeat.checkpoint_wanted()
        watchdog.request(1)
        heartbeat.checkpoint_done(first)
        assert heartbeat.checkpoint_wanted() == 1


def test_phases_nest_and_survive_exceptions(watchdog):
    with register(0, "job") as heartbeat:
        heartbeat.phase = Phase.STEP
        with pytest.raises(KeyError), heartbeat.enter(Phase.EVAL):
            with heartbeat.enter(Phase.CHECKPOINT):
                assert watchdog.page()["phase"] == Phase.CHECKPOINT
            assert watchdog.page()["phase"] == Phase.EVAL
            raise KeyError
        assert heartbeat.phase is Phase.STEP
        assert watchdog.page()["phase"] == Phase.STEP


def test_grace_is_in_seconds(watchdog):
    with register(0, "job") as heartbeat:
        heartbeat.grace(1.5)
        with pytest.raises(WatchdogError, match="longer than the module allows") as caught:
            heartbeat.grace(601)
        assert caught.value.errno == errno.EINVAL
        for seconds in (-1, 2**32, float("nan"), float("inf")):
            with pytest.raises(ValueError):
                heartbeat.grace(seconds)
    assert watchdog.calls.count(_abi.IOC_GRACE) == 2


@pytest.mark.parametrize(
    ("seconds", "ms"), [(0, 0), (0.1, 100), (0.3, 300), (0.0001, 1), (1.0005, 1001), (3600, 3600000)]
)
def test_times_are_rounded_up(watchdog, seconds, ms):
    with register(0, "job", floor=seconds):
        assert watchdog.registered["floor_ms"] == ms


def test_options_arrive(watchdog):
    deadlines = {Phase.CHECKPOINT: 90, Phase.INIT: 0.25}
    with register(3, "llm 7b/run-3", deadlines=deadlines, floor=2, warmup=20):
        assert watchdog.registered == {
            "rank": 3,
            "flags": 0,
            "name": b"llm 7b/run-3".ljust(32, b"\0"),
            "d0": 250,
            "d1": 0,
            "d2": 0,
            "d3": 90_000,
            "d4": 0,
            "floor_ms": 2000,
            "warmup": 20,
            "pad": 0,
        }


def test_waits_are_promised_only_when_asked_for(watchdog):
    with register(0, "job", tells_waits=True):
        assert watchdog.registered["flags"] == _abi.TELLS_WAITS == 1
    with register(0, "job"):
        assert watchdog.registered["flags"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "x" * 32},
        {"name": "é"},
        {"name": "a\nb"},
        {"name": "a\0b"},
        {"rank": -1},
        {"rank": 2**32},
        {"warmup": -1},
        {"floor": -0.1},
        {"deadlines": {Phase.STEP: 1e12}},
        {"deadlines": {7: 1}},
        {"missing": "explode"},
    ],
)
def test_bad_options_are_told_before_the_device_is_opened(watchdog, options):
    with pytest.raises(ValueError):
        register(**{"rank": 0, "name": "job", **options})
    assert watchdog.calls == []


def test_longest_name(watchdog):
    with register(0, "x" * 31):
        assert watchdog.registered["name"] == b"x" * 31 + b"\0"


@pytest.mark.parametrize(
    ("environment", "rank", "name"),
    [
        ({}, 0, b"training"),
        ({"RANK": "5", "SLURM_PROCID": "6", "TORCHELASTIC_RUN_ID": "abc"}, 5, b"abc"),
        ({"TORCHELASTIC_RUN_ID": "none"}, 0, b"training"),
        ({"SLURM_PROCID": "6", "SLURM_JOB_NAME": "größer " + "x" * 40}, 6, b"gr??er " + b"x" * 24),
        ({"OMPI_COMM_WORLD_RANK": "2", "NULLHZ_JOB": "n", "SLURM_JOB_NAME": "s"}, 2, b"n"),
        ({"RANK": "what"}, 0, b"training"),
    ],
)
def test_launchers_name_rank_and_job(watchdog, monkeypatch, environment, rank, name):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with register():
        assert watchdog.registered["rank"] == rank
        assert watchdog.registered["name"].rstrip(b"\0") == name


# --- The end of a rank -----------------------------------------------------------


def test_leaving_is_clean_and_happens_once(watchdog):
    heartbeat = register(0, "job")
    heartbeat.beat(1)
    heartbeat.leave()
    assert watchdog.left == 1
    assert not heartbeat.watched and not watchdog.is_open()
    heartbeat.beat(2)
    heartbeat.leave()
    heartbeat.abandon()
    assert watchdog.left == 1
    assert watchdog.page()["step"] == 1


def test_block_that_ends_has_left(watchdog):
    with register(0, "job"):
        pass
    assert watchdog.left == 1 and not watchdog.is_open()


@pytest.mark.parametrize("exception", [KeyError(), SystemExit(1), SystemExit("why"), KeyboardInterrupt()])
def test_block_that_fails_has_crashed(watchdog, exception):
    with pytest.raises(type(exception)), register(0, "job"):
        raise exception
    assert watchdog.left == 0 and not watchdog.is_open()


@pytest.mark.parametrize("exception", [SystemExit(), SystemExit(0)])
def test_exit_without_error_has_left(watchdog, exception):
    with pytest.raises(SystemExit), register(0, "job"):
        raise exception
    assert watchdog.left == 1 and not watchdog.is_open()


def test_abandoned_rank_has_crashed(watchdog):
    heartbeat = register(0, "job")
    heartbeat.abandon()
    assert watchdog.left == 0 and not watchdog.is_open()
    heartbeat.beat(1)


def test_forgotten_rank_is_closed_and_told(watchdog):
    heartbeat = register(0, "job")
    assert heartbeat.watched
    with pytest.warns(ResourceWarning):
        del heartbeat
        gc.collect()
    assert watchdog.left == 0 and not watchdog.is_open()


def test_failing_leave_closes_all_the_same(watchdog):
    heartbeat = register(0, "job")
    watchdog.errors[_abi.IOC_LEAVE] = errno.EIO
    with pytest.raises(WatchdogError, match="leave: Input/output error"):
        heartbeat.leave()
    assert not heartbeat.watched and not watchdog.is_open()


# --- Without a watchdog, or with a bad one ------------------------------------------


def use_all(heartbeat):
    heartbeat.beat(1)
    heartbeat.progress(1)
    heartbeat.phase = Phase.STEP
    assert heartbeat.phase is Phase.STEP
    assert heartbeat.checkpoint_wanted() is None
    heartbeat.grace(1)
    assert (heartbeat.state, heartbeat.incident, heartbeat.deadline) == (State.OK, None, 0)
    heartbeat.leave()
    heartbeat.beat(2)


def test_missing_device_warns_once():
    with pytest.warns(
        UserWarning, match="without a stall watchdog.*is the module nullhz_stall loaded"
    ) as told:
        use_all(register(0, "job", device=ABSENT))
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_all(register(0, "job", device=ABSENT))


def test_missing_device_may_be_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heartbeat = register(0, "job", device=ABSENT, missing="ignore")
    assert not heartbeat.watched
    use_all(heartbeat)


def test_missing_device_may_be_an_error():
    with pytest.raises(NoWatchdogError) as caught:
        register(0, "job", device=ABSENT, missing="error")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.strerror.startswith(f"{ABSENT}: No such file")


def test_device_of_others_is_like_none(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NoWatchdogError, match="in the device's group"):
        register(0, "job", missing="error")
    with pytest.warns(UserWarning, match="in the device's group"):
        register(0, "job")


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/comm"])
def test_other_files_are_not_taken_for_the_device(path):
    with pytest.raises(WatchdogError, match="not a stall watchdog") as caught:
        register(0, "job", device=path, missing="ignore")
    assert not isinstance(caught.value, NoWatchdogError)


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        (_abi.IOC_INFO, errno.ENOTTY, "not a stall watchdog"),
        (_abi.IOC_REGISTER, errno.EEXIST, "rank 4: .*another process has this rank of the job"),
        (_abi.IOC_REGISTER, errno.ENOSPC, "too many ranks"),
        (_abi.IOC_REGISTER, errno.ENOMEM, "rank 4: "),
    ],
)
def test_failures_are_told_and_leave_nothing_open(watchdog, command, error, words):
    watchdog.errors[command] = error
    with pytest.raises(WatchdogError, match=words) as caught:
        register(4, "job", missing="error")
    assert caught.value.errno == error
    assert not watchdog.is_open() and watchdog.left == 0


@pytest.mark.parametrize("error", [errno.EEXIST, errno.ENOSPC])
def test_no_place_for_the_rank_is_like_no_device(watchdog, error):
    """Another job's rank 0 does not end this one's training."""
    watchdog.errors[_abi.IOC_REGISTER] = error
    with pytest.warns(UserWarning, match="without a stall watchdog: rank 4: "):
        use_all(register(4, "job"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use_all(register(4, "job"))
        use_all(register(5, "job", missing="ignore"))
    assert not watchdog.is_open() and watchdog.left == 0


def test_jobs_that_share_a_node_have_each_a_rank_0(watchdog):
    with register(0, "one") as one, register(0, "two") as two:
        assert one.watched and two.watched


def test_another_version_is_refused(watchdog):
    watchdog.version = 2
    with pytest.raises(WatchdogError, match="speaks ABI version 2, this package 1"):
        register(0, "job")
    assert not watchdog.is_open() and _abi.IOC_REGISTER not in watchdog.calls


def test_page_that_cannot_be_mapped(watchdog, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(WatchdogError, match="heartbeat page: Device or resource busy"):
        register(0, "job")
    # Registered for a moment: that was no crash.
    assert not watchdog.is_open() and watchdog.left == 1


# --- Processes and threads ----------------------------------------------------------


def in_child(function):
    """What `function` raised in a child of fork(), as text."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        text = ""
        try:
            function()
        except BaseException as error:
            text = repr(error)
        os.write(theirs, text.encode())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as answer:
        text = answer.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return text


def test_child_does_not_beat_as_its_parent(watchdog):
    def child():
        assert not heartbeat.watched
        assert not watchdog.is_open()
        use_all(heartbeat)
        heartbeat.abandon()

    with register(0, "job") as heartbeat:
        heartbeat.beat(5)
        assert in_child(child) == ""
        assert watchdog.page()["step"] == 5
        assert heartbeat.watched
        heartbeat.beat(6)
        assert watchdog.page()["step"] == 6
    assert watchdog.left == 1


def test_child_may_register_itself(watchdog):
    def child():
        with register(1, "job") as own:
            own.beat(77)
            assert in_child(own.leave) == ""
            assert own.watched
        # What it read at its end, before the parent's own end.
        assert watchdog.left == 1

    with register(0, "job"):
        assert in_child(child) == ""
        assert watchdog.page()["step"] == 77


def test_page_is_not_inherited_whoever_forks(watchdog):
    """Not by children that C code makes either, of which Python knows nothing."""
    with register(0, "job"):
        with open("/proc/self/smaps") as smaps:
            _, ours = smaps.read().split(watchdog.path)
        flags = next(line for line in ours.splitlines() if line.startswith("VmFlags:"))
        assert "dc" in flags.split()


def test_rank_is_free_again_after_its_end(watchdog):
    for end in ("leave", "abandon"):
        heartbeat = register(0, "job")
        with pytest.raises(NoWatchdogError, match="has this rank"):
            register(0, "job", missing="error")
        getattr(heartbeat, end)()
    register(0, "job").leave()


def beat_in_worker(step):
    worker_heartbeat.beat(step)
    return worker_heartbeat.watched


def test_workers_of_a_pool_do_not_beat(watchdog):
    # As DataLoader starts its workers.
    global worker_heartbeat
    with register(0, "job") as worker_heartbeat:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(beat_in_worker, [1, 2, 3]) == [False] * 3
        assert watchdog.page()["step"] == 0


def test_programs_do_not_inherit_the_device(watchdog):
    descriptors = "[os.path.realpath(f'/proc/self/fd/{n}') for n in range(64)]"
    script = f"import os; print({watchdog.path!r} in {descriptors})"
    with register(0, "job"):
        output = subprocess.check_output([sys.executable, "-c", script], close_fds=False, text=True)
    assert output == "False\n"


def test_all_threads_may_beat(watchdog):
    with register(0, "job") as heartbeat:
        thread = threading.Thread(target=heartbeat.progress, args=(9,))
        thread.start()
        thread.join()
        assert watchdog.page()["progress"] == 9


@pytest.mark.parametrize("end", ["leave", "abandon"])
def test_rank_that_ends_during_another_thread_s_beat(watchdog, end):
    class Step:
        """While it is converted, what another thread would do happens."""

        def __index__(self):
            getattr(heartbeat, end)()
            return 7

    heartbeat = register(0, "job")
    heartbeat.beat(Step())
    heartbeat.progress(8)
    assert not heartbeat.watched and not watchdog.is_open()
    assert watchdog.page()["progress"] == 0


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_heartbeat_is_not_copied(watchdog, duplicate):
    with register(0, "job") as heartbeat, pytest.raises(TypeError, match="belongs to one process"):
        duplicate(heartbeat)


def test_all_names_are_there():
    for name in nullhz_stall.__all__:
        assert getattr(nullhz_stall, name)
