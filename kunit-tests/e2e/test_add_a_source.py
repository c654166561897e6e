# SPDX-License-Identifier: GPL-2.0
"""«Add a fault source», drivers/fault/add-a-source.md: does the page tell the truth?

What it tells its reader to write and to type is taken from the page itself, and
so is what the reader is promised to see.
"""

import re
import subprocess

import pytest
from conftest import TOP
from nullhz.qemu import build_dir
from test_shell import Terminal

PAGE = TOP / "drivers/fault/add-a-source.md"
FILE = re.compile(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```$", re.M | re.S)
SESSION = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
HOST, NODE = "$ ", "root@nullhz:~# "
PROMPT = r"root@nullhz:[^#\n]*# "
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
# Of the kernel, and of the agent: "[    7.145684] …", "2026-11-21T01:04:21.617222Z  INFO …".
MESSAGE = re.compile(r"^(\[ *\d+\.\d{6}\]|\S+Z +[A-Z]+) .*\n", re.M)


def steps(text):
    """What to do, in the page's order: (prompt, command, lines promised), or (None, path, content)."""
    for block in re.finditer(f"{FILE.pattern}|{SESSION.pattern}", text, re.M | re.S):
        path, content, session = block.groups()
        if path:
            yield None, path, content
            continue
        for part in re.split(rf"^(?={re.escape(HOST)}|{re.escape(NODE)})", session, flags=re.M)[1:]:
            first, *promised = part.rstrip("\n").split("\n")
            prompt = NODE if first.startswith(NODE) else HOST
            yield prompt, first.removeprefix(prompt), promised


def kept(promised, seen):
    """Whether output is what the page says; … stands for anything, also for lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in promised
    )
    return re.fullmatch(pattern, seen)


@pytest.fixture
def copy(tmp_path):
    """Makes of a command one that runs in a copy of this repository, which goes with the test.

    The copy lies over the repository, for the command alone: all paths are the same, and
    what is built already is not built again.
    """
    mounts = []
    for number, folder in enumerate(dict.fromkeys((TOP, build_dir().resolve()))):
        upper, work = tmp_path / f"upper{number}", tmp_path / f"work{number}"
        upper.mkdir()
        work.mkdir()
        layers = f"lowerdir={folder},upperdir={upper},workdir={work}"
        mounts.append(f"mount -t overlay overlay -o {layers} {folder}")
        if build_dir().resolve().is_relative_to(TOP):
            break
    mount = " && ".join(mounts)
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lays no file system over another")
    return lambda command: ["unshare", "--mount", "sh", "-c", f"{mount} && cd {TOP} && {command}"]


@pytest.fixture
def session(copy):
    """Runs the page's commands: on this machine, and on the node once it is there."""
    opened = []

    def run(prompt, command):
        if prompt == HOST and command != "make shell":
            done = subprocess.run(copy(command), capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done
            return done.stdout
        if prompt == HOST:
            opened.append(Terminal(copy(command)))
            return seen(opened[-1].expect(PROMPT, 600))
        opened[-1].type(f"{command}\r")
        if command == "poweroff":
            assert opened[-1].process.wait(60) == 0
            return ""
        # What was typed comes back, too.
        return seen(opened[-1].expect(PROMPT, 90)).partition("\n")[2]

    yield run
    for terminal in opened:
        terminal.close()


def seen(text):
    """What a person takes for the output: no control sequences, no messages."""
    return MESSAGE.sub("", CONTROL.sub("", text).replace("\r", ""))


@pytest.mark.long
def test_the_page_keeps_its_promises(copy, session, monkeypatch, flavour):
    # So wide that no line that is typed wraps.
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("O", str(build_dir()))
    # A kernel that is there.
    monkeypatch.setenv("FLAVOUR", flavour)
    done = []
    for prompt, what, promised in steps(PAGE.read_text()):
        done.append(what)
        if prompt is None:
            write = f"cat > {what}"
            subprocess.run(copy(write), input=promised, text=True, check=True)
            continue
        output = session(prompt, what)
        assert kept(promised, output), f"{prompt}{what}\n{output}\nand not as the page says:\n{promised}"
    assert "make shell" in done and done[-1] == "poweroff", "not all of the page was found"
    assert not (TOP / "samples/fan").exists()


@pytest.mark.parametrize(
    ("promised", "output", "right"),
    [
        (["a … c"], "a b c\n", True),
        (["a … c"], "a b d\n", False),
        (["…", "b"], "x\ny\nb\n", True),
        (["…", "b"], "b\n", True),
        (["…", "b"], "b\nc\n", False),
        ([], "error\n", False),
        (["a"], "", False),
    ],
)
def test_promises_can_be_broken(promised, output, right):
    assert bool(kept(promised, output)) == right
