# SPDX-License-Identifier: GPL-2.0
"""The benchmark prints what it says; figures are not judged here."""

import json
import subprocess
import sys

NAMES = ("heartbeat", "checkpoint_wanted", "ioctl_call", "unix_socket_round_trip")


def test_bench_prints_json():
    command = [sys.executable, "-m", "nullhz_stall.bench", "--quick", "--device", "/nonexistent"]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    output = subprocess.check_output(command, env=environment, text=True, timeout=120)
    figures = json.loads(output)
    assert figures["device"] is None and figures["unit"] == "ns"
    for name in NAMES:
        assert 0 < figures[name]["best"] <= figures[name]["median"]


def test_bench_uses_the_device(watchdog):
    from nullhz_stall import bench

    figures = bench.run(watchdog.path, 7, None, 1)
    assert figures["device"] == watchdog.path
    assert watchdog.registered["rank"] == 7
    assert watchdog.page()["step"] == 123456789
    assert watchdog.left == 1
