# SPDX-License-Identifier: GPL-2.0
"""reload.py CYCLES: unloads and loads nullhz_mce and nullhz_fault, with the system
calls that modprobe makes; ends at the first that fails."""

import ctypes
import os
import subprocess
import sys

SYS_DELETE_MODULE, SYS_FINIT_MODULE = 176, 313

libc = ctypes.CDLL(None, use_errno=True)


def call(what, *arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def main():
    order = ("nullhz_fault", "nullhz_mce")
    paths = {name: subprocess.check_output(["modinfo", "-n", name], text=True).strip() for name in order}
    for _ in range(int(sys.argv[1])):
        for name in reversed(order):
            call(f"unload {name}", SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK)
        for name in order:
            fd = os.open(paths[name], os.O_RDONLY)
            call(f"load {name}", SYS_FINIT_MODULE, fd, b"", 0)
            os.close(fd)


main()
