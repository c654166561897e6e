# SPDX-License-Identifier: GPL-2.0
"""Scenarios in virtual machines (pytest).

Two run at a time, file by file; what waits for deadlines never beside its like, what
measures a quiet node alone, at the end (the marks of kunit-tests/e2e/conftest.py).

A node boots once for each kind of node that the scenarios want; they go on from there
in copies of it.

A scenario that fails is run once more, alone and on a node that boots for it: an
emulated machine on a busy host misses deadlines that no hardware would. That is told
apart in the results, and never for reports of the kernel or for exact counts. On the
debug kernel, which is slower by far, scenarios with deadlines are for those reports: if
one fails otherwise, it is skipped.
"""

import re
import shutil
from pathlib import Path

import pytest
from pytest import ExitCode
from xdist.scheduler import LoadFileScheduling

from ..guest import TOP
from ..qemu import build_dir

WORKERS = 2
# When more fail, it is not the machine.
SECOND_TRIES = 12
# What a test has to say even if it passes, by record_property().
TOLD = "told"


def is_timed(path):
    """Whether a file's scenarios wait for deadlines."""
    return bool(re.search(r"^pytestmark = .*\btimed\b", path.read_text(), re.M))


class TimedApart(LoadFileScheduling):
    """Hands out files so that at most one of those that are `timed` runs at a time."""

    def __init__(self, config, log):
        super().__init__(config, log)
        self.timed = {}

    def _is_timed(self, scope):
        if scope not in self.timed:
            self.timed[scope] = is_timed(self.config.rootpath / scope)
        return self.timed[scope]

    def _assign_work_unit(self, node):
        others = (work for other, work in self.assigned_work.items() if other is not node)
        running = [scope for work in others for scope, tests in work.items() if not all(tests.values())]
        wanted = not any(map(self._is_timed, running))
        scope = next((scope for scope in self.workqueue if self._is_timed(scope) == wanted), None)
        if scope:
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)


class Rows:
    """A pytest plugin that reports to Results."""

    def __init__(self, results, only=None):
        self.results = results
        self.only = only
        self.seconds = {}

    def pytest_xdist_make_scheduler(self, config, log):
        return TimedApart(config, log)

    def pytest_collection_modifyitems(self, config, items):
        if self.only:
            items[:] = [item for item in items if item.nodeid == self.only]

    def pytest_runtest_logreport(self, report):
        seconds = self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        path, _, name = report.nodeid.partition("::")
        # What nodes cost is known when they have gone.
        notes = report.user_properties if report.when == "teardown" else ()
        notes = [(name, value) for name, value in notes if name != TOLD]
        self.results.cost("e2e", Path(path).stem, report.duration, notes)
        if report.when == "teardown" and report.passed or report.when == "setup" and report.passed:
            return
        if report.when == "teardown":
            name += " (afterwards)"
        told = dict(report.user_properties).get(TOLD, "")
        detail = told if report.passed else report.longreprtext
        if report.skipped and isinstance(report.longrepr, tuple):
            detail = report.longrepr[2]
        final = report.failed and dict(report.user_properties).get("final", False)
        more = {"node": report.nodeid, "final": final}
        self.results.add("e2e", Path(path).stem, name, report.outcome, seconds, detail, more)

    def pytest_collectreport(self, report):
        if report.failed:
            self.results.add("e2e", report.nodeid, "collection", "failed", detail=report.longreprtext)


def e2e(results, arguments):
    """pytest, with its own output replaced by our rows."""
    saved = build_dir() / "e2e" / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    common = ["-p", "no:terminal", "-p", "no:cacheprovider", "--rootdir", str(TOP)]
    common += ["--flavour", arguments.flavour]
    files = arguments.files or [str(TOP / "kunit-tests/e2e")]

    debug = arguments.flavour == "debug"

    def run(marks, *options, only=None):
        if not debug and not only:
            marks += " and not debug"
        if arguments.keyword:
            options += ("-k", arguments.keyword)
        ended = pytest.main([*common, "-m", marks, *options, *files], plugins=[Rows(results, only)])
        if ended not in (ExitCode.OK, ExitCode.TESTS_FAILED, ExitCode.NO_TESTS_COLLECTED):
            detail = "what it said is above the first row, or on standard error"
            results.add("e2e", "pytest", f"{marks or only}: ran to its end", "failed", detail=detail)

    together = ("-n", str(WORKERS), "--dist", "loadfile", "--no-loadscope-reorder")
    if arguments.long:
        run("long", "--saved", str(saved))
    else:
        run("not alone and not long", "--saved", str(saved), *together)
        run("alone and not long", "--saved", str(saved))
    shutil.rmtree(saved, ignore_errors=True)
    if debug:
        for node in results.failed_nodes():
            if is_timed(TOP / node.partition("::")[0]):
                results.excuse(node, "a kernel with sanitizers is too slow for its deadlines")
    failed = results.failed_nodes()
    if len(failed) <= SECOND_TRIES:
        for node in failed:
            with results.second_try(node):
                run("", only=node)
