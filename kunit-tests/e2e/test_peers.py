# SPDX-License-Identifier: GPL-2.0
"""Who else reads machine checks goes on seeing every one of them."""

import json

import pytest
from nullhz import bus, guest
from records import CORRECTED, LINE, page

NODE = {"append": "nullhz.agent=off"}
RECORDS = 200
TRACING = "/sys/kernel/tracing"


@pytest.fixture
def vm(shared_node):
    shared_node.run("modprobe mce-inject")
    return shared_node


def inject(vm, base):
    """RECORDS corrected errors, each at a page of its own, slowly enough for all."""
    program = guest.put_program(vm, "inject")
    vm.run([program, str(RECORDS), hex(CORRECTED), hex(page(base)), "4096", hex(LINE), "2000"], 60)


def expected(base):
    return [page(base + number) for number in range(RECORDS)]


@pytest.fixture(params=["loaded", "not loaded"])
def modules(request, vm):
    if request.param == "loaded":
        vm.run("modprobe nullhz_mce")
    else:
        vm.run("modprobe -r nullhz_stall nullhz_mce nullhz_fault")
    yield request.param
    vm.run("modprobe nullhz_mce")


def test_the_tracepoint_sees_every_record(vm, modules):
    base = 1000
    instance = f"{TRACING}/instances/e2e"
    vm.run(f"mkdir -p {instance} && echo > {instance}/trace")
    vm.run(f"echo 1 > {instance}/events/mce/mce_record/enable")
    reader = guest.Reader(vm) if modules == "loaded" else None
    inject(vm, base)
    lines = vm.run(f"cat {instance}/trace").stdout.splitlines()
    seen = [int(line.split("ADDR: ")[1].split(",")[0], 16) for line in lines if "mce_record:" in line]
    assert seen == expected(base)
    if reader:
        ours = reader.wait(20, count=RECORDS, source=bus.SRC_MCE)
        assert [event["mce"]["addr"] for event in ours] == expected(base)
        reader.close()
    vm.run(f"echo 0 > {instance}/events/enable; rmdir {instance}")


def test_rasdaemon_sees_every_record(vm, modules):
    base = 5000
    vm.run("rm -f /var/lib/rasdaemon/ras-mc_event.db")
    daemon = vm.spawn(["rasdaemon", "--foreground", "--record"], timeout=120)
    instance = f"{TRACING}/instances/rasdaemon"
    vm.run(f"until grep -qs 1 {instance}/events/mce/mce_record/enable; do sleep 0.1; done", 20)
    # This version waits for half a buffer of events; later ones do this themselves.
    vm.run(f"echo 0 > {instance}/buffer_percent")
    inject(vm, base)
    query = (
        "import json, sqlite3\n"
        "rows = sqlite3.connect('/var/lib/rasdaemon/ras-mc_event.db').execute(\n"
        "    'SELECT addr, status FROM mce_record ORDER BY id')\n"
        "print(json.dumps(list(rows)))\n"
    )
    # A row that rasdaemon cannot insert because somebody reads the database is lost: wait until
    # it has written nothing for a second, end it, and read then.
    vm.run(
        "db=/var/lib/rasdaemon/ras-mc_event.db; was=; now=$(stat -c %y $db)\n"
        'until [ "$was" = "$now" ]; do was=$now; sleep 1; now=$(stat -c %y $db); done',
        40,
    )
    daemon.kill()
    daemon.wait(20)
    rows = json.loads(vm.run(["python3", "-c", query]).stdout)
    # It reads the buffers of the CPUs one after the other.
    assert sorted(row[0] for row in rows) == expected(base), len(rows)


def test_mcelog_device_sees_every_record(vm, modules):
    """/dev/mcelog of the test kernel keeps the newest 32 or more of them."""
    base = 9000
    vm.run("cat /dev/mcelog > /dev/null", check=False)
    program = guest.put_program(vm, "inject")
    vm.run([program, "20", hex(CORRECTED), hex(page(base)), "4096", hex(LINE), "5000"])
    vm.run("sleep 0.5")
    read = (
        "import ctypes, fcntl, json, os, struct\n"
        "fd = os.open('/dev/mcelog', os.O_RDONLY)\n"
        "length, = struct.unpack('i', fcntl.ioctl(fd, 0x80044D01, b'0000'))\n"
        "size, = struct.unpack('i', fcntl.ioctl(fd, 0x80044D02, b'0000'))\n"
        "data = os.read(fd, length * size)\n"
        "addrs = [struct.unpack_from('Q', data, at + 16)[0] for at in range(0, len(data), length)]\n"
        "print(json.dumps(addrs))\n"
    )
    seen = json.loads(vm.run(["python3", "-c", read]).stdout)
    assert seen == expected(base)[:20]
