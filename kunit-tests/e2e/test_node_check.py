# SPDX-License-Identifier: GPL-2.0
"""nullhz-node-check on the product's node: all rows kept; and what is changed is found, nothing else."""

import json

from nullhz.node_check import PROGRAM, node_check, settle

# Not of this machine, or not with this kernel.
NEVER = {"CPU frequency is not lowered", "transparent huge pages always", "the OOM killer spares training"}

# Each breaks the promises beside it; together they are all that breaks.
CHANGES = {
    "echo 1 > /proc/sys/vm/swappiness": {"vm.swappiness"},
    "echo 1 > /proc/sys/vm/zone_reclaim_mode": {"vm.zone_reclaim_mode"},
    "echo 20 > /proc/sys/vm/dirty_ratio": {"vm.dirty_ratio"},
    "echo 5 > /proc/sys/vm/dirty_background_ratio": {"vm.dirty_background_ratio"},
    "echo 0 > /proc/sys/vm/overcommit_memory": {"vm.overcommit_memory"},
    "echo 4096 > /proc/sys/vm/min_free_kbytes": {"vm.min_free_kbytes"},
    "echo 15 > /proc/sys/vm/nr_hugepages": {"2 MB huge pages set aside at boot"},
    # The console's.
    "echo 4 > /proc/irq/4/smp_affinity": {"interrupts of devices stay there"},
    "echo f > /proc/irq/default_smp_affinity": {"new interrupts go to the OS cores"},
    # Their workers may go there then.
    "echo f > /sys/devices/virtual/workqueue/cpumask": {
        "... nor unbound work items",
        "... no free kernel thread may either",
    },
    "taskset -c 2 sleep 300 & for i in $(seq 20); do sleep 300 & done": {
        "... no process may run there",
        "few processes",
    },
    "chmod 666 /dev/nullhz-fault": {"/dev/nullhz-fault"},
    "chown nobody /dev/nullhz-stall": {"/dev/nullhz-stall"},
    "echo 0 > /sys/class/misc/nullhz-stall/tunables/reset": {"a hardware watchdog runs through the gate"},
    "modprobe -r nullhz_mce": {"fault modules are loaded", "an audit trail by tracepoints"},
    "chrt -a -o -p 0 $(pidof nullhz-agent)": {"the snapshot agent runs, real-time, on the OS cores"},
    "umount -l /checkpoint": {"checkpoint volume"},
}
# A server of each kind, and a client, which is none.
LISTENERS = """
import socket, time
servers = [socket.socket(), socket.socket(type=socket.SOCK_DGRAM)]
servers[0].bind(("127.0.0.1", 2222))
servers[0].listen()
servers[1].bind(("0.0.0.0", 5353))
client = socket.create_connection(("127.0.0.1", 2222))
print("ready", flush=True)
time.sleep(300)
"""
# Without a word of isolation on the boot line.
UNISOLATED = {
    "training cores are isolated",
    "... their tick may stop",
    "... and does on every busy one",
    "... their RCU callbacks run elsewhere",
    "... no process may run there",
    "... no free kernel thread may either",
    "... nor unbound work items",
    "new interrupts go to the OS cores",
    "the snapshot agent runs, real-time, on the OS cores",
}


def check(vm, *options):
    """({claim: row}, claims that are not kept)"""
    result = node_check(vm, "--json", *options)
    assert result.rc in (0, 1), result
    shown = json.loads(result.stdout)
    failed = {row["claim"] for row in shown["rows"] if row["verdict"] == "FAILED"}
    assert shown["ok"] == (not failed) == (result.rc == 0)
    return {row["claim"]: row for row in shown["rows"]}, failed


def test_the_product_keeps_its_promises(boot):
    vm = boot(flavour="nullhz")
    settle(vm)
    rows, failed = check(vm)
    assert not failed, [rows[name] for name in failed]
    assert {name for name, row in rows.items() if row["verdict"] == "-"} <= NEVER
    assert len(rows) > 40


def test_what_is_changed_is_found_and_nothing_else(boot):
    vm = boot(flavour="nullhz")
    settle(vm)
    for command in CHANGES:
        vm.run(f"{{ {command}; }} > /dev/null 2>&1")
    servers = vm.spawn(["python3", "-c", LISTENERS])
    assert servers.read_line(10) == "ready"
    rows, failed = check(vm, "--patience", "20")
    assert failed == {"no listening sockets"}.union(*CHANGES.values())
    assert rows["no listening sockets"]["seen"] == "tcp 127.0.0.1 port 2222, udp 0.0.0.0 port 5353"
    assert rows["interrupts of devices stay there"]["seen"].startswith("IRQ 4 elsewhere")
    servers.kill()


def test_a_node_without_isolation_fails(boot):
    vm = boot(flavour="nullhz", housekeeping=4)
    settle(vm)
    rows, failed = check(vm, "--patience", "2")
    # Where the interrupts of the devices go is a matter of chance here.
    assert failed - {"interrupts of devices stay there"} == UNISOLATED
    assert int(rows["... and does on every busy one"]["seen"].split()[0]) > 50


def test_another_kernel_is_told_from_the_product(shared_node):
    rows, failed = check(shared_node, "--huge-pages", "17")
    assert {"only signed modules are loaded", "kernel configuration"} <= failed
    assert "CONFIG_MODULE_SIG_FORCE" in rows["kernel configuration"]["seen"]
    assert rows["2 MB huge pages set aside at boot"]["verdict"] == "FAILED"


def test_only_root_may_look(shared_node):
    result = shared_node.run([PROGRAM], user="nobody", check=False)
    assert result.rc == 2 and "root" in result.stderr


def test_copied_to_another_node(shared_node):
    """The two files, and nothing of the image."""
    shared_node.run(f"mkdir /tmp/copy && cp {PROGRAM} /usr/lib/nullhz/node_facts.py /tmp/copy")
    hide = "mount -t tmpfs none /usr/lib/nullhz && mount -t tmpfs none /usr/share/nullhz"
    command = f"unshare -m sh -c '{hide} && /tmp/copy/nullhz-node-check'"
    result = shared_node.run(command, timeout=60, check=False)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["claim", "expected", "seen", "verdict"] and "kept" in lines[-1], result
    assert [line for line in lines if line.startswith("kernel configuration") and "cannot tell" in line]
