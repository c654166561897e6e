# SPDX-License-Identifier: GPL-2.0
"""samples/fault-hook: errors of PCI Express devices, injected by QEMU, on the fault bus.

The Rust module and the one in C do the same.
"""

import json

import pytest
from nullhz import bus, guest

# A device behind a root port of its own. Of QEMU's network adapters, none lets its errors be
# reported; a virtio device does.
DEVICES = ["-device", "pcie-root-port,id=rp,bus=pcie.0,addr=0x10,chassis=1,slot=1"]
DEVICES += ["-device", "virtio-rng-pci,id=card,bus=rp,aer=on"]
VENDOR, DEVICE = 0x1AF4, 0x1044
# Domain, bus, device and function.
CARD, PORT = (0, 1, 0), (0, 0, 0x10 << 3)
NODE = {"devices": DEVICES}

MODULES = ("nullhz_aer", "nullhz_aer_c")
SYSFS = "/sys/class/misc/nullhz-fault"
# PCI Express 6.0, 7.8.4
POISONED_TLP, UNEXPECTED_COMPLETION, RECEIVER_ERROR, ADVISORY = 1 << 12, 1 << 16, 1 << 0, 1 << 13
TLP = [0x40000001, 0x0010000F, 0xFEB00000, 0x12345678]

# Nobody recovers the device from a fatal error, nor are its errors forgotten. So it is found anew,
# without a driver, which would have to give up: with the errors that it has logged cleared.
FRESH = """set -e
cd /sys/bus/pci/devices
echo 1 > 0000:01:00.0/remove
echo 1 > ../rescan
echo 0000:01:00.0 > ../drivers/virtio-pci/unbind || true
for status in 0x104 0x110; do
	printf '\\377\\377\\377\\377' | dd of=0000:01:00.0/config bs=1 seek=$((status)) conv=notrunc status=none
done
"""


@pytest.fixture(params=MODULES)
def hook(request, shared_node):
    """The node with one of the modules, and a reader of what it reports."""
    vm = shared_node
    vm.run(FRESH)
    # Every test opens an incident of its own.
    vm.run(f"echo 0 > {SYSFS}/incident_cooldown_ms; modprobe {request.param}")
    reader = guest.Reader(vm)
    yield vm, reader
    reader.close()
    vm.run(["rmmod", request.param])


def inject(vm, error, *header, advisory=False, device="card"):
    """An error of a device, made by QEMU, with the header of a packet as the device logs it."""
    # QEMU takes the words for bytes on their way.
    words = " ".join(f"{int.from_bytes(word.to_bytes(4, 'little')):#x}" for word in header)
    said = vm.monitor.human(f"pcie_aer_inject_error {'-a ' * advisory}{device} {error} {words}")
    assert said.startswith("OK"), said


def agent_line(vm, event):
    """What the agent prints of an event."""
    lines = vm.run("nullhz-agent events --json --source pcie_aer").stdout.splitlines()
    found = [view for view in map(json.loads, lines) if view["seq"] == event["seq"]]
    assert len(found) == 1, lines
    return found[0]


def where(event):
    return tuple(event["aer"][name] for name in ("domain", "bus", "devfn"))


def test_a_correctable_error_is_counted(hook):
    vm, reader = hook
    for number in (1, 2):
        inject(vm, "RCVR")
        event = reader.wait(20, source=bus.SRC_PCIE_AER, kind=bus.AER_CORRECTABLE, corrected=number)
        assert event["level"] == bus.WATCH
        assert event["aer"]["status"] == RECEIVER_ERROR
        assert (event["aer"]["vendor"], event["aer"]["device"]) == (VENDOR, DEVICE)
        assert where(event) == CARD
        assert not event["aer"]["has_tlp"]
        assert not event["incident"]
    text = agent_line(vm, event)["text"]
    assert text.startswith("correctable error 2 of 0000:01:00.0 "), text
    assert text.endswith(" [1af4:1044]: receiver error"), text


def test_a_port_has_errors_of_its_own(hook):
    vm, reader = hook
    inject(vm, "BAD_DLLP", device="rp")
    event = reader.wait(20, source=bus.SRC_PCIE_AER, kind=bus.AER_CORRECTABLE)
    assert where(event) == PORT
    assert agent_line(vm, event)["text"].endswith(": bad DLLP")


def test_a_link_that_gets_worse(hook):
    """The kernel's messages are ratelimited; the notifiers are not."""
    vm, reader = hook
    for number in range(1, 61):
        inject(vm, "RCVR")
        event = reader.wait(20, source=bus.SRC_PCIE_AER, corrected=number)
        assert event["level"] == (bus.DEGRADING if number == 60 else bus.WATCH)
    inject(vm, "RCVR")
    assert reader.wait(20, source=bus.SRC_PCIE_AER, corrected=61)["level"] == bus.WATCH


def test_a_non_fatal_error_comes_with_its_packet(hook):
    vm, reader = hook
    # QEMU has it non-fatal by default, as the specification.
    inject(vm, "POISON_TLP", *TLP)
    event = reader.wait(20, source=bus.SRC_PCIE_AER, kind=bus.AER_NONFATAL, status=POISONED_TLP)
    assert event["level"] == bus.DEGRADING
    assert (event["aer"]["has_tlp"], event["aer"]["tlp"]) == (1, TLP)
    assert agent_line(vm, event)["payload"]["tlp"] == " ".join(f"{word:08x}" for word in TLP)
    assert agent_line(vm, event)["text"].endswith(": poisoned TLP")


def test_an_advisory_error_is_one_event(hook):
    """Uncorrectable, but signalled as correctable: what it was is told beside."""
    vm, reader = hook
    inject(vm, "UNX_COMP", *TLP, advisory=True)
    event = reader.wait(20, source=bus.SRC_PCIE_AER, kind=bus.AER_CORRECTABLE)
    assert event["level"] == bus.WATCH
    assert event["aer"]["status"] & ADVISORY
    assert event["aer"]["advisory"] == UNEXPECTED_COMPLETION
    assert "unexpected completion" in agent_line(vm, event)["text"]
    inject(vm, "RCVR")
    reader.wait(20, source=bus.SRC_PCIE_AER, status=RECEIVER_ERROR)
    assert len(reader.events(source=bus.SRC_PCIE_AER)) == 2


def test_a_fatal_error_is_answered_with_a_snapshot(hook):
    vm, reader = hook
    inject(vm, "DLP")
    event = reader.wait(20, source=bus.SRC_PCIE_AER, kind=bus.AER_FATAL)
    assert event["level"] == bus.IMMINENT
    assert event["flags"] & bus.F_OPENED
    assert where(event) == CARD
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED, incident=event["incident"])
    assert acked["bus"]["result"] == 0 and acked["bus"]["snapshot_id"]
    text = agent_line(vm, event)["text"]
    assert text.startswith("fatal error of 0000:01:00.0 "), text


def test_they_are_one_source(shared_node):
    """The second is refused, and leaves no trace."""
    vm = shared_node
    for loaded, other in (MODULES, MODULES[::-1]):
        vm.run(["modprobe", loaded])
        refused = vm.run(["modprobe", other], check=False)
        assert refused.rc and "Device or resource busy" in refused.stderr
        assert "3 pcie_aer" in vm.read(f"{SYSFS}/sources")
        vm.run(["rmmod", loaded])
        assert "pcie_aer" not in vm.read(f"{SYSFS}/sources")


def test_unloading_while_errors_come(shared_node):
    vm = shared_node
    for _ in range(10):
        for module in MODULES:
            vm.run(["modprobe", module])
            inject(vm, "RCVR")
            vm.run(["rmmod", module])
