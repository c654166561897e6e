# SPDX-License-Identifier: GPL-2.0
"""The fault path: machine checks, the bus, snapshots."""

import json

from nullhz import bus, guest
from nullhz.errors import NodeError

from .table import percentile

TRACING = "/sys/kernel/tracing/instances/bench"
GENERATOR = "/sys/kernel/debug/nullhz_fault_gen"
MCE_GENERATOR = "/sys/kernel/debug/nullhz_mce_gen"
FAULT = "/sys/class/misc/nullhz-fault"
MCE = "/sys/devices/faux/nullhz_mce"

ROUNDS = 400
# Each takes as long as the spinners run, and they get an eighth of a second more to recover.
SPIN_ROUNDS = 60
SPIN_MS = 200
MILLION = 1_000_000
BURST = 10_000
SNAPSHOTS = 20
DIRTY_MIB = (0, 16, 32)


def latency(vm, table, name, rounds, spin_ms):
    """From an injected record to a reader that is awake, by both ways."""
    program = guest.put_program(vm, "latency")
    vm.run(f"mkdir -p {TRACING} && echo 0 > {TRACING}/buffer_percent")
    vm.run(f"echo 1 > {TRACING}/events/mce/mce_record/enable; modprobe mce-inject")
    command = [program, str(rounds), f"{TRACING}/trace_pipe", *([str(spin_ms)] if spin_ms else [])]
    pairs = [tuple(map(int, line.split())) for line in vm.run(command, 300).stdout.splitlines()]
    vm.run(f"echo 0 > {TRACING}/events/enable; rmdir {TRACING}")
    missing = [sum(not pair[way] for pair in pairs) for way in (0, 1)]
    if len(pairs) != rounds or missing[0]:
        raise NodeError(f"{name}: {missing[0]} of {rounds} records did not reach the bus's reader")
    baseline = "a reader of mce:mce_record in tracefs, as rasdaemon, same records"
    if spin_ms:
        baseline += f"; the spinners end after {spin_ms} ms"
    ours = [pair[0] / 1000 for pair in pairs]
    theirs = [pair[1] / 1000 for pair in pairs if pair[1]]
    for stat, percent in (("p50", 50), ("p99", 99)):
        value, other = percentile(ours, percent), percentile(theirs, percent)
        table.add(name, value, "us", baseline, other, stat=stat, rounds=rounds, baseline_missing=missing[1])


def report_ns(vm, table):
    """What one report costs its source."""
    vm.run("modprobe nullhz_fault_gen")
    figures = {}
    for line in vm.run(["cat", f"{GENERATOR}/report_ns"], 120).stdout.splitlines():
        name, *stats = line.split()
        figures[name] = {key: int(value) for key, value in (stat.split("=") for stat in stats)}
    for stat in ("median", "p99"):
        value, other = figures["report"][stat], figures["printk"][stat]
        table.add("fault.report_ns", value, "ns", "printk() of one line, same loop", other, stat=stat)


def lost_uncounted(vm, table):
    """Records that vanish without anybody's saying so."""
    program = guest.put_program(vm, "tally")
    vm.run("modprobe nullhz_fault_gen; modprobe nullhz_mce_gen")
    slow = vm.spawn([program, str(bus.SRC_PRIVATE), "16", "5000"])
    slow.read_line()
    vm.run(f"echo count={MILLION} level=watch source={bus.SRC_PRIVATE} > {GENERATOR}/run", 300)
    slow.kill(15)
    tally = json.loads(slow.wait(120).stdout.splitlines()[-1])
    uncounted = MILLION - tally["records"] - tally["lost"]

    counter = lambda name: int(vm.read(f"{MCE}/counters/{name}"))  # noqa: E731
    before = counter("records") + counter("lost")
    vm.run(f"mkdir -p {TRACING} && echo 8192 > {TRACING}/buffer_size_kb")
    vm.run(f"echo 1 > {TRACING}/events/mce/mce_record/enable")
    vm.run(f"echo count={BURST} context=hardirq > {MCE_GENERATOR}/run", 300)
    vm.run("sleep 2")
    uncounted += BURST - (counter("records") + counter("lost") - before)
    overrun = sum(
        int(line.split()[1])
        for line in vm.run(f"cat {TRACING}/per_cpu/cpu*/stats").stdout.splitlines()
        if line.startswith("overrun")
    )
    seen = int(vm.run(f"grep -c mce_record: {TRACING}/trace", check=False).stdout)
    vm.run(f"echo 0 > {TRACING}/events/enable; rmdir {TRACING}")
    baseline = f"of a burst of {BURST} records, those that mce:mce_record never showed"
    note = f"{MILLION} events with a slow reader ({tally['lost']} counted as lost), and the burst"
    table.add(
        "fault.events_lost_uncounted", uncounted, "records", baseline, BURST - seen - overrun, note=note
    )


def durable(vm, table):
    """From the agent's waking to the snapshot's being on disk."""
    guest.put_script(vm, "bus.py")
    script = guest.put_script(vm, "durable.py")
    vm.run(f"modprobe nullhz_fault_gen; echo 0 > {FAULT}/incident_cooldown_ms")
    vm.run("dd if=/dev/urandom of=/checkpoint/current/weights bs=1M count=64 status=none; sync", 60)

    def rounds(count, *arguments):
        command = ["python3", script, *map(str, arguments[:1]), str(count), *arguments[1:]]
        return [json.loads(line) for line in vm.run(command, 300).stdout.splitlines()]

    copies = {mib: percentile([each["copy"] for each in rounds(5, mib, "copy")], 50) for mib in DIRTY_MIB}
    baseline = "cp --reflink=never of the 64 MiB and sync, median"
    for preflush in (True, False):
        options = [] if preflush else ["--preflush-budget-ms", "0"]
        agent = vm.spawn(["nullhz-agent", "run", *options], timeout=None)
        vm.run("until nullhz-agent status | grep -q 'running as'; do sleep 0.2; done")
        for mib in DIRTY_MIB:
            answers = rounds(SNAPSHOTS, mib)
            more = {"dirty_mib": mib, "preflush": preflush}
            for stat, percent in (("p50", 50), ("p99", 99), ("max", 100)):
                times = {name: percentile([each[name] for each in answers], percent) for name in answers[0]}
                table.add(
                    "snapshot.durable_ms",
                    times["awake_to_durable"],
                    "ms",
                    baseline,
                    copies[mib],
                    stat=stat,
                    **more,
                    parts={"preflush_ms": times["preflush"], "snapshot_ms": times["snapshot"]},
                )
        agent.kill()
        agent.wait()
