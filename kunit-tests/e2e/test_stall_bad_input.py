# SPDX-License-Identifier: GPL-2.0
"""Mistakes with the stall watchdog: each gets its error, none does harm."""

import json

import pytest
from mistakes import NUMBERS, assert_shapes, assert_unknown, writable, write
from nullhz import guest
from stalls import SYSFS, ask

NODE = {"append": "nullhz.agent=off", "watchdog": None}
TUNABLES = f"{SYSFS}/tunables"


@pytest.fixture(scope="module")
def answers(shared_node):
    """What guest/stall_bad_input.py got, by mistake."""
    for name in ("bus.py", "mistakes.py", "stall.py"):
        guest.put_script(shared_node, name)
    script = guest.put_script(shared_node, "stall_bad_input.py")
    return json.loads(shared_node.run(["python3", "-S", script]).stdout)


@pytest.mark.parametrize("command", ["info", "register", "grace", "checkpoint", "answers", "rank"])
def test_ioctl_of_another_shape(answers, command):
    assert_shapes(answers, command)


def test_unknown_ioctls(answers):
    assert_unknown(answers)
    assert answers["leave long"] == "EINVAL"


def test_registrations(answers):
    good = ("longest name", "text after the name", "rank max", "warmup max")
    good += ("deadline max", "floor max", "promise")
    bad = ("flags", "flags max", "no name", "endless name", "newline in the name", "UTF-8 in the name")
    bad += ("control in the name", "pad")
    expected = {f"register {name}": "ok" for name in good}
    expected |= {f"register {name}": "EINVAL" for name in bad}
    assert {name: answers[name] for name in expected} == expected


def test_what_comes_at_the_wrong_time(answers):
    expected = {
        "grace of no rank": "EINVAL",
        "leave of no rank": "EINVAL",
        "map no rank": "EINVAL",
        "register twice": "EBUSY",
        "register a rank that is taken": "EEXIST",
        "the same rank of another job": "ok",
        "it leaves": "ok",
        "grace longest": "ok",
        "grace too long": "EINVAL",
        "grace end": "ok",
        "grace pad": "EINVAL",
        "answers never asked": "ENOENT",
        "answers 0": "ENOENT",
        "rank 0": "ok",
        "rank beyond": "ENOENT",
        "rank max": "ENOENT",
        "leave": "ok",
        "leave twice": "EINVAL",
        "rank is free again": "ok",
        "other leaves": "ok",
        "read": "EINVAL",
        "write": "EINVAL",
    }
    assert {name: answers[name] for name in expected} == expected


def test_only_the_nodes_group_registers(shared_node):
    vm = shared_node
    ask(vm, "info")
    vm.run("mkdir -p /tmp/stall && cp /root/e2e/bus.py /root/e2e/stall.py /tmp/stall/")

    def tool(*command, **options):
        command = ["python3", "-S", "/tmp/stall/stall.py", *command]
        return vm.run(command, user="nobody", cwd="/tmp", check=False, **options)

    refused = tool("info")
    assert refused.rc and "PermissionError" in refused.stderr
    assert json.loads(tool("info", groups=["nullhz"]).stdout)["abi_version"] == 1
    refused = tool("checkpoint", groups=["nullhz"])
    assert refused.rc and "Operation not permitted" in refused.stderr


# Writes each line of its input to each of the files, and tells what was taken.
WRITE_ALL = r"""
while IFS= read -r bad; do
	for file; do
		if printf %s "$bad" 2> /dev/null > "$file"; then echo "$file took '$bad'"; fi
	done
done
"""


def test_sysfs_numbers_are_checked(shared_node):
    vm = shared_node
    before = writable(vm, TUNABLES)
    assert len(before) == 21
    files = [f"{TUNABLES}/{name}" for name in before] + [f"{SYSFS}/rearm"]
    # An empty write is no write: the file is not asked.
    bad = [text for text in (*NUMBERS, "4294967295", "kill -9") if text]
    done = vm.run(["bash", "-c", WRITE_ALL, "bash", *files], stdin="".join(f"{text}\n" for text in bad))
    assert done.stdout == ""
    assert writable(vm, TUNABLES) == before
    for name, value in before.items():
        # Its own value is in range.
        assert write(vm, f"{TUNABLES}/{name}", value).rc == 0
    for text in ("0", "2"):
        assert write(vm, f"{SYSFS}/rearm", text).rc


RANGES = {
    "suspect_percent": (10, 100),
    "floor_ms": (50, 3_600_000),
    "bite_ms": (0, 3_600_000),
    "no_ack_ms": (0, 3_600_000),
    "default_ms": (1000, 86_400_000),
    "evidence": (0, 15),
    "reset": (0, 1),
    "budget": (0, 16),
}


@pytest.mark.parametrize("name", RANGES)
def test_sysfs_ranges(shared_node, name):
    vm = shared_node
    path = f"{TUNABLES}/{name}"
    low, high = RANGES[name]
    before = vm.read(path)
    for value, taken in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        assert (write(vm, path, value).rc == 0) == taken, (name, value)
        assert vm.read(path) == str(value if taken else high)
    write(vm, path, before)


def test_sysfs_is_not_for_everybody(shared_node):
    vm = shared_node
    for path in (f"{TUNABLES}/reset", f"{SYSFS}/rearm"):
        refused = vm.run(f"echo 1 > {path}", user="nobody", cwd="/tmp", check=False)
        assert refused.rc and "Permission denied" in refused.stderr
    assert vm.run(f"cat {SYSFS}/ranks", user="nobody", cwd="/tmp").stdout.strip().isdigit()


def test_a_32_bit_program_sees_the_same_layouts(shared_node):
    program = guest.put_program(shared_node, "compat", compiler=guest.CC32)
    assert shared_node.run([program], check=False).rc == 0
