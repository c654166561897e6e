# SPDX-License-Identifier: GPL-2.0
"""The stall watchdog: heartbeats, detection, resets, and what it costs."""

import contextlib
import json
import re
import time

from nullhz import guest
from nullhz.demo.training import MODEL
from nullhz.errors import NodeError

from .table import percentile

STALL = "/sys/class/misc/nullhz-stall"
FAULT = "/sys/class/misc/nullhz-fault"
TRACING = "/sys/kernel/tracing/instances/bench"

DEADLINE_MS = 200
DETECTIONS = 60
BASELINE_DETECTIONS = 5
CROWDS = (1, 64, 1024)
CROWD_S = 10
TRAINING = (2, 3)
WINDOWS = 3
WINDOW_S = 5
CHECKPOINTS = 12
RESETS = 3
RESET_TIMEOUT_S = 2


def tune(vm, **values):
    """Sets tunables of nullhz_stall."""
    lines = [f"echo {value} > {STALL}/tunables/{name}" for name, value in values.items()]
    vm.run("set -e; " + "; ".join(lines))


def watchdog_named(vm, text):
    """The name of the watchdog device with this in its identity."""
    shown = vm.run("grep -H . /sys/class/watchdog/watchdog*/identity", check=False).stdout
    for line in shown.splitlines():
        path, identity = line.split(":", 1)
        if text in identity:
            return path.split("/")[-2]
    raise NodeError(f"no watchdog {text!r}: {shown or 'there is none'}")


def heartbeat(vm, table):
    """What one heartbeat costs who sends it."""
    vm.run("modprobe softdog soft_noboot=1")
    softdog = watchdog_named(vm, "Software")
    programs = {
        "c": ["nullhz-heartbeat-bench", "--watchdog", f"/dev/{softdog}"],
        "python": ["python3", "-m", "nullhz_stall.bench", "--watchdog", f"/dev/{softdog}"],
    }
    baselines = {
        "ioctl": ("ioctl_call", "WDIOC_KEEPALIVE on softdog, same language"),
        "socket": ("unix_socket_round_trip", "a message over a Unix socket and its answer, same language"),
    }
    for client, program in programs.items():
        shown = json.loads(vm.run(["taskset", "-c", str(TRAINING[0]), *program], 300).stdout)
        if not shown["device"]:
            raise NodeError(f"{client}: the heartbeats went nowhere: {shown}")
        for against, (key, baseline) in baselines.items():
            table.add(
                "stall.heartbeat_ns",
                shown["heartbeat"]["median"],
                "ns",
                baseline,
                shown[key]["median"],
                client=client,
                against=against,
            )
    vm.run("modprobe -r softdog")


def detect(vm, table):
    """From a deadline's passing to somebody's knowing of it."""
    program = guest.put_program(vm, "overdue")

    def late_ms(*arguments):
        lines = vm.run([program, *map(str, arguments)], 300).stdout.splitlines()
        # Until a reader is awake and, of ours, until the event is made.
        times = [[int(ns) / 1e6 - DEADLINE_MS for ns in line.split()] for line in lines]
        return [list(column) for column in zip(*times, strict=True)]

    ours, made = late_ms("rank", DEADLINE_MS, DETECTIONS)
    vm.run("modprobe softdog soft_noboot=1")
    [softdog] = late_ms("softdog", f"/dev/{watchdog_named(vm, 'Software')}", BASELINE_DETECTIONS)
    vm.run("modprobe -r softdog")
    # As short as it can be set; it looks once in that time.
    vm.expect(r"INFO: task .* blocked for more than")
    vm.run("sysctl -q kernel.hung_task_timeout_secs=1 kernel.hung_task_check_interval_secs=1")
    vm.run("sysctl -q kernel.hung_task_warnings=-1")
    [hung] = late_ms("hung", "/checkpoint", BASELINE_DETECTIONS)
    vm.run("sysctl -q kernel.hung_task_timeout_secs=30 kernel.hung_task_check_interval_secs=0")
    baselines = {
        "softdog": ("softdog with its shortest timeout, 1 s", softdog),
        "hung_task": ("hung_task with its shortest timeout, 1 s; sees D state only", hung),
    }
    for against, (baseline, theirs) in baselines.items():
        for stat, percent in (("p50", 50), ("p99", 99), ("max", 100)):
            table.add(
                "stall.detect_after_deadline_ms",
                percentile(ours, percent),
                "ms",
                f"{baseline}, after the same {DEADLINE_MS} ms",
                percentile(theirs, percent),
                stat=stat,
                against=against,
                rounds=DETECTIONS,
                event_made_ms=percentile(made, percent),
            )


def sampler_pids(vm):
    lines = vm.run("cd /proc; grep -s . [0-9]*/comm").stdout.splitlines()
    pids = [line.split("/")[0] for line in lines if re.search(r":nullhz_stall/\d+$", line)]
    if not pids:
        raise NodeError("no thread of the sampler: is nullhz_stall loaded?")
    return pids


def sampler_cpu(vm, table):
    """What looking at the ranks costs a housekeeping CPU."""
    program = guest.put_program(vm, "crowd")
    pids = sampler_pids(vm)
    for ranks in CROWDS:
        shown = json.loads(vm.run([program, str(ranks), str(CROWD_S), *pids], CROWD_S + 60).stdout)
        table.add(
            "stall.sampler_cpu_percent",
            shown["kernel_percent"],
            "%",
            "a user-space thread that looks at the same pages every 10 ms",
            shown["user_percent"],
            ranks=ranks,
        )


def window(vm, program, meanwhile=""):
    """Interrupts of the training CPUs while each runs a rank, and what the ranks say."""
    ranks = [
        vm.spawn(["taskset", "-c", str(cpu), program, str(rank), str(WINDOW_S + 2)])
        for rank, cpu in enumerate(TRAINING)
    ]
    vm.run("sleep 1")
    before = guest.interrupts(vm, TRAINING)
    vm.run(f"{meanwhile} sleep {WINDOW_S}")
    after = guest.interrupts(vm, TRAINING)
    shown = [json.loads(rank.wait(60).stdout) for rank in ranks]
    return {name: after[name] - before.get(name, 0) for name in after}, shown


def isolated_irqs(vm, table):
    """Interrupts on training CPUs, with the module minus without."""
    program = guest.put_program(vm, "steady")
    seen = {True: [], False: []}
    for loaded in (True, False) * WINDOWS:
        vm.run("modprobe nullhz_stall" if loaded else "modprobe -r nullhz_stall")
        rows, ranks = window(vm, program)
        if any(rank["watched"] != loaded for rank in ranks):
            raise NodeError(f"nullhz_stall {'is not' if loaded else 'is still'} loaded: {ranks}")
        seen[loaded].append((rows, ranks))
    vm.run("modprobe nullhz_stall")
    # What does interrupt every CPU must be seen, or the zero below would mean nothing.
    control, _ = window(vm, program, "echo 1 > /proc/sys/vm/stat_refresh;")
    if not any(control.values()):
        raise NodeError("an interrupt of the training CPUs is not seen in /proc/interrupts")
    names = sorted({name for windows in seen.values() for rows, _ in windows for name in rows})
    # The kernel's own rows differ by chance; ours would show in every window.
    least = {
        loaded: {name: min(rows.get(name, 0) for rows, _ in windows) for name in names}
        for loaded, windows in seen.items()
    }
    gaps = {
        loaded: min(rank["longest_ns"] for _, ranks in windows for rank in ranks)
        for loaded, windows in seen.items()
    }
    delta = {name: least[True][name] - least[False][name] for name in names}
    table.add(
        "stall.isolated_irq_delta",
        sum(delta.values()),
        "irqs",
        f"all interrupts of both training CPUs in {WINDOW_S} s without the module",
        sum(least[False].values()),
        rows={name: count for name, count in delta.items() if count},
        control={name: count for name, count in control.items() if count},
        longest_gap_ns={"with": gaps[True], "without": gaps[False]},
    )


def checkpoint(vm, table):
    """From the request to the ranks to the snapshot with their checkpoints on disk."""
    for script in ("bus.py", "durable.py"):
        path = guest.put_script(vm, script)
    vm.run(f"modprobe nullhz_fault_gen; echo 0 > {FAULT}/incident_cooldown_ms")
    agent = vm.spawn(["nullhz-agent", "run"], timeout=None)
    vm.run("until nullhz-agent status | grep -q 'running as'; do sleep 0.2; done")

    def rounds(what):
        command = ["python3", path, "0", str(CHECKPOINTS)]
        return [json.loads(line)[what] for line in vm.run(command, 300).stdout.splitlines()]

    alone = rounds("awake_to_durable")
    command = "nullhz-trainer run --ranks 2 --cpus 2-3 --eval-every 0 --checkpoint-every 0"
    log = "/run/bench-loss.jsonl"
    command += f" --steps 1000000 --require-watchdog --log {log} {MODEL}"
    trainer = vm.spawn(command.split(), timeout=None)
    vm.run(f'until [ "$(grep -c \'"step"\' {log})" -gt 5 ]; do sleep 0.2; done', 60)
    asked = rounds("request_to_snapshot")
    written = [json.loads(line) for line in vm.run(["cat", log]).stdout.splitlines()]
    answered = [line for line in written if line["event"] == "checkpoint" and line["request"]]
    if len(answered) < CHECKPOINTS:
        raise NodeError(f"the ranks answered {len(answered)} of {CHECKPOINTS} requests")
    for process in (trainer, agent):
        process.kill()
        process.wait(60)
    steps = [line["ms"] for line in written if line["event"] == "step"]
    for stat, percent in (("p50", 50), ("p99", 99), ("max", 100)):
        table.add(
            "stall.checkpoint_request_to_snapshot_ms",
            percentile(asked, percent),
            "ms",
            "the snapshot alone, no rank registered",
            percentile(alone, percent),
            stat=stat,
            step_ms=percentile(steps, 50),
            checkpoint_ms=percentile([line["ms"] for line in answered], 50),
        )


def permit_to_reset(vm, table):
    """From the last ping that the gate let through to the hardware's reset."""
    tune(vm, budget=16)
    errors = {
        "the gate": [reset_error(vm, stall_a_rank) for _ in range(RESETS)],
        "feeder": [reset_error(vm, kill_the_feeder)],
    }
    for stat, percent in (("p50", 50), ("max", 100)):
        table.add(
            "stall.permit_to_reset_error_ms",
            percentile([abs(error) for error in errors["the gate"]], percent),
            "ms",
            f"the same watchdog ({RESET_TIMEOUT_S} s), its user-space feeder killed, no stall watchdog",
            percentile([abs(error) for error in errors["feeder"]], percent),
            stat=stat,
            errors_ms=errors["the gate"],
        )


def reset_error(vm, provoke):
    """How much later than its timeout after the last ping the watchdog fired, ms."""
    offset = guest.clock_offset(vm)
    vm.run(f"mkdir -p {TRACING}; echo mono > {TRACING}/trace_clock; echo 0 > {TRACING}/buffer_percent")
    vm.run(f"for e in ping start; do echo 1 > {TRACING}/events/watchdog/watchdog_$e/enable; done")
    pings = vm.spawn(["cat", f"{TRACING}/trace_pipe"], timeout=None)
    seen = vm.monitor.position
    name = watchdog_named(vm, "i6300ESB")
    provoke(vm, name)
    fired = vm.monitor.wait("WATCHDOG", 60, since=seen)
    lines = []
    with contextlib.suppress(NodeError):
        # The pipe goes with the node.
        lines.extend(pings.lines(timeout=10))
    matches = [re.search(rf" (\d+\.\d+): watchdog_(?:ping|start): {name} err=0", line) for line in lines]
    times = [match[1] for match in matches if match]
    if not times:
        raise NodeError(f"no ping of {name} was seen: {lines[-5:]}")
    vm.wait_boot()
    last = float(times[-1]) + offset
    return (fired.time - last - RESET_TIMEOUT_S) * 1000


def stall_a_rank(vm, name):
    tune(vm, budget=16, no_ack_ms=0, bite_ms=500, feed_timeout_s=RESET_TIMEOUT_S)
    end = time.monotonic() + 15
    while vm.read(f"{STALL}/watchdog_timeout_ms") != f"{RESET_TIMEOUT_S * 1000}":
        if time.monotonic() > end:
            raise NodeError(f"{name} is not fed with {RESET_TIMEOUT_S} s: {vm.read(f'{STALL}/held')}")
        time.sleep(0.1)
    program = guest.put_program(vm, "rank")
    rank = vm.spawn([program, "0", "/run/rank", "step=300"], timeout=None)
    rank.read_line(30)
    vm.run("sleep 1; echo quiet > /run/rank")


def kill_the_feeder(vm, name):
    vm.run("modprobe -r nullhz_stall")
    feeder = (
        "import fcntl, os, struct, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY)\n"
        "fcntl.ioctl(fd, 0xC0045706, struct.pack('i', int(sys.argv[2])))\n"  # WDIOC_SETTIMEOUT
        "print('feeds', flush=True)\n"
        "while True:\n"
        "    os.write(fd, b'x')\n"
        "    time.sleep(0.3)\n"
    )
    command = vm.spawn(["python3", "-S", "-c", feeder, f"/dev/{name}", str(RESET_TIMEOUT_S)], timeout=None)
    command.read_line(30)
    vm.run("sleep 1")
    command.kill(9)
