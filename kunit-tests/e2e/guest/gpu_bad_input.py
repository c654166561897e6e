# SPDX-License-Identifier: GPL-2.0
"""Everything that a program can get wrong with the software GPU; runs in the node.

Prints one JSON object: for each mistake, what it got (see mistakes.py). Argument:
the device.
"""

import json
import os
import sys
import threading
import time
from functools import partial

import gpu
from gpu import PAGE, Gpu
from mistakes import attempt, each_command, raw_read, results, unknown_commands

MAX32, MAX64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
END = 1 << 47


def call(name, function, **fields):
    """What a call gives; its record is no failure."""
    attempt(name, lambda: function(**fields) and None)


def ranges(device):
    for name, fields in (
        ("unaligned start", {"start": 8 * PAGE + 1, "length": PAGE}),
        ("unaligned length", {"start": 8 * PAGE, "length": PAGE + 1}),
        ("unaligned interval", {"start": 8 * PAGE, "length": PAGE, "interval": 1}),
        ("no length", {"start": 8 * PAGE}),
        ("wrap", {"start": MAX64 - PAGE + 1, "length": 2 * PAGE}),
        ("length max", {"start": PAGE, "length": MAX64 - PAGE + 1}),
        ("kernel", {"start": 0xFFFF888000000000, "length": PAGE}),
        ("beyond the end", {"start": END - PAGE, "length": 2 * PAGE}),
        ("too many intervals", {"start": PAGE, "length": 65537 * PAGE, "interval": PAGE}),
        ("good", {"start": 8 * PAGE, "length": 2 * PAGE}),
        ("the same", {"start": 8 * PAGE, "length": 2 * PAGE}),
        ("overlap", {"start": 9 * PAGE, "length": 2 * PAGE}),
        ("next to it", {"start": 10 * PAGE, "length": PAGE}),
    ):
        call(f"register {name}", device.register, **fields)


def pages(device):
    """What takes pages, with pages that are none."""
    page = gpu.memory(1)
    table = gpu.memory(1)
    good = {"start": page, "stride": PAGE, "count": 1}
    for name, fields in (
        ("unaligned start", {"start": page + 1}),
        ("unaligned stride", {"stride": PAGE + 1}),
        ("no stride", {"stride": 0, "count": 2}),
        ("wrap", {"count": MAX64}),
    ):
        call(f"prefetch {name}", device.prefetch, **{**good, **fields})
        call(f"oracle {name}", device.oracle, **{**good, "table": table, **fields})
        call(f"run {name}", device.run, **{**good, "accesses": 1, **fields})
    call("prefetch flags", device.prefetch, **good, flags=0x80)
    call("prefetch pad", device.prefetch, **good, pad=1)
    call("oracle no table", device.oracle, **good)
    call("oracle unaligned table", device.oracle, **good, table=table + 4)
    call("oracle too large", device.oracle, start=page, stride=PAGE, count=16385 * 512, table=table)
    call("oracle unmapped table", device.oracle, **good, table=8 * PAGE)
    call("oracle kernel's table", device.oracle, **good, table=0xFFFF888000000000)
    call("run no pages", device.run, start=page, stride=PAGE, accesses=1)
    call("run no such CPU", device.run, **good, cpu=MAX32)
    call("run flags", device.run, **good, flags=0x80)
    call("access unaligned", device.access, address=page + 1)
    call("access no such CPU", device.access, address=page, cpu=MAX32)
    call("access flags", device.access, address=page, flags=0x80)
    call("stop no such run", device.stop, run=12345)
    call("stop flags", device.stop, run=1, flags=0x80)


def outcomes(device):
    """Accesses that are refused are no errors."""
    page = gpu.memory(1)
    device.register(start=page, length=PAGE)
    for name, address in (
        ("registered", page),
        ("not registered", page + (1 << 30)),
        ("not mapped", 8 * PAGE),
        ("kernel", 0xFFFF888000000000),
        ("not canonical", 1 << 60),
    ):
        try:
            results[f"outcome {name}"] = device.access(address=address).outcome
        except OSError as error:
            results[f"outcome {name}"] = error.errno


def states(device):
    page = gpu.memory(1)
    device.register(start=page, length=PAGE)
    run = device.run(start=page, stride=PAGE, count=1).run
    call("mode while it runs", device.mode, mode=gpu.B0)
    call("unregister while it runs", device.unregister, start=page, length=PAGE)
    call("oracle while it runs", device.oracle, start=page, stride=PAGE, count=1, table=page)
    overtaken = partial(call, "stop overtaken", device.stop, run=run, flags=gpu.WAIT)
    waiter = threading.Thread(target=overtaken, daemon=True)
    waiter.start()
    time.sleep(0.5)
    call("stop", device.stop, run=run)
    waiter.join(10)
    call("stop twice", device.stop, run=run)
    call("unregister a part", device.unregister, start=page, length=2 * PAGE)
    call("unregister with an interval", device.unregister, start=page, length=PAGE, interval=PAGE)
    call("unregister", device.unregister, start=page, length=PAGE)
    call("unregister twice", device.unregister, start=page, length=PAGE)
    call("mode max", device.mode, mode=MAX32)
    call("mode pad", device.mode, mode=gpu.B0, pad=1)
    call("mode", device.mode, mode=gpu.B0)
    call("violation none", device.violation, index=0)
    call("violation max", device.violation, index=MAX32)
    call("cpu max", device.cpu, cpu=MAX32)
    call("faults pad", device.faults, pad=1)
    call("faults delay", device.faults, flush_delay_us=100_001)
    call("faults walk", device.faults, walk_delay_us=1001)
    call("faults mutant", device.faults, mutant=MAX32)


def bindings(device):
    aperture = device.info().aperture
    user = gpu.memory(4)
    good = {"user": user, "device": aperture, "pages": 1, "count": 2}
    for name, fields in (
        ("unaligned user", {"user": user + 1}),
        ("unaligned device", {"device": aperture + 1}),
        ("no pages", {"pages": 0}),
        ("no buffers", {"count": 0}),
        ("outside", {"device": PAGE}),
        ("before the aperture", {"device": aperture - PAGE}),
        ("max", {"pages": MAX32, "count": MAX32}),
        ("too many", {"pages": 1, "count": 16385}),
        ("unmapped", {"user": 8 * PAGE}),
        ("kernel", {"user": 0xFFFF888000000000}),
        ("good", {}),
        ("taken", {}),
    ):
        call(f"bind {name}", device.bind, **{**good, **fields})
    call("mode while bound", device.mode, mode=gpu.B0)
    call("unbind another size", device.unbind, device=aperture, pages=2, count=1)
    call("unbind user", device.unbind, user=user, device=aperture, pages=1, count=2)
    call("unbind", device.unbind, device=aperture, pages=1, count=2)
    call("unbind twice", device.unbind, device=aperture, pages=1, count=2)
    call("submit", device.submit)


def others(device):
    """A copy of the process has other memory."""
    page = gpu.memory(1)
    reads, writes = os.pipe()
    if not os.fork():
        for name, fields in (
            ("register", {"start": 64 * PAGE, "length": PAGE}),
            ("access", {"address": page}),
            ("run", {"start": page, "stride": PAGE, "count": 1}),
            ("mode", {"mode": gpu.B0}),
            ("info", {}),
            ("counters", {}),
        ):
            call(f"child's {name}", getattr(device, name), **fields)
        told = {name: result for name, result in results.items() if name.startswith("child's")}
        os.write(writes, json.dumps(told).encode())
        os._exit(0)
    os.close(writes)
    results.update(json.loads(os.read(reads, 4096)))
    os.wait()


def main():
    path = sys.argv[1]
    device = Gpu(path)
    records = {name: (command, kind()) for name, (command, kind) in gpu.COMMANDS.items() if kind}
    each_command(device.fd, records)
    unknown_commands(device.fd, gpu.MAGIC, gpu.LAST)
    for part in (ranges, pages, outcomes, states, bindings, others):
        part(Gpu(path))
    attempt("read", raw_read, device.fd, 0, 8)
    attempt("write", os.write, device.fd, b"x" * 8)
    print(json.dumps(results))


main()
