# SPDX-License-Identifier: GPL-2.0
"""reload.py CYCLES [MODULE...]: unloads and loads modules (nullhz_fault and nullhz_mce), in
this order, with the system calls that modprobe makes; ends at the first that fails. A module
that somebody uses is tried again until he does not; prints how often that was so."""

import ctypes
import errno
import os
import subprocess
import sys

SYS_DELETE_MODULE, SYS_FINIT_MODULE = 176, 313

libc = ctypes.CDLL(None, use_errno=True)


def call(what, *arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def unload(name):
    """Returns how often it was in use."""
    tries = 0
    while True:
        try:
            call(f"unload {name}", SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK)
            return tries
        except BlockingIOError as error:
            assert error.errno == errno.EWOULDBLOCK
            tries += 1


def main():
    order = sys.argv[2:] or ("nullhz_fault", "nullhz_mce")
    paths = {name: subprocess.check_output(["modinfo", "-n", name], text=True).strip() for name in order}
    busy = 0
    for _ in range(int(sys.argv[1])):
        for name in reversed(order):
            busy += unload(name)
        for name in order:
            fd = os.open(paths[name], os.O_RDONLY)
            call(f"load {name}", SYS_FINIT_MODULE, fd, b"", 0)
            os.close(fd)
    print(busy)


main()
