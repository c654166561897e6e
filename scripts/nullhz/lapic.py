# SPDX-License-Identifier: GPL-2.0
"""Tells a kernel how fast its local APIC's timer counts, before it starts.

Linux takes the frequency of its TSC from the boot line, but measures that of its timers against
another clock, which a machine whose time is not the host's does not have. QEMU's debugger stub
stops it where its variables are there, and nothing has looked at them yet.
"""

import socket
import time

from .errors import BootError

STOP_AT = "start_kernel"
VARIABLE = "lapic_timer_period"
# Of the virtual machine's: it counts ns.
LAPIC_HZ = 1_000_000_000
# CONFIG_HZ
JIFFIES_HZ = 100
PATIENCE_S = 60


def addresses(kernel):
    """Where the two symbols are in the kernel whose vmlinux is given; it is not moved."""
    lines = (line.split() for line in kernel.with_name("System.map").read_text().splitlines())
    found = {name: int(address, 16) for address, _, name in lines if name in (STOP_AT, VARIABLE)}
    if len(found) != 2:
        raise BootError(f"{kernel}: no {STOP_AT} or no {VARIABLE}")
    return found[STOP_AT], found[VARIABLE]


class Stub:
    """GDB's remote protocol, as far as it is needed."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._read = b""

    def ask(self, text):
        """The answer to a command."""
        self._socket.sendall(f"${text}#{sum(text.encode()) & 255:02x}".encode())
        while True:
            _, begun, rest = self._read.partition(b"$")
            answer, ended, check = rest.partition(b"#")
            if begun and ended and len(check) >= 2:
                self._read = check[2:]
                self._socket.sendall(b"+")
                return answer.decode()
            more = self._socket.recv(4096)
            if not more:
                raise BootError("QEMU's debugger stub has closed the connection")
            self._read += more

    def demand(self, text):
        if (answer := self.ask(text)) != "OK":
            raise BootError(f"QEMU's debugger stub answers {text!r} with {answer!r}")


def tell(path, kernel, per_ns):
    """Starts the stopped machine at whose stub `path` is, with the period of its timer set.

    `per_ns`: how many ns of the machine's own time are one of the kernel's.
    """
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > end:
            raise BootError("QEMU offers no debugger stub")
        time.sleep(0.01)
    start, variable = addresses(kernel)
    period = LAPIC_HZ // JIFFIES_HZ * per_ns
    stub = Stub(path)
    stub.ask("?")
    stub.demand(f"Z1,{start:x},1")
    if not (stopped := stub.ask("c")).startswith("T05"):
        raise BootError(f"the kernel has stopped with {stopped!r}")
    stub.demand(f"M{variable:x},4:{period.to_bytes(4, 'little').hex()}")
    stub.demand(f"z1,{start:x},1")
    stub.demand("D")
