# SPDX-License-Identifier: GPL-2.0
"""Real-time behaviour: programs that hog CPUs, and CPUs that nothing may disturb."""

import json
import time

from nullhz import bus, guest
from records import CORRECTED, LINE, action_optional, imminent, page

SPIN_S = 4
HOUSEKEEPING = (0, 1)
TRAINING = (2, 3)


def test_a_spinner_on_every_housekeeping_cpu_delays_no_event(boot):
    """FIFO-50 everywhere; the kernel's path above it, and a FIFO-60 reader."""
    vm = boot(append="nullhz.agent=off")
    reader = guest.Reader(vm, fifo=60)
    script = guest.put_script(vm, "spin.py")
    spinners = [vm.spawn(["python3", "-S", script, str(cpu), str(SPIN_S)]) for cpu in HOUSEKEEPING]
    # Both are at it after a second; the command channel then gets next to nothing.
    time.sleep(2)
    action_optional(vm, page(1))
    spins = [json.loads(spinner.wait(60).stdout) for spinner in spinners]
    event = imminent(reader, page(1))
    for spin in spins:
        assert spin["begun"] < event["mono_ns"], "the machine check came before the spinners"
        assert event["awake_ns"] < spin["ended"], "the reader was awake only after the spinners"


def interrupts(vm):
    """{row: [count of each training CPU]} of /proc/interrupts."""
    head, *rows = vm.run(["cat", "/proc/interrupts"]).stdout.splitlines()
    cpus = len(head.split())
    counts = {}
    for row in rows:
        name, *words = row.split()
        if len(words) >= cpus and all(word.isdigit() for word in words[:cpus]):
            counts[name.rstrip(":")] = [int(words[cpu]) for cpu in TRAINING]
    return counts


def disturbance(vm, seconds=4):
    """What happened on the training CPUs while errors were injected and trainers ran."""
    trainer = (
        "import os, sys, time\n"
        "end = time.monotonic() + float(sys.argv[1])\n"
        "while time.monotonic() < end: pass\n"
        "print(open('/proc/self/status').read())\n"
    )
    trainers = [
        vm.spawn(["taskset", "-c", str(cpu), "python3", "-S", "-c", trainer, str(seconds + 3)])
        for cpu in TRAINING
    ]
    program = guest.put_program(vm, "inject")
    vm.run("sleep 1.5")
    before = interrupts(vm)
    vm.run(
        [
            "taskset",
            "-c",
            "0",
            program,
            str(seconds * 100),
            hex(CORRECTED),
            hex(page(0)),
            "4096",
            hex(LINE),
            "5000",
        ]
    )
    after = interrupts(vm)
    switches = 0
    for trainer in trainers:
        status = trainer.wait(60).stdout
        switches += int(status.split("nonvoluntary_ctxt_switches:")[1].split()[0])
    moved = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in after}
    return {name: sum(counts) for name, counts in moved.items()}, switches


def test_nothing_of_ours_on_training_cpus(boot):
    """Modules loaded and events flowing, minus no modules and the same records.

    Rows that the kernel itself moves in both cases (LOC, the 1 Hz remainder of
    the tick, and what comes with it) differ by chance: the least disturbed of
    the windows with modules must not be worse than the worst without. Anything
    that we did for an event would show hundreds of times.
    """
    vm = boot(append="nullhz.agent=off")
    vm.run("modprobe mce-inject")
    windows = {True: [], False: []}
    for loaded in (True, False, True, False):
        if loaded:
            vm.run("modprobe nullhz_mce")
            reader = guest.Reader(vm, sources=1 << bus.SRC_MCE)
            before = guest.info(vm)["head_seq"]
        else:
            vm.run("modprobe -r nullhz_mce nullhz_fault")
        windows[loaded].append(disturbance(vm))
        if loaded:
            assert guest.info(vm)["head_seq"] - before >= 400
            reader.close()
    rows = sorted({name for window in windows.values() for counts, _ in window for name in counts})
    with_modules = {name: min(counts.get(name, 0) for counts, _ in windows[True]) for name in rows}
    without = {name: max(counts.get(name, 0) for counts, _ in windows[False]) for name in rows}
    print("with modules:   ", {name: count for name, count in with_modules.items() if count})
    print("without modules:", {name: count for name, count in without.items() if count})
    difference = {name: with_modules[name] - without[name] for name in rows}
    assert {name: count for name, count in difference.items() if count > 0} == {}
    assert (
        min(switches for _, switches in windows[True]) <= max(switches for _, switches in windows[False]) + 2
    )


def test_our_threads_stay_on_housekeeping_cpus(boot):
    vm = boot()
    lines = vm.run("for p in /proc/[0-9]*; do echo $(cat $p/comm) ${p#/proc/}; done").stdout.splitlines()
    threads = {name: pid for name, pid in (line.split()[-2:] for line in lines) if name.startswith("nullhz_")}
    assert {"nullhz_fault", "nullhz_mce"} <= set(threads), threads
    for name, pid in threads.items():
        status = vm.read(f"/proc/{pid}/status")
        allowed = status.split("Cpus_allowed_list:")[1].split()[0]
        assert allowed == "0-1", f"{name}: CPUs {allowed}"
        policy = vm.run(["chrt", "-p", pid]).stdout
        assert "SCHED_FIFO" in policy and "priority: 80" in policy, f"{name}: {policy}"
