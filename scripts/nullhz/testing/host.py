# SPDX-License-Identifier: GPL-2.0
"""Tests on this machine: of the modules' pure logic, of the programs and of the clients."""

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path

from ..guest import TOP
from ..qemu import build_dir
from ..vm import renice_session

# The virtual machines beside go first.
NICE = 5


def run_patiently(command):
    """Runs a command in a session that gives way to others; with its output."""
    command = ["nice", "-n", str(NICE), "setpriv", "--pdeathsig", "KILL", *map(str, command)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as running:
        renice_session(running.pid, NICE)
        output, _ = running.communicate()
        return subprocess.CompletedProcess(command, running.returncode, output)


def host(results, arguments):
    """cargo test of every workspace outside the kernel, pytest of the samples that have some."""
    manifests = [TOP / "kunit-tests" / folder / "Cargo.toml" for folder in ("host", "fuzz")]
    manifests += sorted(TOP.glob("samples/**/Cargo.toml"))
    for manifest in manifests:
        cargo_test(results, manifest)
    for folder in sorted({file.parent for file in TOP.glob("samples/*/tests/test_*.py")}):
        sample_pytest(results, folder)


def cargo_test(results, manifest):
    group = str(manifest.parent.relative_to(TOP))
    command = ["cargo", "test", "--locked", "--workspace", "--no-fail-fast", "--manifest-path", manifest]
    command += ["--target-dir", build_dir() / "cargo"]
    if manifest.is_relative_to(TOP / "samples"):
        command.append("--all-features")
        if mounts_btrfs():
            command += ["--", "--include-ignored"]
    begun = time.monotonic()
    running = run_patiently(command)
    seen, target = 0, "?"
    for line in running.stdout.splitlines():
        if match := re.match(r"\s+(?:Running (?:unittests )?(\S+)|Doc-tests (\S+))", line):
            target = match[1] or f"doc {match[2]}"
        # `[^.]`: not "... " within the name of a panicking test's output.
        if match := re.match(
            r"test (\S.*?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, (.*))?$", line
        ):
            status = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}[match[2]]
            detail = failure_of(match[1], running.stdout) if status == "failed" else match[3] or ""
            results.add("host", group, f"{target}: {match[1]}", status, detail=detail)
            seen += 1
    seconds = time.monotonic() - begun
    results.cost("host", group, seconds)
    if running.returncode and not results.count("failed", "host"):
        results.add("host", group, "cargo test", "failed", seconds, tail(running.stdout))
    elif not seen:
        results.add("host", group, "ran at least one test", "failed", seconds, tail(running.stdout))


def sample_pytest(results, folder):
    """In a process of its own: samples have their own settings and modules."""
    group = str(folder.parent.relative_to(TOP))
    report = build_dir() / "log" / f"pytest-{folder.parent.name}.xml"
    report.unlink(missing_ok=True)
    # A virtual environment with PyTorch and its frameworks, see samples/python/README.md.
    frameworks = os.environ.get("NULLHZ_FRAMEWORKS")
    python = Path(frameworks) / "bin/python" if frameworks else sys.executable
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", folder]
    begun = time.monotonic()
    running = run_patiently(command)
    results.cost("host", group, time.monotonic() - begun)
    cases = list(xml.parse(report).iter("testcase")) if report.exists() else []
    for case in cases:
        status, detail = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                status, detail = "failed", child.text or ""
            elif child.tag == "skipped":
                status, detail = "skipped", child.get("message", "")
        name = f"{case.get('classname').rpartition('tests.')[2]}: {case.get('name')}"
        results.add("host", group, name, status, float(case.get("time")), detail)
    # 5: no tests. What pytest says beyond its tests (a module that does not load) is in no case.
    if running.returncode not in (0, 1) or not cases:
        seconds = time.monotonic() - begun
        results.add("host", group, "pytest", "failed", seconds, tail(running.stdout))


def mounts_btrfs():
    """Whether tests can make and mount BTRFS volumes in files here; else they are skipped."""
    tools = all(map(shutil.which, ("mkfs.btrfs", "modprobe", "losetup")))
    if os.geteuid() or not tools or not Path("/dev/loop-control").exists():
        return False
    subprocess.run(["modprobe", "-q", "btrfs"], check=False)
    return "btrfs" in Path("/proc/filesystems").read_text().split()


def failure_of(name, output):
    """What a failed Rust test printed."""
    match = re.search(
        rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^---- |^failures:)", output, re.M | re.S
    )
    return match[1].strip() if match else ""


def tail(text, count=30):
    return "\n".join(text.splitlines()[-count:])
