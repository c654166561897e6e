# SPDX-License-Identifier: GPL-2.0
"""`make soak`, short; and that its account notices what it is there for."""

import json
import os
import subprocess
import sys

import pytest
from conftest import TOP, URGENT
from nullhz.qemu import build_dir

pytestmark = [pytest.mark.long, pytest.mark.timed]


def soak(flavour, *options):
    """Runs it; returns its exit status, what it printed and what it wrote."""
    command = [sys.executable, TOP / "scripts/soak", "--flavour", flavour, *options]
    environment = {**os.environ, "NULLHZ_NICE": str(URGENT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    return done.returncode, done.stdout + done.stderr, json.loads((build_dir() / "soak.json").read_text())


def test_a_short_soak_is_accounted_for(flavour):
    status, said, result = soak(flavour, "--minutes", "2")
    assert status == 0, said
    assert result["ok"]
    account = result["account"]
    assert account["machine checks made"] > 500 and account["reports made"] > 500
    assert account["snapshots made"] == account["snapshots valid"] > 5
    assert said.splitlines()[-1].startswith("soak: all accounted for")


@pytest.mark.parametrize(
    ("sabotage", "noticed"),
    [("event", "lost, not counted"), ("snapshot", "snapshots that are not valid")],
)
def test_the_account_notices(flavour, sabotage, noticed):
    """One event that the ledger overlooks; one byte of a snapshot that is another."""
    status, said, result = soak(flavour, "--minutes", "0.7", "--sabotage", sabotage)
    assert status == 1, said
    wrong = {name for name in result["must_be_zero"] if result["account"][name]}
    assert wrong == {noticed}, said
    assert result["account"][noticed] == 1
    assert "FAILED" in said.splitlines()[-1]
