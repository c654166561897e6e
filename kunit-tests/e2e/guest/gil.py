# SPDX-License-Identifier: GPL-2.0
"""gil.py RANK DEADLINE_MS: a rank whose interpreter lock is held for 1.5 s by a C library.

Heartbeats come from the main thread; ctypes.PyDLL calls without releasing the lock.
"""

import ctypes
import json
import os
import sys
import threading
import time

import stall


def main():
    device = stall.Device()
    device.register(int(sys.argv[1]), deadline_ms=(0, int(sys.argv[2])))
    page = device.map()
    page.phase = 1
    print(json.dumps({"did": "register", "pid": os.getpid()}), flush=True)
    holder = threading.Thread(target=hold)
    holder.start()
    while holder.is_alive():
        page.step += 1
        time.sleep(0.02)
    # Long enough for the sampler to see that it goes on.
    for _ in range(10):
        page.step += 1
        time.sleep(0.02)
    device.leave()


def hold():
    time.sleep(0.3)
    ctypes.PyDLL(None).usleep(1_500_000)


main()
