# SPDX-License-Identifier: GPL-2.0
"""soft_inject.py RECORDS - machine checks through the kernel's own handler, with registers that are not real

RECORDS is a list in JSON of {"cpu", "bank", "status", "addr", "misc", "mcgstatus", "ip",
"cs", "flags"}. Each is written to /dev/mcelog, where the module mce-inject takes it. The
last one raises what it says, on its CPU; the ones before are what the others find then.
"""

import ctypes
import json
import os
import sys

U64, U32, U8 = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint8


class Mce(ctypes.Structure):
    """struct mce, <asm/mce.h>."""

    _fields_ = [
        *[(name, U64) for name in ("status", "misc", "addr", "mcgstatus", "ip", "tsc", "time")],
        *[(name, U8) for name in ("cpuvendor", "inject_flags", "severity", "pad")],
        ("cpuid", U32),
        *[(name, U8) for name in ("cs", "bank", "cpu", "finished")],
        *[(name, U32) for name in ("extcpu", "socketid", "apicid")],
        *[(name, U64) for name in ("mcgcap", "synd", "ipid", "ppin")],
        ("microcode", U32),
        ("kflags", U64),
    ]


def main():
    records = json.loads(sys.argv[1])
    os.sched_setaffinity(0, {records[-1]["cpu"]})
    log = os.open("/dev/mcelog", os.O_RDWR)
    for record in records:
        mce = Mce(extcpu=record.pop("cpu"), inject_flags=record.pop("flags"), **record)
        os.write(log, bytes(mce))


main()
