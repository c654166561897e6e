# SPDX-License-Identifier: GPL-2.0
"""privileges.py: what the process that runs it may change. Prints a line of JSON: each attribute of
ours that its owner can write, and each privileged ioctl, with the error of a try or "ok".
"""

import errno
import fcntl
import json
import os

import bus
import stall

PLACES = ("/sys/class/misc", "/sys/devices/faux")
# Not ours: the driver core's.
FOREIGN = ("uevent", "power")


def attributes():
    """All attributes of ours, with their modes and owners."""
    for place in PLACES:
        for device in sorted(os.listdir(place)):
            if not device.startswith("nullhz"):
                continue
            top = os.path.realpath(os.path.join(place, device))
            for directory, folders, files in os.walk(top):
                folders[:] = [name for name in folders if name not in FOREIGN]
                for name in sorted(set(files) - set(FOREIGN)):
                    path = os.path.join(directory, name)
                    yield path, os.lstat(path)


def attempt(what):
    try:
        what()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]


def write(path, mode):
    """Writes what is there already."""
    text = "1"
    if mode & 0o400:
        with open(path) as file:
            text = file.read()
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode() or b"\n")
    finally:
        os.close(fd)


def ioctls():
    device = bus.Device()
    yield "ioctl ACK", lambda: device.ack(1 << 60, 1)
    ranks = stall.Device()
    yield "ioctl CHECKPOINT", ranks.checkpoint
    # Bad arguments are not looked at before.
    yield "ioctl ACK of nothing", lambda: fcntl.ioctl(device.fd, bus.IOC_ACK, bytes(24))


def main():
    answers = {}
    for path, status in attributes():
        if status.st_mode & 0o222:
            answers[path] = attempt(lambda path=path, mode=status.st_mode: write(path, mode))
    try:
        for name, what in ioctls():
            answers[name] = attempt(what)
    except OSError as error:
        answers["open"] = errno.errorcode[error.errno]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
