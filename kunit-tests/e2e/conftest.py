# SPDX-License-Identifier: GPL-2.0
"""Fixtures for tests that run nodes.

Every node that a test boots is looked through for kernel bugs after that
test, and its console is kept in build/log/e2e/.

Marks:
  alone  other nodes beside would change what is measured
  timed  of a file: its scenarios wait for deadlines; at most one such file runs at
         a time, and its nodes go before the others'
  long   repeats at scale what others do: only with `make test-long`
  exact  what is asserted holds on the slowest machine too: a failure counts, whatever
         a second run says
  debug  needs the debug kernel: only with `make test-debug`
"""

import contextlib
import fcntl
import hashlib
import re
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "scripts"))

from nullhz import guest  # noqa: E402
from nullhz.errors import KernelBug, NodeError  # noqa: E402
from nullhz.qemu import FLAVOURS, Config, build_dir, version  # noqa: E402
from nullhz.vm import VM  # noqa: E402

# How far nodes go before others whose scenarios have deadlines of their own.
URGENT = -8


def pytest_addoption(parser):
    parser.addoption("--flavour", choices=FLAVOURS, default="test", help="kernel of the nodes")
    parser.addoption("--saved", type=Path, help="folder of nodes that have booted; default: each boots")


def pytest_configure(config):
    if not config.pluginmanager.has_plugin("terminalreporter"):
        # scripts/test prints failures, and takes no option for that.
        config.option.tbstyle = "short"
    for mark in re.findall(r"^  (\w+)  ", __doc__, re.M):
        config.addinivalue_line("markers", f"{mark}: see conftest.py")


def pytest_collection_modifyitems(config, items):
    """What a kernel with sanitizers cannot tell anything about is skipped there."""
    if config.getoption("flavour") != "debug":
        return
    for item in items:
        if not {"boot", "shared_node", "flavour"} & set(item.fixturenames):
            item.add_marker(pytest.mark.skip(reason="nothing of it runs in a node"))
        elif item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.skip(reason="it would measure the sanitizers"))


def pytest_report_header(config):
    qemu = ".".join(map(str, version()))
    return f"nodes: {config.getoption('flavour')} kernel, QEMU {qemu}"


@pytest.fixture(scope="session")
def flavour(request):
    return request.config.getoption("flavour")


class Nodes:
    """Boots nodes and keeps those that run."""

    def __init__(self, config):
        self.flavour = config.getoption("flavour")
        self.saved = config.getoption("saved")
        self.running = []
        # The test that runs: what its nodes cost is added to it.
        self.item = None

    def boot(self, name, expect=(), fresh=False, lifetime=900, **options):
        """A node that is up, for `lifetime` s; `fresh`: none that goes on from another's boot."""
        options.setdefault("flavour", self.flavour)
        config = Config(**options)
        stem = re.sub(r"\W+", "-", name).strip("-")
        log = build_dir() / "log" / "e2e" / f"{stem}-{len(self.running)}.log"
        urgent = any(map(self.item.get_closest_marker, ("timed", "alone")))
        # Seconds on an idle machine; a node that cannot boot is seen at once.
        settings = {"log": log, "boot_timeout": 300, "nice": URGENT if urgent else 0, "lifetime": lifetime}
        begun = time.monotonic()
        with self._place(config, fresh) as place:
            if booted := place is None or not place.exists():
                vm = VM(config, **settings)
            else:
                vm = VM(config, saved=place, **settings)
            vm.expect(*expect)
            self.running.append(vm)
            vm.start()
            if booted and place:
                vm.save(place)
        self.note("boots" if booted else "resumed", 1)
        self.note("boot_s", time.monotonic() - begun)
        return vm

    @contextlib.contextmanager
    def _place(self, config, fresh):
        """Where a node of this kind is kept as it was when it had booted; None: nowhere.

        Two that are the first to need one: the second waits for the first.
        """
        plain = not (config.erst or config.checkpoint_file or config.devices)
        if self.saved is None or fresh or not plain:
            yield None
            return
        self.saved.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(repr(config).encode()).hexdigest()[:16]
        with open(self.saved / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            place = self.saved / name
            if place.exists():
                fcntl.flock(lock, fcntl.LOCK_UN)
            yield place

    def note(self, name, value):
        self.item.user_properties.append((name, value))

    def stop(self, since=0):
        """Stops the nodes from number `since` on."""
        while len(self.running) > since:
            vm = self.running.pop()
            self.note("cpu_s", vm.cpu_seconds())
            vm.stop()

    def kernel_bugs(self):
        """Reports of bugs on the consoles of the nodes that run."""
        return [line for vm in self.running for line in vm.splats(console_only=True)]


NODES = pytest.StashKey()


def pytest_sessionstart(session):
    session.config.stash[NODES] = Nodes(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.config.stash[NODES].item = item


def is_kernel_bug(error):
    return isinstance(error, KernelBug) or any(map(is_kernel_bug, getattr(error, "exceptions", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Says of a failure whether a second run may take it back."""
    report = yield
    if report.failed:
        exact = item.get_closest_marker("exact")
        if exact or is_kernel_bug(call.excinfo.value) or item.config.stash[NODES].kernel_bugs():
            report.user_properties.append(("final", True))
    return report


@pytest.fixture(scope="session")
def nodes(request):
    nodes = request.config.stash[NODES]
    yield nodes
    nodes.stop()


@pytest.fixture
def boot(request, nodes):
    """boot(**options of Config) powers a node on; it goes with the test.

    `expect`: log lines of the boot itself that are no splats here.
    """
    before = len(nodes.running)
    yield lambda **options: nodes.boot(request.node.name, **options)
    nodes.stop(before)


@pytest.fixture(scope="module")
def shared_node(request, nodes):
    """One node for all tests of a file, for those that leave it as it was.

    A file's NODE has the options of its node.
    """
    before = len(nodes.running)
    vm = nodes.boot(Path(request.node.name).stem, **getattr(request.module, "NODE", {}))
    yield vm
    leaked = guest.leaks(vm) if nodes.flavour == "debug" and vm.alive else ""
    nodes.stop(before)
    assert leaked == ""


@pytest.fixture(autouse=True)
def kernel_is_clean(request):
    """After every test: no kernel bug in the log of any node that it had."""
    if not {"boot", "shared_node"} & set(request.fixturenames):
        yield
        return
    nodes = request.getfixturevalue("nodes")
    # Set up before `boot`, so that this would be torn down after it; asking
    # for it here turns the order round.
    for name in ("boot", "shared_node"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    yield
    for vm in nodes.running:
        try:
            vm.assert_clean()
        except NodeError as error:
            pytest.fail(f"the node's log cannot be read: {error}")
