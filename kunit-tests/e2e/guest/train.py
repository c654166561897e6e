# SPDX-License-Identifier: GPL-2.0
"""A stand-in for training: writes its state to a file, step after step.

    train.py run DIRECTORY [--size BYTES] [--step SECONDS]
    train.py check FILE

The state of a step is random-looking data that depends on the step alone, after
a header with its checksum. It goes to a temporary file, to disk, and is renamed
then: whoever finds the file, also in a snapshot, finds one whole step. (Without
the fsync() a snapshot can hold the new name with nothing in it.) `check` proves
that and prints the step as JSON; exit status 1 when the file is not whole.
"""

import argparse
import hashlib
import json
import os
import sys
import time

HEADER = 256


def body(step, size):
    return hashlib.shake_128(f"step {step}".encode()).digest(4096) * (size // 4096)


def write(directory, step, size):
    data = body(step, size)
    header = {"step": step, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path = f"{directory}/state"
    with open(f"{path}.new", "wb") as state:
        state.write(json.dumps(header).encode().ljust(HEADER))
        state.write(data)
        state.flush()
        os.fsync(state.fileno())
    os.rename(f"{path}.new", path)


def run(arguments):
    step = 0
    while True:
        step += 1
        write(arguments.directory, step, arguments.size)
        print(json.dumps({"step": step, "mono_ns": time.monotonic_ns()}), flush=True)
        time.sleep(arguments.step)


def check(path):
    with open(path, "rb") as state:
        header = json.loads(state.read(HEADER))
        data = state.read()
    whole = len(data) == header["size"] and hashlib.sha256(data).hexdigest() == header["sha256"]
    print(json.dumps({"whole": whole, "step": header["step"], "bytes": len(data)}))
    return 0 if whole and data == body(header["step"], header["size"]) else 1


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("directory")
    runner.add_argument("--size", type=int, default=1 << 20)
    runner.add_argument("--step", type=float, default=0.2)
    commands.add_parser("check").add_argument("file")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments)
    sys.exit(check(arguments.file))


main()
