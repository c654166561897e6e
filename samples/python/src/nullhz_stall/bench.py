# SPDX-License-Identifier: GPL-2.0
"""What a heartbeat costs from Python, beside the ways in which others send one.

Prints JSON: ns per call, the best and the median of some rounds, the loop around
the call included. Without the device the stores go to ordinary memory
("device": null), which costs the same.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pickle
import socket
import statistics
import sys
import termios
import time
import timeit
from collections.abc import Iterator
from typing import Any

from . import DEVICE, Phase, register

ROUNDS = 21
WDIOC_KEEPALIVE = 0x80045705


def measure(statement: str, names: dict[str, Any], calls: int) -> dict[str, float]:
    timer = timeit.Timer(statement, globals=names)
    timer.timeit(calls // 10)
    rounds = [timer.timeit(calls) / calls * 1e9 for _ in range(ROUNDS)]
    return {"best": round(min(rounds), 1), "median": round(statistics.median(rounds), 1)}


@contextlib.contextmanager
def cheap_ioctl(watchdog: str | None) -> Iterator[tuple[str, str, int]]:
    """Its name, the statement that issues it, a descriptor for that."""
    if watchdog is not None:
        with open(watchdog, "wb", buffering=0) as device:
            yield "WDIOC_KEEPALIVE", "ioctl(fd, KEEPALIVE, 0)", device.fileno()
            # Magic close: stops it.
            device.write(b"V")
    else:
        ends = os.pipe()
        yield "FIONREAD of a pipe", "ioctl(fd, FIONREAD, buffer)", ends[0]
        for end in ends:
            os.close(end)


@contextlib.contextmanager
def eventfd() -> Iterator[int | None]:
    """Python has it since 3.10."""
    if sys.version_info < (3, 10):
        yield None
    else:
        descriptor = os.eventfd(0, os.EFD_CLOEXEC)
        yield descriptor
        os.close(descriptor)


@contextlib.contextmanager
def monitor() -> Iterator[socket.socket]:
    """A process that answers heartbeats on a Unix socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # What is buffered is the parent's to print.
    sys.stdout.flush()
    child = os.fork()
    if not child:
        ours.close()
        with contextlib.suppress(OSError):
            while message := theirs.recv(4096):
                pickle.loads(message)
                theirs.send(b"ok")
        os._exit(0)
    theirs.close()
    yield ours
    ours.close()
    os.waitpid(child, 0)


def send_heartbeat(peer: socket.socket, step: int) -> None:
    """A heartbeat as monitors in Python send it: pickled, and acknowledged."""
    peer.send(pickle.dumps({"rank": 0, "step": step, "time": time.time(), "state": {}}))
    peer.recv(16)


def run(device: str, rank: int, watchdog: str | None, scale: int) -> dict[str, Any]:
    result: dict[str, Any] = {"language": "python", "unit": "ns", "python": sys.version.split()[0]}
    heartbeat = register(rank, "heartbeat-bench", device=device, missing="ignore")
    with heartbeat:
        result["device"] = device if heartbeat.watched else None
        heartbeat.phase = Phase.STEP
        names = {"heartbeat": heartbeat, "step": 123456789}
        result["heartbeat"] = measure("heartbeat.beat(step)", names, 2000 * scale)
        result["checkpoint_wanted"] = measure("heartbeat.checkpoint_wanted()", names, 2000 * scale)
    with cheap_ioctl(watchdog) as (what, statement, descriptor):
        names = {"ioctl": fcntl.ioctl, "fd": descriptor, "buffer": bytes(4)}
        names |= {"KEEPALIVE": WDIOC_KEEPALIVE, "FIONREAD": termios.FIONREAD}
        result["ioctl"] = what
        result["ioctl_call"] = measure(statement, names, 200 * scale)
    with eventfd() as event:
        if event is not None:
            names = {"write": os.eventfd_write, "fd": event}
            result["eventfd_write"] = measure("write(fd, 1)", names, 200 * scale)
    with monitor() as peer:
        names = {"send_heartbeat": send_heartbeat, "peer": peer, "step": 123456789}
        result["unix_socket_round_trip"] = measure("send_heartbeat(peer, step)", names, 5 * scale)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nullhz_stall.bench", description=__doc__)
    parser.add_argument("--device", default=DEVICE)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument(
        "--watchdog", metavar="PATH", help="watchdog for WDIOC_KEEPALIVE: started, and stopped at the end"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 100
    print(json.dumps(run(arguments.device, arguments.rank, arguments.watchdog, scale)))


if __name__ == "__main__":
    main()
