# SPDX-License-Identifier: GPL-2.0
"""Machine-check records that the scenarios raise, and what raises them."""

import json

from nullhz import bus

# Corrected: memory read on channel 0, one error; address and MISC valid.
CORRECTED = 0x8C00004000010090
# Uncorrected, signalled, action optional: found by the memory's patrol scrub.
ACTION_OPTIONAL = 0xBD000000000000C0
# Uncorrected, not signalled: memory read.
UCNA = 0xBC00000000000090
# What QEMU puts into bank 1 of the other CPUs of a broadcast.
BYSTANDER = 0xA000000000000000
# Uncorrected, processor context corrupt: internal timer error.
FATAL = 0xBE00000000800400
# On AMD without recovery every uncorrected error is fatal: DRAM, on northbridge.
AMD_UNCORRECTED = 0xB400000000080813

# MCi_MISC: a physical address, valid down to a cache line, or to a page.
LINE, WHOLE_PAGE = 0x86, 0x8C
# MCG_STATUS: MCIP with RIPV, or without.
RESTARTABLE, NOT_RESTARTABLE = 5, 4
# Above all RAM, so that the kernel's own handling of the page changes nothing.
NOWHERE = 0x12_0000_0000


def page(number):
    """Address of a page that nothing has."""
    return NOWHERE + (number << 12)


def corrected(vm, addr, cpu=0, bank=7):
    """A corrected memory error, found by the next poll; returns the host's time before it."""
    return vm.mce(cpu, bank, CORRECTED, addr=addr, misc=LINE)


def action_optional(vm, addr, cpu=0):
    """A machine check on all CPUs that the node survives."""
    return vm.mce(cpu, 5, ACTION_OPTIONAL, RESTARTABLE, addr=addr, misc=WHOLE_PAGE, broadcast=True)


def fatal(vm, addr=NOWHERE, cpu=1):
    """A machine check on all CPUs that the node does not survive."""
    vm.expect("Kernel panic - not syncing: Fatal")
    return vm.mce(cpu, 4, FATAL, NOT_RESTARTABLE, addr=addr, misc=LINE, broadcast=True)


def imminent(reader, addr, timeout=20, **fields):
    """Waits for the event of action_optional()."""
    fields = {"status": ACTION_OPTIONAL, **fields}
    return reader.wait(timeout, source=bus.SRC_MCE, addr=addr, level=bus.IMMINENT, **fields)


def inject(vm, status, addr=0, misc=0, bank=7, cpu=0):
    """Logs a record at once through the kernel's mce-inject module."""
    path = "/sys/kernel/debug/mce-inject"
    values = {"flags": "sw", "cpu": cpu, "status": status, "addr": addr, "misc": misc, "bank": bank}
    writes = (
        f"echo {value if name == 'flags' else hex(value)} > {path}/{name}" for name, value in values.items()
    )
    vm.run("set -e; modprobe mce-inject; " + "; ".join(writes))


def generate(vm, module, **job):
    """Has nullhz_fault_gen or nullhz_mce_gen do a job; returns when it is done."""
    text = " ".join(f"{name}={value}" for name, value in job.items())
    vm.run(f"modprobe {module} && echo '{text}' > /sys/kernel/debug/{module}/run", 300)


def mce_counter(vm, name):
    """One of nullhz_mce's counters."""
    return int(vm.read(f"/sys/devices/faux/nullhz_mce/counters/{name}"))


def agent_status(vm):
    """What the snapshot agent says of itself; None before its first word."""
    return json.loads(vm.run(["nullhz-agent", "status", "--json"]).stdout)["agent"]


def snapshots(vm):
    """{subvolume id: path} of the snapshots in the node."""
    found = {}
    for name in vm.run(["ls", "/checkpoint/.snapshots"]).stdout.split():
        path = f"/checkpoint/.snapshots/{name}"
        found[int(vm.run(["btrfs", "inspect-internal", "rootid", path]).stdout)] = path
    return found
