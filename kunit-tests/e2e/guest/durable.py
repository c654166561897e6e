# SPDX-License-Identifier: GPL-2.0
"""durable.py DIRTY_MIB ROUNDS [copy] - how long until training's state is safe

Each round dirties DIRTY_MIB of a file in the subvolume that training writes,
and reports an IMMINENT event (nullhz_fault_gen). When the agent has
acknowledged, its own measurements of this answer are printed, in ms. With
"copy" there is no event: the subvolume is copied, and the copy synced.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import bus

CURRENT = "/checkpoint/current"
COPY = "/checkpoint/copy"
STATE = "/run/nullhz/agent.json"
RUN = "/sys/kernel/debug/nullhz_fault_gen/run"
MIB = 1 << 20


def dirty(mib):
    """Rewrites the start of the file; nothing of it is written back."""
    subprocess.run(["sync", "-f", CURRENT], check=True)
    piece = os.urandom(MIB)
    fd = os.open(f"{CURRENT}/weights", os.O_WRONLY | os.O_CREAT)
    for _ in range(mib):
        os.write(fd, piece)
    os.close(fd)


def agent():
    with open(STATE) as state:
        return json.load(state)


def answer(device, number):
    """Reports, waits for the acknowledgement, returns the agent's times."""
    with open(RUN, "w") as run:
        run.write(f"count=1 level=imminent source={bus.SRC_PRIVATE}")
    while True:
        device.wait(30)
        for event in device.read():
            if event.source == bus.SRC_BUS and event.kind == bus.BUS_ACKED:
                acked = event.as_dict()["bus"]
                assert acked["result"] == 0, acked
                # The agent writes its state after the acknowledgement.
                while (state := agent())["incidents_acked"] < number:
                    time.sleep(0.02)
                names = ("preflush", "snapshot", "awake_to_durable", "request_to_snapshot")
                return {**{name: state[name]["last_ms"] for name in names}, "acked": acked["age_ns"] / 1e6}


def copy():
    begun = time.monotonic()
    shutil.copytree(CURRENT, COPY, dirs_exist_ok=True, copy_function=plain_copy)
    subprocess.run(["sync", "-f", COPY], check=True)
    taken = time.monotonic() - begun
    shutil.rmtree(COPY)
    return {"copy": taken * 1000}


def plain_copy(source, target):
    """As to another file system: no shared extents."""
    subprocess.run(["cp", "--reflink=never", source, target], check=True)


def main():
    mib, rounds = int(sys.argv[1]), int(sys.argv[2])
    device = bus.Device()
    device.seek(bus.SEEK_NEWEST)
    copying = "copy" in sys.argv
    done = 0 if copying else agent()["incidents_acked"]
    for number in range(1, rounds + 1):
        dirty(mib)
        print(json.dumps(copy() if copying else answer(device, done + number)), flush=True)


main()
