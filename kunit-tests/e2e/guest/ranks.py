# SPDX-License-Identifier: GPL-2.0
"""ranks.py COUNT [fork]: that many ranks, in this process or each in one of its own, that wait."""

import os
import sys
import time

import stall


def register(number):
    device = stall.Device()
    device.register(number, deadline_ms=(3_600_000,) * stall.PHASES)
    return device, device.map()


def main():
    count = int(sys.argv[1])
    if sys.argv[2:] == ["fork"]:
        ready = os.pipe()
        for number in range(count):
            if not os.fork():
                rank = register(number)
                os.write(ready[1], b"x")
                time.sleep(600)
                del rank
        while count:
            count -= len(os.read(ready[0], count))
    else:
        ranks = [register(number) for number in range(count)]
        assert len(ranks) == count
    print("ready", flush=True)
    time.sleep(600)


main()
