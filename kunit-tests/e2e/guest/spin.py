# SPDX-License-Identifier: GPL-2.0
"""spin.py CPU SECONDS [PRIORITY]: keeps a CPU busy at SCHED_FIFO PRIORITY (50), as a
broken real-time program would; prints when it began and ended (monotonic, ns)."""

import json
import os
import sys
import time

cpu, seconds = int(sys.argv[1]), float(sys.argv[2])
priority = int(sys.argv[3]) if len(sys.argv) > 3 else 50
os.sched_setaffinity(0, {cpu})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
begun = time.monotonic_ns()
end = begun + int(seconds * 1e9)
while (now := time.monotonic_ns()) < end:
    pass
print(json.dumps({"cpu": cpu, "begun": begun, "ended": now}))
