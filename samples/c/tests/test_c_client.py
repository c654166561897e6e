# SPDX-License-Identifier: GPL-2.0
"""The C client, compiled as C99 and as C++17 with all warnings, against a made-up device.

What is real here: the header, the compiler, fork(). What is made up: the device
(heartbeat_cases.c). The example is run without a watchdog, and is killed.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parent
INCLUDES = [f"-I{CLIENT}", f"-I{CLIENT.parents[1]}/drivers/include/uapi"]
COMPILER = os.environ.get("CC", "clang-19")
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow", "-pedantic"]
WRAPS = ["-Wl,--wrap=ioctl,--wrap=mmap"]
CASES = re.findall(r"^\tCASE\((\w+)\),", (HERE / "heartbeat_cases.c").read_text(), re.M)


def compiled(source, target, *options):
    flags = [*WARNINGS, "-O2", "-pthread", *INCLUDES]
    subprocess.run([COMPILER, *options, *flags, "-o", target, source], check=True)
    return target


@pytest.fixture(scope="module", params=["c99", "c++17"])
def program(request, tmp_path_factory):
    target = tmp_path_factory.mktemp("c") / "cases"
    language = "c++" if "++" in request.param else "c"
    return compiled(HERE / "heartbeat_cases.c", target, "-x", language, f"-std={request.param}", *WRAPS)


@pytest.mark.parametrize("case", CASES)
def test_case(program, case, tmp_path):
    done = subprocess.run([program, case, tmp_path / "page"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return compiled(CLIENT / "trainer.c", tmp_path_factory.mktemp("c") / "trainer", "-std=gnu11")


def train(trainer, steps, checkpoint):
    command = [trainer, str(steps), checkpoint]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def test_example_learns_and_resumes_exactly(trainer, tmp_path):
    whole = train(trainer, 5000, tmp_path / "whole")
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", whole)]
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 10
    train(trainer, 2100, tmp_path / "halves")
    rest = train(trainer, 5000, tmp_path / "halves")
    assert "resuming after step 2100\n" in rest
    assert (tmp_path / "halves").read_bytes() == (tmp_path / "whole").read_bytes()


def test_example_survives_sigkill(trainer, tmp_path):
    whole = train(trainer, 40000, tmp_path / "whole")
    training = subprocess.Popen([trainer, "40000", tmp_path / "killed"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    training.send_signal(signal.SIGKILL)
    training.wait()
    rest = train(trainer, 40000, tmp_path / "killed")
    assert "resuming after step" in rest
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert rest.splitlines()[-1] == whole.splitlines()[-1]


def test_bench_prints_json(tmp_path):
    bench = compiled(CLIENT / "heartbeat_bench.c", tmp_path / "bench", "-std=gnu11")
    command = [bench, "--device", tmp_path / "none"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    figures = json.loads(done.stdout)
    assert figures["device"] is None
    for name in ("heartbeat", "checkpoint_wanted", "ioctl_call", "eventfd_write", "unix_socket_round_trip"):
        assert 0 < figures[name]["best"] <= figures[name]["median"]
