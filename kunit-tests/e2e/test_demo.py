# SPDX-License-Identifier: GPL-2.0
"""`make demo`, on the kernel under test, as its user runs it."""

import json
import subprocess
import sys

from nullhz.guest import TOP


def test_every_step_of_the_demo_happens(flavour, tmp_path):
    out = tmp_path / "demo.json"
    command = [sys.executable, TOP / "scripts/demo", "--flavour", flavour, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["ok"]
    names = [step["name"] for step in result["steps"]]
    assert names == [
        "power-on",
        "boot",
        "modules",
        "agent",
        "training",
        "corrected-1",
        "corrected-2",
        "machine-check",
        "imminent",
        "snapshot",
        "verified",
        "panic",
        "reset",
        "reboot",
        "last-words",
        "restart",
    ]
    times = [step["t_ms"] for step in result["steps"]]
    assert times == sorted(times)
    steps = {step["name"]: step for step in result["steps"]}
    for name in (
        "boot",
        "corrected-1",
        "corrected-2",
        "machine-check",
        "imminent",
        "snapshot",
        "panic",
        "reset",
    ):
        assert steps[name]["latency_ms"] > 0, name
    assert steps["verified"]["details"]["read_only"]
    assert steps["restart"]["details"]["step"] == steps["verified"]["details"]["snapshot_step"]
    # A person can follow it: one line for each step, in their order.
    lines = [line for line in done.stdout.splitlines() if " s  " in line]
    assert len(lines) >= len(names)
