# SPDX-License-Identifier: GPL-2.0
"""An interactive node: `make shell`, or python -m nullhz.shell [FLAVOUR] [QEMU ARGUMENTS]."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .errors import NodeError, SetupError
from .monitor import Monitor
from .qemu import FLAVOURS, Config

HELP = """\
A nullhz node with the {flavour} kernel starts in this terminal. On it:
  lsmod; dmesg | grep nullhz          what was loaded
  cat /proc/cmdline                   the boot line
  nullhz-agent events --follow        fault events as they come
  btrfs subvolume list /checkpoint    snapshots
Raise a machine check: Ctrl-A C opens QEMU's monitor (again: back), there
  mce -b 0 5 0xbd000000000000c0 5 0x1000 0x8c
  mce 0 8 0x8c00004000010092 0 0x2000 0x86
Leave with `poweroff`, or at once with Ctrl-A X.
"""


def run(config):
    """Runs QEMU in the foreground until the node is off; returns its exit status."""
    run_dir = Path(tempfile.mkdtemp(prefix="nullhz-vm-"))
    try:
        checkpoint = run_dir / "checkpoint.img"
        with open(checkpoint, "wb") as image:
            image.truncate(config.checkpoint << 20)
        command = config.command(run_dir, checkpoint)
        qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])
        try:
            threading.Thread(target=power_on, args=(run_dir, qemu), daemon=True).start()
            return qemu.wait()
        finally:
            qemu.kill()
            qemu.wait()
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def power_on(run_dir, qemu):
    """The machine waits for `cont`, as for every other user of Config."""
    while not (run_dir / "qmp").exists():
        if qemu.poll() is not None:
            return
        time.sleep(0.01)
    monitor = Monitor(str(run_dir / "qmp"))
    monitor.execute("cont")
    monitor.close()


def main():
    parser = argparse.ArgumentParser(prog="make shell", description=__doc__)
    parser.add_argument("flavour", nargs="?", default="nullhz", choices=FLAVOURS)
    parser.add_argument("--cpus", type=int, default=4, help="CPUs, the first two for housekeeping")
    parser.add_argument("--kernel", type=Path, help="vmlinux, instead of the flavour's")
    parser.add_argument("--image", type=Path, help="root file system, instead of the flavour's")
    parser.add_argument("--append", default="", help="added to the boot line")
    options, devices = parser.parse_known_args()
    if not sys.stdin.isatty():
        raise SetupError("a terminal is needed; for scripts there is nullhz.vm")
    # A serial line does not know its terminal. What the kernel does not know
    # of the boot line, it puts into the environment of init.
    size = shutil.get_terminal_size()
    terminal = f"LINES={size.lines} COLUMNS={size.columns} TERM={os.environ.get('TERM', 'linux')}"
    config = Config(
        flavour=options.flavour,
        kernel=options.kernel,
        image=options.image,
        cpus=options.cpus,
        append=f"{terminal} {options.append}",
        devices=devices,
        shell=True,
    )
    print(HELP.format(flavour=options.flavour), flush=True)
    return run(config)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NodeError as error:
        sys.exit(f"nullhz: {error}")
