# SPDX-License-Identifier: GPL-2.0
"""uninitialised.py: looks for bytes that nobody has written in what the kernel gives to user space:
pads, the ends of payloads, answers of ioctls over a buffer that was full. Prints them as JSON.
"""

import ctypes
import fcntl
import json

import bus
import stall


def answer(fd, command, kind, **fields):
    """Where an ioctl leaves a buffer's former content, whatever that is."""
    left = set(range(ctypes.sizeof(kind)))
    for old in (0xAA, 0x55):
        record = kind.from_buffer_copy(bytes([old]) * ctypes.sizeof(kind))
        for name, value in fields.items():
            setattr(record, name, value)
        fcntl.ioctl(fd, command, record)
        left &= {at for at, byte in enumerate(bytes(record)) if byte == old}
    return [(kind.__name__, at) for at in sorted(left)]


def in_events(device):
    events = device.read()
    assert len(events) > 5
    for event in events:
        if event.pad or any(bytes(event.payload)[event.payload_len :]):
            yield f"record of source {event.source}, kind {event.kind}"
        if event.source == bus.SRC_MCE and bus.Mce.from_buffer_copy(bytes(event.payload)).pad:
            yield "payload of a machine check"


def main():
    device, rank = bus.Device(), stall.Device()
    rank.register(0xBEEF)
    page = rank.map()
    found = list(in_events(device))
    found += answer(device.fd, bus.IOC_INFO, bus.Info)
    found += answer(rank.fd, stall.IOC_INFO, stall.Info)
    found += answer(rank.fd, stall.IOC_RANK, stall.Rank, index=0)
    found += answer(rank.fd, stall.IOC_CHECKPOINT, stall.Checkpoint)
    if last := device.info().last_incident:
        found += answer(device.fd, bus.IOC_INCIDENT, bus.Incident, incident=last)
    if any(page.kernel_reserved) or any(page.buffer[ctypes.sizeof(page) :]):
        found.append("heartbeat page")
    rank.leave()
    print(json.dumps(found))


main()
