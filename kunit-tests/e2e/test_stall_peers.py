# SPDX-License-Identifier: GPL-2.0
"""Whoever feeds a hardware watchdog today goes on doing so: the tools see no difference."""

import re
import time

import pytest
from nullhz import guest
from nullhz.qemu import build_dir
from stalls import SYSFS, fed, hardware, tune, wait_armed

pytestmark = pytest.mark.timed
# A short timeout that each can, s, and how many of them it takes to the reset.
DEVICES = {"i6300esb": (2, 1), "itco": (4, 2)}
CARD_RESET = 32
# The module's own timeout, s.
OURS = 25


@pytest.fixture(scope="module", params=DEVICES)
def node(request, nodes):
    """(node, kind of its hardware watchdog)"""
    before = len(nodes.running)
    vm = nodes.boot(f"peers-{request.param}", append="nullhz.agent=off", watchdog=request.param)
    yield vm, request.param
    nodes.stop(before)


@pytest.fixture(autouse=True)
def kernel_stays_clean(node):
    yield
    node[0].assert_clean()


def device(vm):
    """The hardware watchdog's node: whatever number it has, not the face of nullhz_stall."""
    return f"/dev/watchdog{hardware(vm, 'dev').split(':')[1]}"


def loaded(vm, feed):
    """Loads nullhz_stall; with `feed` it feeds the device, as long as nobody else does."""
    vm.run("modprobe nullhz_stall")
    # The module's own timeout is not the driver's: see whether users get theirs.
    tune(vm, reset=1, feed=int(feed), feed_timeout_s=OURS)
    if feed:
        wait_armed(vm, 1)
    vm.run("sleep 1.2")


def unloaded(vm):
    vm.run("modprobe -r nullhz_stall")


def selftest():
    """The kernel's own test program, from its source."""
    tree = (build_dir() / "kernel" / "test" / "source").resolve()
    return tree / "tools/testing/selftests/watchdog/watchdog-test.c"


# The last one runs until it is interrupted, and stops the watchdog then.
QUESTIONS = (
    *("-i", "-b", "-s", "-T", "-L", "-N", "-n 1", "-n 100000 -N"),
    # While it is disabled the module feeds it, with a timeout of its own: nothing is asked then.
    *("-t 20 -T", "-t 7 -T", "-t 0", "-t 1000000", "-d", "-e -T", "-d -e -t 30 -T", "-t 10 -p 1"),
)


def answers(vm, path):
    """What the tools say, in the order of the questions."""
    program = guest.put_program(vm, "watchdog-test", compiler=guest.CC_LENIENT, source=selftest())
    vm.run(["wdctl", "-s", "30", path])
    got = {}
    for question in QUESTIONS:
        command = ["timeout", "-s", "INT", "0.7", program, "-f", path, *question.split()]
        done = vm.run(command, check=False)
        # Seconds left are a matter of when one asks; each dot is a ping.
        text = re.sub(r"GETTIMELEFT returns \d+", "GETTIMELEFT returns N", done.stdout)
        got[f"watchdog-test {question}"] = (done.rc, re.sub(r"(?m)^\.+$", "pings", text))
    shown = vm.run(["wdctl", path]).stdout
    got["wdctl"] = (0, re.sub(r"(?m)^Timeleft.*\n", "", shown))
    done = vm.run(["wdctl", "-s", "9", path], check=False)
    got["wdctl -s 9"] = (done.rc, done.stdout)
    return got


def test_the_same_answers(node):
    vm, _ = node
    path = device(vm)
    unloaded(vm)
    without = answers(vm, path)
    assert any("Watchdog Ticking Away" in text for _, text in without.values()), without
    for feed in (False, True):
        loaded(vm, feed)
        assert answers(vm, path) == without
    # They all closed it: it is ours again.
    vm.run(f"until [ $(cat {SYSFS}/watchdog_timeout_ms) = {OURS}000 ]; do sleep 0.1; done", 5)


CONFIG = """
watchdog-device = {path}
watchdog-timeout = {timeout}
interval = 1
realtime = no
log-dir = /run/watchdog
"""


def feeder(vm, name, path, timeout):
    """Starts what feeds the device."""
    if name == "busybox":
        command = ["busybox", "watchdog", "-F", "-t", "1000ms", "-T", str(timeout), path]
    else:
        vm.put(CONFIG.format(path=path, timeout=timeout), "/run/watchdog.conf")
        # Forced: an interval of half the timeout is too long for its taste.
        command = ["watchdog", "-F", "-f", "-c", "/run/watchdog.conf"]
    running = vm.spawn(command)
    vm.run(f"until [ $(cat /sys/class/watchdog/{path[5:]}/timeout) = {timeout} ]; do sleep 0.1; done", 10)
    return running


@pytest.mark.parametrize("node", ["i6300esb"], indirect=True)
@pytest.mark.parametrize("name", ["busybox", "watchdog"])
def test_feeders(node, name):
    """Fed in time with the module as without; it takes over when they leave."""
    vm, kind = node
    timeout, factor = DEVICES[kind]
    path = device(vm)
    loaded(vm, True)
    seen = vm.monitor.position
    running = feeder(vm, name, path, timeout)
    time.sleep(timeout * factor + 0.5)
    assert vm.monitor.events(seen) == []
    running.kill(15)
    running.wait()
    # The timeout is again that of before; somebody else feeds.
    time.sleep(timeout * factor + 0.5)
    assert vm.monitor.events(seen) == []
    assert fed(vm) == OURS


def die(vm, kind):
    """Kills who feeds the device: it was not closed with care, so the hardware resets the node."""
    timeout, factor = DEVICES[kind]
    running = feeder(vm, "busybox", device(vm), timeout)
    vm.expect("watchdog did not stop")
    seen = vm.monitor.position
    killed = time.monotonic()
    running.kill(9)
    fired = vm.monitor.wait("WATCHDOG", 30, since=seen)
    assert fired.time - killed < timeout * factor + 3
    vm.wait_boot()
    # The TCO's second expiry leaves no trace that its driver would read.
    assert hardware(vm, "bootstatus") == str(CARD_RESET if kind == "i6300esb" else 0)


@pytest.mark.parametrize("node", ["i6300esb"], indirect=True)
def test_a_feeder_that_dies_without_us(node):
    unloaded(node[0])
    die(*node)


@pytest.mark.parametrize("node", ["i6300esb", pytest.param("itco", marks=pytest.mark.long)], indirect=True)
def test_a_feeder_that_dies(node):
    loaded(node[0], True)
    die(*node)


def test_our_own_face(node):
    """/dev/watchdogN of nullhz_stall: what a rank's stall would do to the node, for wdctl."""
    vm, _ = node
    loaded(vm, True)
    found = vm.run("cd /sys/class/watchdog && grep -l ^nullhz */identity").stdout
    name = found.partition("/")[0]
    shown = vm.run(["wdctl", f"/dev/{name}"]).stdout
    assert "nullhz" in shown
    assert name != "watchdog0", "it is taken for the hardware"
