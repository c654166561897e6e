# SPDX-License-Identifier: GPL-2.0
"""Everything that a program can get wrong with the fault bus; runs in the node.

Prints one JSON object: for each mistake, the name of the errno that it got,
"ok", or what it got instead.
"""

import ctypes
import json
import mmap
import os

import bus
from mistakes import attempt, each_command, ioctl, raw_read, results, unknown_commands

COMMANDS = {
    "info": (bus.IOC_INFO, bus.Info()),
    "filter": (bus.IOC_FILTER, bus.Filter(source_mask=1)),
    "seek": (bus.IOC_SEEK, bus.Seek()),
    "ack": (bus.IOC_ACK, bus.Ack(incident=1, snapshot_id=1)),
    "incident": (bus.IOC_INCIDENT, bus.Incident(incident=1)),
}


def bad_fields(fd):
    ones = (1 << 64) - 1
    for name, command, record in (
        ("filter level 4", bus.IOC_FILTER, bus.Filter(min_level=4, source_mask=1)),
        ("filter level max", bus.IOC_FILTER, bus.Filter(min_level=0xFFFFFFFF, source_mask=1)),
        ("filter no source", bus.IOC_FILTER, bus.Filter(source_mask=0)),
        ("filter pad", bus.IOC_FILTER, bus.Filter(pad=1, source_mask=1)),
        ("seek whence 3", bus.IOC_SEEK, bus.Seek(whence=3)),
        ("seek pad", bus.IOC_SEEK, bus.Seek(pad=1)),
        ("seek oldest with seq", bus.IOC_SEEK, bus.Seek(whence=bus.SEEK_OLDEST, seq=1)),
        ("seek newest with seq", bus.IOC_SEEK, bus.Seek(whence=bus.SEEK_NEWEST, seq=1)),
        ("ack pad", bus.IOC_ACK, bus.Ack(incident=1, snapshot_id=1, pad=1)),
        ("ack positive result", bus.IOC_ACK, bus.Ack(incident=1, snapshot_id=1, result=1)),
        ("ack no errno", bus.IOC_ACK, bus.Ack(incident=1, result=-4096)),
        ("ack nothing", bus.IOC_ACK, bus.Ack(incident=1)),
        ("ack unknown", bus.IOC_ACK, bus.Ack(incident=999999, snapshot_id=1)),
        ("ack incident 0", bus.IOC_ACK, bus.Ack(incident=0, snapshot_id=1)),
        ("ack incident max", bus.IOC_ACK, bus.Ack(incident=ones, snapshot_id=1)),
        ("incident 0", bus.IOC_INCIDENT, bus.Incident(incident=0)),
        ("incident unknown", bus.IOC_INCIDENT, bus.Incident(incident=999999)),
        ("incident max", bus.IOC_INCIDENT, bus.Incident(incident=ones)),
        ("seek far", bus.IOC_SEEK, bus.Seek(whence=bus.SEEK_SEQ, seq=ones)),
        ("seek zero", bus.IOC_SEEK, bus.Seek(whence=bus.SEEK_SEQ, seq=0)),
    ):
        attempt(name, ioctl, fd, command, ctypes.addressof(record))


def bad_reads():
    device = bus.Device()
    attempt("read 0", os.read, device.fd, 0)
    attempt("read 255", os.read, device.fd, bus.EVENT_SIZE - 1)
    attempt("read to null", raw_read, device.fd, 0, bus.EVENT_SIZE)
    attempt("read to kernel", raw_read, device.fd, 0xFFFF888000000000, bus.EVENT_SIZE)
    # Nothing was consumed by what failed.
    first = device.read(1)[0].seq
    other = bus.Device().read(1)[0].seq
    results["consumed by failures"] = "ok" if first == other else f"{first}, not {other}"
    # Room for one record and a half is room for one.
    data = os.read(device.fd, bus.EVENT_SIZE + bus.EVENT_SIZE // 2)
    results["read 384"] = "ok" if len(data) == bus.EVENT_SIZE else str(len(data))
    device.seek(bus.SEEK_NEWEST)
    attempt("read nothing", os.read, device.fd, bus.EVENT_SIZE)
    attempt("write", os.write, device.fd, b"x" * 256)
    attempt("write to one open for it", os.write, os.open(bus.DEVICE, os.O_RDWR), b"x" * 256)
    attempt("mmap", mmap.mmap, device.fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)


def main():
    fd = os.open(bus.DEVICE, os.O_RDONLY | os.O_NONBLOCK)
    each_command(fd, COMMANDS)
    unknown_commands(fd, 0xF1, 4)
    bad_fields(fd)
    bad_reads()
    print(json.dumps(results))


main()
