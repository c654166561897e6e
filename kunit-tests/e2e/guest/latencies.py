# SPDX-License-Identifier: GPL-2.0
"""latencies.py cyclictest|timerlat|osnoise SECONDS CPU... - what others measure, as JSON

cyclictest, timerlat  {CPU: latencies of a FIFO thread that waits for a timer each ms, us}
osnoise               {CPU: {what took the CPU from a busy thread: times}}
"""

import collections
import json
import re
import subprocess
import sys
import time

TRACING = "/sys/kernel/tracing"
HISTOGRAM = "/tmp/cyclictest"
PRIORITY = 60
# A trace's line begins with the task, its id and its CPU.
LINE = re.compile(r"^\s*\S.*-\d+\s+\[(\d+)\]")
NOISE = re.compile(r": +(\d+) +(\d+) +[\d.]+ +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$")
NOISES = ("hw", "nmi", "irq", "softirq", "thread")


def cyclictest(seconds, cpus):
    command = ["cyclictest", "-q", "-m", f"-p{PRIORITY}", f"-t{len(cpus)}", "-i1000", f"-D{seconds}"]
    command += ["-a", ",".join(map(str, cpus)), "-h100000", f"--histfile={HISTOGRAM}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = {cpu: [] for cpu in cpus}
    with open(HISTOGRAM) as lines:
        for line in lines:
            if line[0].isdigit():
                latency, *counts = map(int, line.split())
                for cpu, count in zip(cpus, counts, strict=True):
                    found[cpu] += [latency] * count
    return found


def write(path, value):
    with open(f"{TRACING}/{path}", "w") as file:
        file.write(value)


def traced(tracer, seconds, cpus):
    """(CPU, text) of each line of a tracer."""
    write("osnoise/cpus", ",".join(map(str, cpus)))
    write("trace", "")
    write("current_tracer", tracer)
    try:
        time.sleep(seconds)
        write("tracing_on", "0")
        with open(f"{TRACING}/trace") as trace:
            lines = trace.read().splitlines()
    finally:
        write("current_tracer", "nop")
        write("tracing_on", "1")
    return [(int(match[1]), line) for line in lines if (match := LINE.match(line))]


def timerlat(seconds, cpus):
    found = {cpu: [] for cpu in cpus}
    for cpu, line in traced("timerlat", seconds, cpus):
        if match := re.search(r"context +thread +timer_latency +(\d+) ns", line):
            found[cpu].append(int(match[1]) / 1000)
    return found


def osnoise(seconds, cpus):
    found = {cpu: collections.Counter() for cpu in cpus}
    for cpu, line in traced("osnoise", seconds, cpus):
        if match := NOISE.search(line):
            found[cpu] += dict(zip(NOISES, map(int, match.groups()[3:]), strict=True))
    return found


kind, seconds, *cpus = sys.argv[1:]
run = {"cyclictest": cyclictest, "timerlat": timerlat, "osnoise": osnoise}[kind]
print(json.dumps(run(int(seconds), list(map(int, cpus)))))
