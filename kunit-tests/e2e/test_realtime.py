# SPDX-License-Identifier: GPL-2.0
"""Real-time behaviour: programs that hog CPUs, and CPUs that nothing may disturb."""

import json
import time

import pytest
from isolation import TRAINING, interrupts, more_than_chance, moved, probe, traced
from nullhz import bus, guest
from records import CORRECTED, LINE, action_optional, imminent, page

SPIN_S = 4
HOUSEKEEPING = (0, 1)


@pytest.mark.alone
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


def disturbance(vm, seconds=2):
    """{row: number} of interrupts on the training CPUs while records are injected, and of the
    times that the trainers lost their CPU."""
    # Each counts from when it is at its place: on the way there it is a housekeeping CPU's guest.
    program = guest.put_program(vm, "steady")
    trainers = [vm.spawn(["taskset", "-c", str(cpu), program, "-1", str(seconds + 2)]) for cpu in TRAINING]
    program = guest.put_program(vm, "inject")
    vm.run("sleep 1")
    before = interrupts(vm)
    inject = [program, str(seconds * 100), hex(CORRECTED), hex(page(0)), "4096", hex(LINE), "5000"]
    vm.run(["taskset", "-c", "0", *inject])
    after = interrupts(vm)
    switches = sum(json.loads(trainer.wait(60).stdout)["switches"] for trainer in trainers)
    return {**moved(before, after), "switches": switches}


@pytest.mark.alone
def test_nothing_of_ours_on_training_cpus(boot):
    """Modules loaded and events flowing, minus no modules and the same records.

    Interrupts are compared as sums over windows of the same length; what counts
    cannot tell, because the kernel moves the same rows by itself, a trace does:
    no code and no thread of ours on a training CPU, no interrupt of ours to one.
    """
    vm = boot(append="nullhz.agent=off")
    vm.run("modprobe mce-inject")
    windows = {True: [], False: []}
    for loaded in (True, False, False, True):
        if loaded:
            vm.run("modprobe nullhz_mce; modprobe nullhz_stall")
            reader = guest.Reader(vm, sources=1 << bus.SRC_MCE)
            before = guest.info(vm)["head_seq"]
        else:
            vm.run("modprobe -r nullhz_stall nullhz_mce nullhz_fault")
        windows[loaded].append(disturbance(vm))
        if loaded:
            assert guest.info(vm)["head_seq"] - before >= 200
            reader.close()
    assert more_than_chance(windows[True], windows[False]) == {}

    with traced(vm) as trace:
        disturbance(vm)
    assert trace.ours() == []
    with traced(vm) as trace:
        probe(vm)
    assert trace.ours(), "the trace cannot see ours"


def test_our_threads_stay_on_housekeeping_cpus(boot):
    vm = boot()
    lines = vm.run("for p in /proc/[0-9]*; do echo $(cat $p/comm) ${p#/proc/}; done").stdout.splitlines()
    # Who ends meanwhile has no name.
    words = [line.split()[-2:] for line in lines]
    threads = {
        name: pid for name, pid in (pair for pair in words if len(pair) == 2) if name.startswith("nullhz_")
    }
    assert {"nullhz_fault", "nullhz_mce"} <= set(threads), threads
    assert [name for name in threads if name.startswith("nullhz_stall")], threads
    for name, pid in threads.items():
        status = vm.read(f"/proc/{pid}/status")
        allowed = status.split("Cpus_allowed_list:")[1].split()[0]
        # One that looks at the ranks is for one CPU.
        assert allowed in ("0-1", name.partition("/")[2]), f"{name}: CPUs {allowed}"
        policy = vm.run(["chrt", "-p", pid]).stdout
        # What looks is above what writes of it to the log, or waits for a driver.
        wanted = {"nullhz_stall_log": 79, "nullhz_stall_hw": 78}.get(name, 80)
        assert "SCHED_FIFO" in policy and f"priority: {wanted}" in policy, f"{name}: {policy}"
