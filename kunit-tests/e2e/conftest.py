# SPDX-License-Identifier: GPL-2.0
"""Fixtures for tests that run nodes.

Every node that a test boots is looked through for kernel bugs after that
test, and its console is kept in build/log/e2e/.
"""

import re
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "scripts"))

from nullhz.errors import NodeError  # noqa: E402
from nullhz.qemu import FLAVOURS, build_dir, version  # noqa: E402
from nullhz.vm import VM  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--flavour", choices=FLAVOURS, default="test", help="kernel of the nodes")


def pytest_report_header(config):
    qemu = ".".join(map(str, version()))
    return f"nodes: {config.getoption('flavour')} kernel, QEMU {qemu}"


@pytest.fixture(scope="session")
def flavour(request):
    return request.config.getoption("flavour")


class Nodes:
    """Boots nodes and keeps those that run."""

    def __init__(self, flavour):
        self.flavour = flavour
        self.running = []

    def boot(self, name, expect=(), **options):
        options.setdefault("flavour", self.flavour)
        stem = re.sub(r"\W+", "-", name).strip("-")
        log = build_dir() / "log" / "e2e" / f"{stem}-{len(self.running)}.log"
        # Seconds on an idle machine; a node that cannot boot is seen at once.
        vm = VM(log=log, boot_timeout=300, **options)
        vm.expect(*expect)
        self.running.append(vm)
        return vm.start()

    def stop(self, since=0):
        """Stops the nodes from number `since` on."""
        while len(self.running) > since:
            self.running.pop().stop()


@pytest.fixture(scope="session")
def nodes(flavour):
    nodes = Nodes(flavour)
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
    yield nodes.boot(Path(request.node.name).stem, **getattr(request.module, "NODE", {}))
    nodes.stop(before)


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
