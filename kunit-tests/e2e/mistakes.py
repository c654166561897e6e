# SPDX-License-Identifier: GPL-2.0
"""What devices and attributes must say to mistakes; guest/mistakes.py makes those with ioctls."""


def assert_shapes(answers, command):
    """An ioctl of another size or direction, or with a bad address, is told so."""
    got = {name: result for name, result in answers.items() if name.startswith(f"{command} ")}
    for what in ("short", "long", "empty", "direction"):
        assert got[f"{command} {what}"] == "EINVAL", got
    for what in ("null", "kernel address", "unmapped"):
        assert got[f"{command} {what}"] == "EFAULT", got


def assert_unknown(answers):
    """There are no other ioctls."""
    got = {name: result for name, result in answers.items() if name.startswith("unknown ")}
    assert len(got) == 5
    assert set(got.values()) == {"ENOTTY"}, got


def writable(vm, directory):
    """Attributes of a directory that can be written, with their values."""
    names = vm.run(f"cd {directory} && find . -maxdepth 1 -type f -perm -200").stdout.split()
    return {
        name: vm.read(f"{directory}/{name}") for name in map(lambda path: path[2:], names) if name != "uevent"
    }


def write(vm, path, text):
    """Writes without a line end; bash tells the error, dash does not."""
    return vm.run(["bash", "-c", 'printf %s "$1" > "$2"', "bash", str(text), path], check=False)


def write_each(vm, path, texts):
    """Writes one after the other; for each, whether it was taken, and what is there after it."""
    script = 'for text in "${@:2}"; do printf %s "$text" > "$1"; echo "$? $(< "$1")"; done 2> /dev/null'
    lines = vm.run(["bash", "-c", script, "bash", path, *texts]).stdout.splitlines()
    told = [line.partition(" ") for line in lines]
    return {text: (rc == "0", value) for text, (rc, _, value) in zip(texts, told, strict=True)}


NUMBERS = ("", "-1", "x", "1x", "99999999999999999999", "4294967296", "0x", "1 2", " ")
