# SPDX-License-Identifier: GPL-2.0
"""Suites in the kernel: those of kunit-tests/, loaded with modprobe, and those of the
series' abstractions, which ran at boot; results by the kernel's own parser."""

import json
import re
import subprocess
import sys
import time

from .. import splat
from ..errors import NodeError
from ..guest import TOP, leaks
from ..qemu import build_dir
from ..vm import VM

DEBUGFS = "/sys/kernel/debug/kunit"


def kunit(results, arguments):
    """The suites of our modules, and of what the series adds to the kernel crate."""
    tree = (build_dir() / "kernel" / arguments.flavour).resolve()
    parser = tree / "source/tools/testing/kunit/kunit.py"
    log = build_dir() / "log" / "e2e" / "kunit.log"
    # Off by default, so that no other node spends its time on them.
    boot_line = "kunit.enable=1 kunit.autorun=1 nullhz.agent=off"
    begun = time.monotonic()
    with VM(flavour=arguments.flavour, append=boot_line, log=log, boot_timeout=180) as vm:
        node = Kunit(vm, parser, results)
        node.boot_suites()
        node.excuse()
        for module in suite_modules():
            node.module(module)
        if arguments.flavour == "debug":
            node.leaks()
        looked = time.monotonic()
        try:
            vm.assert_clean()
            results.add("kunit", "kernel", "no report of a bug", "passed", time.monotonic() - looked)
        except (AssertionError, NodeError) as error:
            results.add("kunit", "kernel", "no report of a bug", "failed", detail=str(error))
        results.cost("kunit", "suites", time.monotonic() - begun, [("boots", 1), ("cpu_s", vm.cpu_seconds())])


# Tests that Linux 7.3 brings along and that its own sanitizers object to.
AT_FAULT = {
    "spinlock_irq_condvar": "asserts that interrupts are off: a SpinLockIrq leaves them on with PREEMPT_RT",
    "rust_doctest_kernel_sync_lock_spinlock": "takes a lock that sleeps on PREEMPT_RT with interrupts off",
    "rust_doctest_kernel_time_hrtimer": "sets timers up on the stack without saying so",
}


def suite_modules():
    """Modules of suites, as the folders' Kbuild files name them."""
    modules = []
    for kbuild in sorted(TOP.glob("kunit-tests/*_kunit/Kbuild")):
        modules += re.findall(r"^obj-m\s*[+:]?=\s*(\S+)\.o", kbuild.read_text(), re.M)
    return modules


def series_tests():
    """What the series brings along: doctests of files, and suites in files.

    Returns names of doctests without their number, and names of suites.
    """
    doctests, suites = set(), set()
    for patch in (TOP / "kernel-patches/series").read_text().split():
        path, fenced, suite_in_c = None, False, False
        for line in (TOP / "kernel-patches" / patch).read_text(errors="replace").splitlines():
            if match := re.match(r"\+\+\+ b/rust/kernel/(.*)\.rs$", line):
                path, fenced = match[1], False
            elif line.startswith("+++ "):
                path, suite_in_c = None, line.endswith("_kunit.c")
            elif suite_in_c and (match := re.match(r"\+\t\.name = \"(\w+)\",", line)):
                suites.add(match[1])
            elif path and (match := re.match(r"\+\s*//[/!] ```(.*)$", line)):
                fenced = not fenced
                if fenced and not {"ignore", "text", "no_run"} & set(re.split(r"\W+", match[1])):
                    doctests.add("rust_doctest_kernel_" + path.replace("/", "_"))
            elif path and (match := re.match(r"\+.*\bkunit_tests\((\w+)\)", line)):
                suites.add(match[1])
    return doctests, suites


class Kunit:
    """KUnit in a node."""

    def __init__(self, vm, parser, results):
        self.vm = vm
        self.parser = parser
        self.results = results

    def suites(self):
        return set(self.vm.run(f"ls {DEBUGFS} 2>/dev/null || true").stdout.split())

    def parse(self, suite):
        """(name, status) of each test of a suite, by the kernel's own parser."""
        text = self.vm.get(f"{DEBUGFS}/{suite}/results")
        command = [sys.executable, self.parser, "parse", "--json=stdout"]
        done = subprocess.run(command, input=text, capture_output=True)
        output = done.stdout.decode(errors="replace")
        start = output.find("\n{")
        if start < 0:
            return [(suite, "FAIL")], text.decode(errors="replace") + output
        return list(leaves(json.loads(output[start:]))), text.decode(errors="replace")

    def report(self, group, tests, text, keep=lambda name: True):
        """Rows of the tests to keep; the number of them."""
        names = {"PASS": "passed", "SKIP": "skipped"}
        kept = [(name, names.get(status, "failed")) for name, status in tests if keep(name)]
        for name, status in kept:
            detail = failed_lines(text, name) if status == "failed" else ""
            self.results.add("kunit", group, name, status, detail=detail)
        return len(kept)

    def boot_suites(self):
        """Suites that were there before any module of ours."""
        doctests, wanted = series_tests()
        present = self.suites()
        for suite in sorted(wanted):
            tests, text = self.parse(suite) if suite in present else ([], "")
            if not self.report(suite, tests, text):
                self.results.add(
                    "kunit", suite, "ran at boot", "failed", detail="no such suite, or no test in it"
                )
        others, ran = [], set()
        for suite in sorted(present - wanted):
            tests, text = self.parse(suite)
            ours = {name for name, _ in tests if without_number(name) in doctests}
            self.report(suite, tests, text, ours.__contains__)
            others += [(name, status) for name, status in tests if name not in ours]
            ran |= {without_number(name) for name in ours}
        for name in sorted(doctests - ran):
            self.results.add("kunit", "doctests", f"{name}_rs_*", "failed", detail="did not run at boot")
        bad = [name for name, status in others if status not in ("PASS", "SKIP")]
        detail = "\n".join(bad)
        name = f"the kernel crate's {len(others)} other tests"
        self.results.add("kunit", "kernel", name, "failed" if bad else "passed", detail=detail)

    def excuse(self):
        """Tells reports of the debug kernel about tests of AT_FAULT from those about us.

        A report belongs to the test whose verdict is the next one in the log.
        """
        reports = []
        for line in (line.text for line in self.vm.console.lines()):
            if splat.find([line]):
                reports.append(line)
            elif match := re.search(r"\] +(?:not )?ok \d+ (\S+)", line):
                if reason := AT_FAULT.get(without_number(match[1])) if reports else None:
                    self.vm.expect(*map(re.escape, reports), taints="W")
                    detail = f"{reports[0]}\nthe test's own fault: it {reason}"
                    self.results.add("kunit", "kernel", match[1], "skipped", detail=detail)
                reports = []

    def module(self, module):
        """Loads a module of suites and unloads it."""
        before = self.suites()
        begun = time.monotonic()
        loaded = self.vm.run(["modprobe", module], 120, check=False)
        seconds = time.monotonic() - begun
        if loaded.rc:
            self.results.add("kunit", module, "modprobe", "failed", seconds, str(loaded))
            return
        new = sorted(self.suites() - before)
        for suite in new:
            if not self.report(suite, *self.parse(suite)):
                self.results.add("kunit", suite, "has tests", "failed", detail="none ran")
        if not new:
            self.results.add("kunit", module, "has suites", "failed", detail="none appeared in debugfs")
        unloaded = self.vm.run(["modprobe", "-r", module], check=False)
        status = "failed" if unloaded.rc or set(new) & self.suites() else "passed"
        self.results.add("kunit", module, "unloads", status, detail=str(unloaded) if unloaded.rc else "")

    def leaks(self):
        """Unloads all our modules: no memory of theirs is left."""
        begun = time.monotonic()
        self.vm.run("lsmod | awk '/^nullhz_/ { print $1 }' | xargs modprobe -r", 60)
        found = leaks(self.vm)
        status = "failed" if found else "passed"
        seconds = time.monotonic() - begun
        self.results.add("kunit", "kernel", "no memory is leaked", status, seconds, found)


def without_number(name):
    """rust_doctest_kernel_irq_work_rs_0 -> rust_doctest_kernel_irq_work"""
    return re.sub(r"_rs_\d+$", "", name)


def leaves(group):
    for test in group["test_cases"]:
        yield test["name"], test["status"]
    for sub in group["sub_groups"]:
        yield from leaves(sub)


def failed_lines(text, name):
    """What a suite's results say before the verdict on a test."""
    lines = text.splitlines()
    at = next(
        (i for i, line in enumerate(lines) if re.search(rf"not ok \d+ {re.escape(name)}\b", line)), None
    )
    return "\n".join(lines[max(0, at - 12) : at + 1]) if at is not None else ""
