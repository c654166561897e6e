# SPDX-License-Identifier: GPL-2.0
"""last_words.py TIMES: nullhz_fault_gen says its last words so many times on CPU 0 and on CPU 1, at once"""

import os
import sys
import time

begin = time.monotonic() + 0.1
other = os.fork()
# Not before the fork: writes by one open file wait for each other.
generator = os.open("/sys/kernel/debug/nullhz_fault_gen/persist", os.O_WRONLY)
os.sched_setaffinity(0, {1 if other else 0})
while time.monotonic() < begin:
    pass
for _ in range(int(sys.argv[1])):
    os.write(generator, b"1")
if other and os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]):
    sys.exit("the other CPU's were refused")
