# SPDX-License-Identifier: GPL-2.0
"""snapshots.py [SPOIL]: looks at every snapshot of the checkpoint volume as soon as it is there.

Prints a line of JSON for each: whether it is read-only, and whether every checkpoint in it is what
its checksums say. SPOIL: alters the snapshot with this number (1, 2, ...) first, to see that
somebody notices.
"""

import json
import os
import subprocess
import sys
import time

DIRECTORY = "/checkpoint/.snapshots"
PERIOD_S = 0.3


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def spoil(path):
    """Changes a byte in the middle of a checkpoint's data."""
    run("btrfs", "property", "set", "-f", "-ts", path, "ro", "false")
    for directory, _, files in os.walk(path):
        for name in files:
            if name.endswith(".safetensors"):
                with open(os.path.join(directory, name), "r+b") as file:
                    file.seek(os.path.getsize(file.fileno()) // 2)
                    byte = file.read(1)
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([byte[0] ^ 1]))
    run("btrfs", "property", "set", "-ts", path, "ro", "true")


def look(name):
    path = os.path.join(DIRECTORY, name)
    ident = run("btrfs", "inspect-internal", "rootid", path)
    flag = run("btrfs", "property", "get", "-ts", path, "ro")
    verified = run("nullhz-trainer", "verify", "--json", path)
    found = [json.loads(line) for line in verified.stdout.splitlines()]
    return {
        "name": name,
        "id": int(ident.stdout or 0),
        "readonly": flag.stdout.strip() == "ro=true",
        "whole": verified.returncode == 0,
        "steps": [checkpoint["step"] for checkpoint in found],
        "error": (ident.stderr + flag.stderr + verified.stderr).strip(),
        # The rotation was faster than we.
        "gone": not os.path.isdir(path),
    }


def main():
    spoilt = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    known = set()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        names = set(os.listdir(DIRECTORY)) if os.path.isdir(DIRECTORY) else set()
        for name in sorted(name for name in names - known if name[0] != "."):
            if len(known) + 1 == spoilt:
                spoil(os.path.join(DIRECTORY, name))
            print(json.dumps(look(name)), flush=True)
            known.add(name)
        time.sleep(PERIOD_S)


main()
