# SPDX-License-Identifier: GPL-2.0
"""`make demo`, on the kernel under test, as its user runs it."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import URGENT
from nullhz.guest import TOP

pytestmark = pytest.mark.timed
STEPS = """
    power-on boot modules agent armed training
    corrected-1 corrected-2 machine-check imminent checkpoint snapshot goes-on
    panic reset reboot last-words resumed
    hang suspect stalled stall-snapshot stack no-ack prebite watchdog
    stall-reboot reset-reason resumed-again same-loss
""".split()
TIMED = """
    boot corrected-1 corrected-2 machine-check imminent checkpoint snapshot panic reset
    stalled stall-snapshot prebite watchdog
""".split()


def demo(flavour, out, *options):
    command = [sys.executable, TOP / "scripts/demo", "--flavour", flavour, "--out", out, *options]
    environment = {**os.environ, "NULLHZ_NICE": str(URGENT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    return done, json.loads(out.read_text())


def test_every_step_of_the_demo_happens(flavour, tmp_path):
    done, result = demo(flavour, tmp_path / "demo.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["ok"]
    assert [step["name"] for step in result["steps"]] == STEPS
    steps = {step["name"]: step for step in result["steps"]}
    for name in TIMED:
        assert steps[name]["latency_ms"] > 0, name
    # What a heartbeat was missing for, and what became of it, in the kernel's own numbers.
    stall = steps["stalled"]["details"]["event"]["stall"]
    assert stall["age_ns"] >= stall["deadline_ns"]
    assert steps["resumed"]["details"]["from_step"] == steps["snapshot"]["details"]["snapshot"]["step"]
    again = steps["resumed-again"]["details"]
    assert again["from_step"] == steps["stall-snapshot"]["details"]["snapshot"]["step"]
    # Compared once more, by somebody else.
    loss = steps["same-loss"]["details"]
    undisturbed = dict(loss["undisturbed"])
    assert len(loss["losses"]) == 3
    for life in loss["losses"]:
        assert life and dict(life) == {step: undisturbed[step] for step, _ in life}
    assert loss["losses"][-1][0][0] == again["from_step"] + 1
    # A person can follow it: one line for each step, in their order.
    lines = [line for line in done.stdout.splitlines() if " s  " in line]
    assert len(lines) >= len(STEPS)
    # And see it.
    texts = "".join(ElementTree.parse(tmp_path / "demo.svg").getroot().itertext())
    for shown in ("boots", "PREBITE", "snapshot on disk", f"all {loss['compared']} losses equal"):
        assert shown in texts, shown


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--append", "nullhz.agent=off"), "the snapshot agent does not run"),
        (("--no-watchdog",), "no hardware watchdog runs"),
    ],
    ids=["no-agent", "no-watchdog"],
)
def test_a_demo_that_lacks_a_part_says_so(flavour, tmp_path, options, problem):
    done, result = demo(flavour, tmp_path / "demo.json", *options)
    assert done.returncode == 1
    assert not result["ok"] and problem in result["problem"]
    assert problem in done.stdout.splitlines()[-1]
