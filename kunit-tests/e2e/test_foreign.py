# SPDX-License-Identifier: GPL-2.0
"""Suites that others made, on a node with the modules.

Soft injections  what mce-test's cases of that name do: machine checks through the
                 kernel's own handler, with registers that the module mce-inject makes
                 up. Written anew from their list, because mce-test itself wants a
                 kernel of 2010 with a patched mcelog.
rt-tests         cyclictest, on a CPU of the OS and one of training, with the modules
                 and a flood of events, and without: figures, no verdict.
osnoise          the tracers osnoise and timerlat, in the same way; what osnoise counts
                 on a training CPU is a verdict.

The watchdog's kselftest is in test_stall_peers, stress-ng and those of mm in test_mmu_*.
"""

import json
import statistics

import mmu
import pytest
from isolation import more_than_chance
from nullhz import bus, guest
from nullhz.bench.table import percentile
from records import CORRECTED, LINE, page

pytestmark = pytest.mark.long
# Nor a hardware watchdog: CPUs that wait for each other run long in an emulated machine.
NODE = {"append": "nullhz.agent=off", "watchdog": None}

# MCi_STATUS: valid, overflow, uncorrected, enabled, MISC and ADDR valid, context
# corrupt, signalled, action required.
VAL, OVER, UC, EN, MISCV, ADDRV, PCC, S, AR = (1 << bit for bit in range(63, 54, -1))
WHERE = MISCV | ADDRV
# MCACOD: memory read, patrol scrub, write-back from the last cache, data load, timer.
READ, SCRUB, WRITE_BACK, LOAD, TIMER = 0x90, 0xC0, 0x17A, 0x134, 0x400
# MCG_STATUS: restart IP valid, error IP valid, machine check in progress.
RIPV, EIPV, MCIP = 1, 2, 4
# How mce-inject raises what it is given.
PROCESS, NMI_BROADCAST, EXCEPTION, IRQ_BROADCAST = 1, 4, 8, 16
USER, KERNEL = 0x33, 0x10
# The CPU that the error is of.
VICTIM = 2


def record(cpu, status, mcgstatus, flags, bank=2, cs=KERNEL, addr=0):
    values = {"cpu": cpu, "status": status, "mcgstatus": mcgstatus, "flags": flags}
    return {**values, "bank": bank, "cs": cs, "addr": addr, "misc": LINE, "ip": 0x1000}


def polled(status):
    """Found by the poll of a CPU, without an exception."""
    return lambda addr: [record(VICTIM, status, 0, PROCESS, addr=addr)]


def signalled(status, mcgstatus=MCIP | RIPV, how=NMI_BROADCAST, others=(0, 1, 3), cs=KERNEL):
    """An exception on all CPUs, all but one of which find nothing."""

    def records(addr):
        idle = [record(cpu, 0, MCIP | RIPV, EXCEPTION, bank=1) for cpu in others]
        return [*idle, record(VICTIM, status, mcgstatus, EXCEPTION | PROCESS | how, cs=cs, addr=addr)]

    return records


class Case:
    def __init__(self, records, level=None, kind=None, panic=None, killed=False):
        """The event that has to come, and what the kernel says when it panics; None: neither.

        `killed`: the process that has touched the memory.
        """
        self.records, self.level, self.kind, self.panic, self.killed = records, level, kind, panic, killed


def fatal(records, panic="Fatal machine check"):
    # The panic is a fake one: the node goes on, and has time for a snapshot.
    return Case(records, bus.IMMINENT, bus.MCE_FATAL, panic)


def optional(records):
    return Case(records, bus.IMMINENT, bus.MCE_ACTION_OPTIONAL)


PANIC = VAL | UC | EN | WHERE | PCC | TIMER
OPTIONAL = VAL | UC | EN | WHERE | S
REQUIRED = VAL | UC | EN | WHERE | S | AR
BOTH = MCIP | RIPV | EIPV
CASES = {
    # Not fatal, found by polling.
    "corrected": Case(polled(VAL | EN | WHERE | READ), bus.WATCH, bus.MCE_CORRECTED),
    "corrected_over": Case(polled(VAL | OVER | EN | WHERE | READ), bus.DEGRADING, bus.MCE_CORRECTED),
    "corrected_no_en": Case(polled(VAL | WHERE | READ), bus.WATCH, bus.MCE_CORRECTED),
    "ucna": Case(polled(VAL | EN | UC | WHERE | READ), bus.IMMINENT, bus.MCE_DEFERRED),
    # Fatal.
    "fatal": fatal(signalled(PANIC, MCIP)),
    "fatal_irq": fatal(signalled(PANIC, MCIP, IRQ_BROADCAST)),
    "fatal_over": fatal(signalled(PANIC | OVER, MCIP)),
    "fatal_ripv": fatal(signalled(PANIC)),
    "fatal_timeout": fatal(
        signalled(PANIC, MCIP, others=(0, 1)), "Timeout: Not all CPUs entered broadcast exception handler"
    ),
    # Not enabled, so that no bank says why: the kernel logs nothing either.
    "fatal_no_en": Case(signalled(PANIC & ~EN), panic="Fatal machine check from unknown source"),
    # The record alone is one that was polled; that it was not is known from the panic, a real one.
    "no_mcip": Case(
        signalled(OPTIONAL | SCRUB, RIPV | EIPV), bus.IMMINENT, bus.MCE_ACTION_OPTIONAL, "Fatal machine check"
    ),
    "no_restart_in_kernel": fatal(signalled(OPTIONAL | SCRUB, MCIP | EIPV)),
    # Recoverable, nothing has to be done at once.
    "srao_mem_scrub": optional(signalled(OPTIONAL | SCRUB)),
    "srao_mem_scrub_irq": optional(signalled(OPTIONAL | SCRUB, how=IRQ_BROADCAST)),
    "srao_ewb": optional(signalled(OPTIONAL | WRITE_BACK)),
    # Recoverable, or not: somebody is about to use what is lost.
    "srar_usr_dcu": Case(
        signalled(REQUIRED | LOAD, BOTH, cs=USER), bus.IMMINENT, bus.MCE_ACTION_REQUIRED, killed=True
    ),
    "srar_over": fatal(signalled(REQUIRED | OVER | LOAD, BOTH, cs=USER)),
    "srar_kernel": fatal(signalled(REQUIRED | LOAD, BOTH)),
    "srar_unknown": fatal(signalled(REQUIRED | READ, BOTH, cs=USER)),
}

MACHINE_CHECK = "/sys/devices/system/machinecheck/machinecheck0"
DEBUGFS = "/sys/kernel/debug/mce"
# How long CPUs wait for each other, us: for a busy host, and where one does not come.
ENOUGH, SHORT = 60_000_000, 20_000
SIGBUS = 7


@pytest.mark.parametrize("name", CASES)
def test_soft_injection(shared_node, name):
    vm, case = shared_node, CASES[name]
    vm.expect("Fake kernel panic", "CPUs not responding to MCE broadcast", taints="M")
    # Buckets are empty, and nobody else polls.
    vm.run("modprobe -r nullhz_stall nullhz_mce; modprobe mce-inject; modprobe nullhz_mce")
    wait = SHORT if name == "fatal_timeout" else ENOUGH
    vm.run(f"echo 0 > {MACHINE_CHECK}/check_interval; echo {wait} > {MACHINE_CHECK}/monarch_timeout")
    vm.run(f"echo 1 > {DEBUGFS}/fake_panic; dmesg -C")
    reader = guest.Reader(vm, sources=1 << bus.SRC_MCE)
    addr = page(0x100 + list(CASES).index(name))
    records = case.records(addr)
    program = guest.put_script(vm, "soft_inject.py")
    done = vm.run(["python3", "-S", program, json.dumps(records)], timeout=60, check=False)
    assert done.rc == (-SIGBUS if case.killed else 0), done
    vm.run("sleep 0.5")
    told = [
        (event["level"], event["kind"], event["mce"]["status"], event["cpu"]) for event in reader.events()
    ]
    reader.close()
    expected = (case.level, case.kind, records[-1]["status"], VICTIM)
    assert told == ([] if case.kind is None else [expected])
    said = [line.partition("Fake kernel panic: ")[2] for line in vm.dmesg() if "Fake kernel panic" in line]
    assert said == ([case.panic] if case.panic else []), said


# For the comparison of a node with the modules and one without: interleaved, in one boot.
WINDOWS = (True, False, False, True) * 2
SECONDS = 2
CPUS = {"OS": 0, "training": 2}
MODULES = {
    True: "modprobe nullhz_mce; modprobe nullhz_stall",
    False: "modprobe -r nullhz_stall nullhz_mce nullhz_fault",
}


def window(vm, kind):
    command = ["python3", "-S", guest.put_script(vm, "latencies.py"), kind, str(SECONDS)]
    return json.loads(vm.run([*command, *map(str, CPUS.values())], timeout=60).stdout)


def measure(vm, kind):
    """{modules loaded: [what guest/latencies.py says of a window]}, with 100 records a second."""
    vm.run("modprobe mce-inject")
    flood = guest.put_program(vm, "inject")
    found = {True: [], False: []}
    for loaded in WINDOWS:
        vm.run(MODULES[loaded])
        flooding = vm.spawn(
            ["taskset", "-c", "1", flood, "0", hex(CORRECTED), hex(page(0)), "4096", hex(LINE), "10000"]
        )
        found[loaded].append(window(vm, kind))
        flooding.kill(15)
        assert int(flooding.wait(20).stdout) > 0
    vm.run(MODULES[True])
    return found


@pytest.mark.parametrize("kind", ["cyclictest", "timerlat"])
def test_latency_of_a_real_time_thread(shared_node, record_property, kind):
    found = measure(shared_node, kind)
    lines = []
    for name, cpu in CPUS.items():
        windows = {loaded: [one[str(cpu)] for one in each] for loaded, each in found.items()}
        assert all(len(one) > 100 for each in windows.values() for one in each), "hardly measured"
        figures = []
        for title, percent in (("p50", 50), ("p99", 99), ("max", 100)):
            # The median of the windows: the host has other things to do in some.
            ours, theirs = (
                statistics.median(percentile(one, percent) for one in windows[loaded])
                for loaded in (True, False)
            )
            ratio = f"{ours / theirs:.2f}" if theirs else "-"
            figures.append(f"{title} {ours:.0f} / {theirs:.0f} us, {ratio}")
        lines.append(f"CPU {cpu} ({name}), with the modules / without, ratio: {'; '.join(figures)}")
    record_property("told", "\n".join(lines))


def test_osnoise_sees_nothing_more_on_a_training_cpu(shared_node, record_property):
    found = measure(shared_node, "osnoise")
    cpu = str(CPUS["training"])
    windows = {loaded: [one[cpu] for one in each] for loaded, each in found.items()}
    for one in (*windows[True], *windows[False]):
        # What the emulator's host takes: there is always something.
        assert one.pop("hw", 0), "osnoise said nothing"
    assert more_than_chance(windows[True], windows[False]) == {}
    noisy = [one[cpu] for one in broadcasts(shared_node, len(windows[False]))]
    for one in noisy:
        one.pop("hw")
    assert "irq" in more_than_chance(noisy, windows[False]), "osnoise does not see broadcasts"
    record_property(
        "told", f"with the modules {windows[True]}, without {windows[False]}, with broadcasts {noisy}"
    )


def broadcasts(vm, count):
    """Windows in which a software GPU's flushes interrupt all CPUs: what has to be seen."""
    mmu.load(vm)
    flush = [mmu.PROGRAM, "--modes", "b0", "churn", "--threads", "1", "--operations", "1000000"]
    running = vm.spawn(flush)
    found = [window(vm, "osnoise") for _ in range(count)]
    running.kill(9)
    running.wait(20)
    vm.run("modprobe -r nullhz_soft_gpu")
    return found
