# SPDX-License-Identifier: GPL-2.0
"""Mistakes of programs, operators and boot lines: each gets its error, none does harm."""

import json

import pytest
from mistakes import NUMBERS, assert_shapes, assert_unknown, writable, write, write_each
from nullhz import guest
from records import generate

NODE = {"append": "nullhz.agent=off"}
SYSFS = "/sys/class/misc/nullhz-fault"
THRESHOLDS = "/sys/devices/faux/nullhz_mce/thresholds"


@pytest.fixture(scope="module")
def answers(shared_node):
    """What guest/bad_input.py got, by mistake."""
    vm = shared_node
    for name in ("bus.py", "mistakes.py"):
        guest.put_script(vm, name)
    generate(vm, "nullhz_fault_gen", count=4, level="watch")
    script = guest.put_script(vm, "bad_input.py")
    return json.loads(vm.run(["python3", script]).stdout)


@pytest.mark.parametrize("command", ["info", "filter", "seek", "ack", "incident"])
def test_ioctl_of_another_shape(answers, command):
    assert_shapes(answers, command)


def test_unknown_ioctls(answers):
    assert_unknown(answers)


def test_ioctl_fields_out_of_range(answers):
    expected = {
        "filter level 4": "EINVAL",
        "filter level max": "EINVAL",
        "filter no source": "EINVAL",
        "filter pad": "EINVAL",
        "seek whence 3": "EINVAL",
        "seek pad": "EINVAL",
        "seek oldest with seq": "EINVAL",
        "seek newest with seq": "EINVAL",
        "ack pad": "EINVAL",
        "ack positive result": "EINVAL",
        "ack no errno": "EINVAL",
        "ack nothing": "EINVAL",
        "ack unknown": "ENOENT",
        "ack incident 0": "ENOENT",
        "ack incident max": "ENOENT",
        "incident 0": "ENOENT",
        "incident unknown": "ENOENT",
        "incident max": "ENOENT",
        "seek far": "ok",
        "seek zero": "ok",
    }
    assert {name: answers[name] for name in expected} == expected


def test_reads_that_cannot_be(answers):
    expected = {
        "read 0": "EINVAL",
        "read 255": "EINVAL",
        "read to null": "EFAULT",
        "read to kernel": "EFAULT",
        "consumed by failures": "ok",
        "read 384": "ok",
        "read nothing": "EAGAIN",
        "write": "EBADF",
        "write to one open for it": "EINVAL",
        "mmap": "ENODEV",
    }
    assert {name: answers[name] for name in expected} == expected


def test_only_the_nodes_group_reads(shared_node):
    vm = shared_node
    script = guest.put_script(vm, "bus.py")
    vm.run(f"cp {script} /tmp/bus.py")
    command = ["python3", "/tmp/bus.py", "info"]
    refused = vm.run(command, user="nobody", cwd="/tmp", check=False)
    assert refused.rc and "PermissionError" in refused.stderr
    allowed = vm.run(command, user="nobody", groups=["nullhz"], cwd="/tmp")
    assert json.loads(allowed.stdout)["abi_version"] == 1
    reading = ["python3", "/tmp/bus.py", "read", "--count", "1"]
    line = vm.run(reading, user="nobody", groups=["nullhz"], cwd="/tmp").stdout.splitlines()[1]
    assert json.loads(line)["seq"] >= 1


def test_acknowledging_needs_the_capability(shared_node):
    vm = shared_node
    vm.run(f"cp {guest.put_script(vm, 'bus.py')} /tmp/bus.py")
    command = ["python3", "/tmp/bus.py", "ack", "999", "1"]
    refused = vm.run(command, user="nobody", groups=["nullhz"], cwd="/tmp", check=False)
    assert refused.rc and "Operation not permitted" in refused.stderr
    # root gets further: there is no such incident.
    refused = vm.run(command, check=False)
    assert refused.rc and "No such file" in refused.stderr


def test_sysfs_numbers_are_checked(shared_node):
    vm = shared_node
    checked = 0
    for directory in (SYSFS, THRESHOLDS):
        for name, value in writable(vm, directory).items():
            if not value.isdigit():
                continue
            # An empty write is no write: the file is not asked. Its own value is in range.
            expected = {bad: (not bad, value) for bad in NUMBERS} | {value: (True, value)}
            assert write_each(vm, f"{directory}/{name}", list(expected)) == expected, name
            checked += 1
    assert checked == 2 + 11


RANGES = {
    f"{SYSFS}/incident_cooldown_ms": (0, 86_400_000),
    f"{SYSFS}/incident_deadline_ms": (1, 3_600_000),
    f"{THRESHOLDS}/page_errors": (0, 1_000_000),
    f"{THRESHOLDS}/window_s": (1, 31_536_000),
    f"{THRESHOLDS}/escalate_trips": (0, 31),
}


@pytest.mark.parametrize("path", RANGES)
def test_sysfs_ranges(shared_node, path):
    vm = shared_node
    low, high = RANGES[path]
    before = vm.read(path)
    for value, taken in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        done = write(vm, path, value)
        assert (done.rc == 0) == taken, (path, value)
        assert vm.read(path) == str(value if taken else high)
        assert taken or "Numerical result out of range" in done.stderr or low - 1 == value == -1
    write(vm, path, before)


def test_sysfs_is_not_for_everybody(shared_node):
    vm = shared_node
    refused = vm.run(f"echo 5 > {SYSFS}/incident_cooldown_ms", user="nobody", cwd="/tmp", check=False)
    assert refused.rc and "Permission denied" in refused.stderr
    assert vm.run(f"cat {SYSFS}/events_watch", user="nobody", cwd="/tmp").stdout.strip().isdigit()


@pytest.mark.parametrize(
    ("module", "parameter"),
    [
        ("nullhz_fault", "ring_events=63"),
        ("nullhz_fault", "ring_events=0"),
        ("nullhz_fault", "ring_events=100"),
        ("nullhz_fault", "ring_events=131072"),
        ("nullhz_fault", "ring_events=-1"),
        ("nullhz_fault", "ring_events=many"),
    ],
)
def test_module_parameter_out_of_range(shared_node, module, parameter):
    vm = shared_node
    vm.run("modprobe -r nullhz_fault_gen nullhz_stall nullhz_mce nullhz_fault")
    try:
        before = len(vm.dmesg())
        refused = vm.run(["modprobe", module, parameter], check=False)
        assert refused.rc and "Invalid argument" in refused.stderr, refused
        said = [line for line in vm.dmesg()[before:] if module in line]
        name, value = parameter.split("=")
        assert len(said) == 1, said
        assert name in said[0] and value in said[0]
        assert not vm.run(f"lsmod | grep -c '^{module} '", check=False).stdout.strip().strip("0")
    finally:
        vm.run("modprobe nullhz_mce")
