# SPDX-License-Identifier: GPL-2.0
"""clock.py jump SECONDS | offset SECONDS | slew PPM: what happens to the clock of a node.

jump: settimeofday(2); offset: adjtimex(2) with ADJ_SETOFFSET; slew: its frequency, up to 500 ppm,
which CLOCK_MONOTONIC follows.
"""

import ctypes
import os
import sys
import time

ADJ_FREQUENCY, ADJ_SETOFFSET, ADJ_NANO = 0x2, 0x100, 0x2000


class Timex(ctypes.Structure):
    _fields_ = [
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in "offset freq maxerror esterror".split()),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in "constant precision tolerance tv_sec tv_nsec tick".split()),
        # The rest is output.
        ("rest", ctypes.c_char * 128),
    ]


def adjtimex(**fields):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(ctypes.byref(Timex(**fields))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main():
    what, amount = sys.argv[1], float(sys.argv[2])
    if what == "jump":
        time.clock_settime(time.CLOCK_REALTIME, time.time() + amount)
    elif what == "offset":
        seconds, fraction = divmod(amount, 1)
        adjtimex(modes=ADJ_SETOFFSET | ADJ_NANO, tv_sec=int(seconds), tv_nsec=int(fraction * 1e9))
    else:
        adjtimex(modes=ADJ_FREQUENCY, freq=int(amount * 65536))


main()
