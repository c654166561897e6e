# SPDX-License-Identifier: GPL-2.0
"""feeder.py DEVICE TIMEOUT: opens a watchdog; SIGUSR1: a ping, SIGTERM: closes it with care."""

import fcntl
import signal
import struct
import sys

WDIOC_SETTIMEOUT = 0xC0045706
SIGNALS = {signal.SIGUSR1, signal.SIGTERM}

signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
with open(sys.argv[1], "wb", buffering=0) as device:
    fcntl.ioctl(device, WDIOC_SETTIMEOUT, struct.pack("i", int(sys.argv[2])))
    device.write(b"\0")
    print("pinged", flush=True)
    while signal.sigwait(SIGNALS) == signal.SIGUSR1:
        device.write(b"\0")
    device.write(b"V")
