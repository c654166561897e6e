# SPDX-License-Identifier: GPL-2.0
"""A nullhz node in a virtual machine.

    with VM(flavour="test") as vm:
        print(vm.run("uname -r").stdout)
        vm.mce(0, 5, 0xBD000000000000C0, mcgstatus=5, addr=0x1000, misc=0x8C, broadcast=True)
        vm.wait_log("Machine check events logged")
        vm.assert_clean()

Times are the host's time.monotonic() in seconds, so that console lines, QEMU's
events and the caller's own marks can be compared.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import lapic, splat
from .channel import Channel, Result
from .console import Console
from .errors import BootError, CommandError, KernelBug, NodeError, SetupError, TimedOut
from .monitor import Monitor
from .qemu import Config

__all__ = ["VM", "Result"]


def copy_sparse(source, target):
    """Copies the image of a disk, the blocks that were ever written."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def renice_session(pid, nice):
    """Sets the priority of a process's session, where Linux shares the CPUs between sessions."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class VM:
    """Runs from `with` (or start()) to the end of the block (or stop()).

    Start it in a thread that lives as long as the node: the kernel ends QEMU
    when that thread ends, so that no way of dying leaves one running.
    """

    def __init__(
        self, config=None, *, log=None, lifetime=900, boot_timeout=120, nice=None, saved=None, **options
    ):
        """`options` are those of Config; its patience multiplies all times of waiting.

        `log`: file for the console; `lifetime`: QEMU is killed after this many seconds,
        whatever happens; `nice`: its priority, as that of nice(1), a negative one for root
        (default: NULLHZ_NICE of the environment, or 0); `saved`: a folder that save() of a
        node with the same Config wrote: this one goes on from there.
        """
        self.config = config or Config(**options)
        self.patience = self.config.patience
        self.boot_timeout = boot_timeout * self.patience
        self._lifetime = lifetime * self.patience
        self._nice = int(os.environ.get("NULLHZ_NICE", 0)) if nice is None else nice
        self._saved = saved
        self._log = log
        self._process = None
        self._monitor = None
        self._channel = None
        self._expected = []
        self._expected_taints = set()
        self._boots = 0
        self.console = None
        self.overdue = False
        # What callers know to be in the node's memory; a boot empties it.
        self.files = {}

    # --- Life ----------------------------------------------------------------

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self, wait=True):
        """Powers the node on and, unless told otherwise, waits until it answers."""
        self._run_dir = Path(tempfile.mkdtemp(prefix="nullhz-vm-"))
        try:
            self._launch()
            if wait:
                self.wait_boot()
        except BaseException:
            self.stop()
            raise
        return self

    def _launch(self):
        if not shutil.which("setpriv"):
            raise SetupError("setpriv (util-linux) is not installed")
        checkpoint = self.config.checkpoint_file
        if checkpoint is None and self.config.checkpoint:
            checkpoint = self._run_dir / "checkpoint.img"
        if checkpoint and self._saved:
            copy_sparse(self._saved / "checkpoint.img", checkpoint)
        elif checkpoint and not checkpoint.exists():
            with open(checkpoint, "wb") as image:
                image.truncate(self.config.checkpoint << 20)
        self._checkpoint = checkpoint
        self.log = Path(self._log or self._run_dir / "console.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._errors = open(self._run_dir / "qemu.log", "w+", encoding="utf-8", errors="replace")
        state = self._saved and self._saved / "state"
        command = self.config.command(self._run_dir, checkpoint, state)
        self._process = subprocess.Popen(
            ["nice", "-n", str(self._nice), "setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Ctrl-C is for us; stop() ends QEMU.
            start_new_session=True,
        )
        self._timer = threading.Timer(self._lifetime, self._end_of_life)
        self._timer.daemon = True
        self._timer.start()
        self.started = time.monotonic()
        renice_session(self._process.pid, self._nice)
        earlier = (self._saved / "console").read_text().splitlines() if self._saved else ()
        self.console = Console(self._process.stdout, self.log, self.started, earlier)
        try:
            self._connect()
        except (OSError, NodeError) as error:
            # QEMU opens its sockets before it looks at kernel and devices.
            time.sleep(0.2)
            if self.alive:
                raise
            raise BootError(f"QEMU did not start: {self._qemu_messages()}") from error

    def _connect(self):
        end = time.monotonic() + 20
        while not (self._run_dir / "qmp").exists() or not (self._run_dir / "shell").exists():
            if not self.alive or time.monotonic() > end:
                raise BootError("QEMU offers no monitor")
            time.sleep(0.01)
        self._channel = Channel(str(self._run_dir / "shell"), self.patience)
        self._monitor = Monitor(str(self._run_dir / "qmp"), self._on_event, self.patience)
        if self.config.is_dilated and not self._saved:
            lapic.tell(self._run_dir / "gdb", self.config.kernel, self.config.per_ns)
        if self._saved:
            while self._monitor.execute("query-status")["status"] == "inmigrate":
                if time.monotonic() > end:
                    raise BootError(f"QEMU does not take the state in {self._saved}")
                time.sleep(0.01)
        self._monitor.execute("cont")
        if self._saved:
            # Its command server has told somebody else that it is up.
            self._channel.send({"op": "hello"})

    def _qemu_messages(self):
        self._errors.seek(0)
        return self._errors.read().strip() or f"exit status {self._process.poll()}"

    def _end_of_life(self):
        self.overdue = True
        self._process.kill()

    def _on_event(self, event):
        # Beside what the node says: who reset it, when.
        self.console.note(f"QEMU: {event.name} {json.dumps(event.data)}")
        if event.name in ("RESET", "SHUTDOWN"):
            self._channel.lost(f"the machine had a {event.name} ({event.data.get('reason', '?')})")

    def cpu_seconds(self):
        """What the machine has taken of the host's CPUs so far; 0 when it is off."""
        if not self.alive:
            return 0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Powers the node off at once, like a pulled plug. Can be repeated."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._timer.cancel()
            if self._monitor:
                self._monitor.close()
            if self._channel:
                self._channel.close()
            self.console.join(5)
            self._process.stdout.close()
            self._errors.close()
            self._process = None
        if self._run_dir:
            shutil.rmtree(self._run_dir, ignore_errors=True)
            self._run_dir = None

    @property
    def alive(self):
        return self._process is not None and self._process.poll() is None

    def wait_boot(self, timeout=None):
        """Waits until the node answers, the first time or after a further
        reboot or reset; returns the time at which it did."""
        timeout = timeout or self.boot_timeout
        since = self._monitor.position

        def resets():
            return sum(event.name == "RESET" for event in self._monitor.events(since))

        # A reset by the guest counts twice: the BIOS makes a second one.
        report = self._channel.wait_boot(self._boots + 1, timeout, lambda: self.alive and resets() < 6)
        if report is None:
            why = f"within {timeout} s"
            if resets() >= 6:
                why = "and is reset again and again"
            elif self.overdue:
                why = f"before the end of its {self._lifetime} s"
            elif not self.alive:
                self.console.join(5)
                why = f"before QEMU ended ({self._qemu_messages()})"
            raise BootError(
                f"boot {self._boots + 1} of {self.config.kernel} did not reach the command "
                f"server {why}; console:\n{self.console.tail(40)}"
            )
        self._boots += 1
        self.files.clear()
        return report[0]

    def wait_end(self, timeout=30):
        """Waits until the machine is off, e.g. after `poweroff` in the node."""
        try:
            self._process.wait(timeout * self.patience)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"the machine is still on after {timeout} s") from error

    def save(self, folder):
        """Writes what the node is at this moment to a new folder; it goes on afterwards."""
        folder.mkdir(parents=True)
        execute = self._monitor.execute
        execute("stop")
        execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        execute("migrate", uri=f"exec:cat > {shlex.quote(str(folder / 'state'))}")
        while (status := execute("query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled"):
                raise NodeError(f"QEMU cannot save the node: {execute('query-migrate')}")
            time.sleep(0.01)
        # Now nobody writes to the disk, and all that was written is in its file.
        if self.config.checkpoint:
            copy_sparse(self._checkpoint, folder / "checkpoint.img")
        (folder / "console").write_text("".join(f"{line.text}\n" for line in self.console.lines()))
        execute("cont")

    def reset(self, wait=True, timeout=None):
        """Presses the reset button: RAM keeps its contents."""
        self._monitor.execute("system_reset")
        if wait:
            self.wait_boot(timeout)

    # --- Commands ------------------------------------------------------------

    def spawn(self, command, *, stdin=b"", timeout=300, env=None, cwd="/", user=None, groups=()):
        """Starts a command and returns at once; see channel.Command for the rest.

        A string goes to sh, a list is run as it is; as root, or as `user` with
        further `groups`. The node kills the command's process group after
        `timeout` seconds (None: never).
        """
        argv = ["sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        if isinstance(stdin, str):
            stdin = stdin.encode()
        return self._channel.start(
            argv, stdin, timeout, env=env or {}, cwd=cwd, user=user, groups=list(groups)
        )

    def run(self, command, timeout=30, *, check=True, **options):
        """Runs a command to its end; returns its Result.

        With `check`, another exit status than 0 raises CommandError.
        """
        running = self.spawn(command, timeout=timeout, **options)
        # The node's own timeout comes first and brings the output with it.
        result = running.wait(timeout + 10)
        if check and result.rc:
            raise CommandError(str(result), result)
        return result

    def put(self, source, path, mode=0o644):
        """Writes bytes, a string, or the file at a Path to a file in the node."""
        if isinstance(source, Path):
            source = source.read_bytes()
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "put", path, f"{mode:o}"], stdin=source)

    def get(self, path):
        """A file of the node as bytes."""
        running = self.spawn(["cat", path])
        result = running.wait()
        if result.rc:
            raise CommandError(str(result), result)
        return running.raw_stdout

    def read(self, path):
        """A small text file of the node, e.g. in /sys, without blanks around it."""
        return self.get(path).decode().strip()

    # --- Hardware ------------------------------------------------------------

    @property
    def monitor(self):
        """QEMU's monitor: execute(), human(), events(), wait()."""
        return self._monitor

    def mce(self, cpu, bank, status, mcgstatus=0, addr=0, misc=0, broadcast=False):
        """Raises a machine check in the machine; returns the time before it.

        A corrected error (no UC in `status`) only lands in the bank: QEMU has
        no CMCI, so the kernel sees it at its next poll (poll_machine_checks).
        """
        # The kernel marks that the hardware reported an error.
        self._expected_taints.add("M")
        flag = "-b " if broadcast else ""
        now = time.monotonic()
        words = " ".join(f"{word:#x}" for word in (status, mcgstatus, addr, misc))
        if message := self._monitor.human(f"mce {flag}{cpu} {bank} {words}").strip():
            raise NodeError(f"QEMU refused the machine check: {message}")
        return now

    def poll_machine_checks(self, seconds=1):
        """Makes every CPU look for corrected errors at this interval."""
        self.run(f"echo {seconds:d} > /sys/devices/system/machinecheck/machinecheck0/check_interval")

    # --- Logs ----------------------------------------------------------------

    def wait_log(self, pattern, timeout=30, since=0):
        """Waits for a console line with `pattern`; returns (Line, Match).

        `since`: an earlier value of `console.position`, to see only newer lines.
        """
        found = self.console.wait(pattern, timeout * self.patience, since)
        if found is None:
            raise TimedOut(f"no {pattern!r} on the console within {timeout} s:\n{self.console.tail()}")
        return found

    def dmesg(self):
        """The kernel's log of this boot, by lines."""
        return self.run(["dmesg"]).stdout.splitlines()

    def splats(self, console_only=False):
        """Reports of kernel bugs, on the console since power-on and in the log
        now, without those that `expect` named."""
        lines = [line.text for line in self.console.lines()] if self.console else []
        if not console_only and self._channel and self._channel.up:
            # Messages below the console's level are only here.
            lines += self.dmesg()
        return splat.find(dict.fromkeys(lines), self._expected)

    def taints(self):
        """The kernel's taint letters, e.g. {"O"}."""
        return splat.taints(int(self.read("/proc/sys/kernel/tainted")))

    def expect(self, *patterns, taints=""):
        """Names what the caller provokes: log lines that match one of
        `patterns` are no splats, and `taints` (letters) may be set."""
        self._expected += patterns
        self._expected_taints |= set(taints)

    def assert_clean(self):
        """Raises KernelBug when the kernel reported one or has an unexpected taint."""
        if found := self.splats():
            raise KernelBug("the kernel reported:\n" + "\n".join(f"  | {line}" for line in found))
        if self._channel and self._channel.up:
            if extra := self.taints() - splat.EXPECTED_TAINTS - self._expected_taints:
                raise KernelBug(f"the kernel is tainted: {''.join(sorted(extra))}")
