# SPDX-License-Identifier: GPL-2.0
"""What a node's kernel shows in /proc and /sys, for nullhz-node-check."""

import os
import re
import socket
import struct
from pathlib import Path

PF_KTHREAD = 0x00200000


def read(path):
    return Path(path).read_text(errors="replace").strip()


def read_or(path, default=""):
    try:
        return read(path)
    except OSError:
        return default


def parse_cpus(text):
    """The CPUs of a list as the kernel writes it, e.g. 0-1,4."""
    found = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def parse_mask(text):
    mask = int(text.strip().replace(",", ""), 16)
    return {cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1}


def cpu_list(cpus):
    """The opposite of parse_cpus()."""
    parts, ordered = [], sorted(cpus)
    for cpu in ordered:
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts) or "none"


def some(names, most=4):
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def options(text):
    """{option: value} of a kernel configuration; n for what is not set."""
    found = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.M))
    return found | dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", text, re.M), "n")


class Task:
    def __init__(self, pid):
        fields = read(f"/proc/{pid}/stat")
        self.pid = pid
        self.name = fields[fields.index("(") + 1 : fields.rindex(")")]
        self.is_kernel = bool(int(fields[fields.rindex(")") + 2 :].split()[6]) & PF_KTHREAD)
        self.cpus = os.sched_getaffinity(pid)


def tasks():
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            found.append(Task(pid))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return [task for task in found if task.pid != os.getpid()]


def spinner(cpu):
    """Starts a process that keeps a CPU busy, and ends with this one."""
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.sched_setaffinity(0, {cpu})
        while os.getppid() == parent:
            for _ in range(1_000_000):
                pass
        os._exit(0)
    return child


def ticks():
    """{CPU: local timer interrupts}"""
    head, *rows = read("/proc/interrupts").splitlines()
    counts = next(row.split()[1:] for row in rows if row.split()[0] == "LOC:")
    return {int(name[3:]): int(count) for name, count in zip(head.split(), counts, strict=False)}


def ran(pid):
    """CPU seconds of a process."""
    return sum(map(int, read(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:13])) / os.sysconf(
        "SC_CLK_TCK"
    )


def jiffies():
    """(nanoseconds, jiffies) at one moment."""
    text = read("/proc/timer_list")
    now = re.search(r"^now at (\d+) nsecs$", text, re.M)
    return int(now[1]), int(re.search(r"^jiffies: (\d+)$", text, re.M)[1])


def address(text):
    """What /proc/net calls an address and a port."""
    host, port = text.split(":")
    words = [struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return f"{socket.inet_ntop(family, b''.join(words))} port {int(port, 16)}"


def listeners():
    """Sockets that anybody may send to or connect to, in words."""
    found = []
    # TCP_LISTEN; of UDP: not connected.
    for protocol, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in read_or(f"/proc/net/{protocol}").splitlines()[1:]:
            words = line.split()
            if words[3] == state:
                found.append(f"{protocol} {address(words[1])}")
    return found
