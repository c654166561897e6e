# SPDX-License-Identifier: GPL-2.0
"""`make shell`: a person at a terminal."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import TOP


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv):
        self.master, slave = pty.openpty()
        self.text = ""
        environment = dict(os.environ, PYTHONPATH=str(TOP / "scripts"), TERM="xterm")
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def expect(self, pattern, timeout):
        """Waits for `pattern` in what was printed since the last match; returns what came before it."""
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, self.text)):
            left = end - time.monotonic()
            assert left > 0 and select.select([self.master], [], [], left)[0], self.text[-2000:]
            try:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                pytest.fail(f"it ended ({self.process.wait(10)}): {self.text[-2000:]}")
        before, self.text = self.text[: match.start()], self.text[match.end() :]
        return before

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def shell(flavour):
    terminal = Terminal([sys.executable, "-m", "nullhz.shell", flavour])
    yield terminal
    terminal.close()


def test_shell_runs_commands_and_leaves(shell):
    shell.expect("Leave with `poweroff`", 10)
    shell.expect(r"root@nullhz:.*# ", 90)
    shell.type("echo $((6 * 7)) $(tty)\r")
    shell.expect(r"42 /dev/ttyS0", 10)
    shell.type("poweroff\r")
    assert shell.process.wait(30) == 0


def test_leaving_at_once_with_ctrl_a_x(shell):
    shell.expect(r"root@nullhz:.*# ", 90)
    shell.type("\x01x")
    assert shell.process.wait(10) == 0


def test_without_a_terminal(flavour):
    result = subprocess.run(
        [sys.executable, "-m", "nullhz.shell", flavour],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        env=dict(os.environ, PYTHONPATH=str(TOP / "scripts")),
        check=False,
    )
    assert result.returncode == 1
    assert "a terminal is needed" in result.stderr
