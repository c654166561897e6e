# SPDX-License-Identifier: GPL-2.0
"""Who may do what, and what nobody gets to see: the tests that drivers/SECURITY.md names."""

import json
import re

import pytest
from nullhz import bus, guest
from nullhz.qemu import build_dir
from records import LINE, NOWHERE, action_optional, generate, imminent, page, snapshots
from stalls import Rank, expect_stall, listen

NODE = {"append": "nullhz.agent=off", "watchdog": None}
MODES = {"nullhz-fault": "640", "nullhz-stall": "660"}
CAPABILITY = "-sys_admin"


@pytest.fixture
def vm(shared_node):
    for name in ("bus.py", "stall.py", "privileges.py"):
        guest.put_script(shared_node, name)
    return shared_node


def test_modules_are_signed(vm):
    found = vm.run("find /lib/modules/$(uname -r) -name 'nullhz_*.ko*'").stdout.split()
    assert {"nullhz_fault", "nullhz_mce", "nullhz_stall"} <= {
        path.split("/")[-1].split(".")[0] for path in found
    }
    for path in found:
        shown = vm.run(f"modinfo -F signer {path}; modinfo -F sig_hashalgo {path}").stdout.split("\n")
        assert shown[0] and shown[1].startswith("sha"), f"{path}: {shown}"


def test_device_nodes_are_closed(vm):
    """With udev those of the group get in; without it nobody but root."""

    def nodes():
        return {name: vm.run(f"stat -c '%a %U %G %F' /dev/{name}").stdout.strip() for name in MODES}

    kind = "character special file"
    assert nodes() == {name: f"{mode} root nullhz {kind}" for name, mode in MODES.items()}
    modules = "nullhz_stall nullhz_mce nullhz_fault"
    vm.run(f"pkill systemd-udevd; modprobe -r nullhz_fault_gen {modules}; modprobe -a {modules}")
    try:
        assert nodes() == {name: f"{mode} root root {kind}" for name, mode in MODES.items()}
    finally:
        vm.run(
            "/usr/lib/systemd/systemd-udevd --daemon && udevadm trigger --action=add --subsystem-match=misc"
        )
        vm.run("udevadm settle --timeout=10")
    assert nodes() == {name: f"{mode} root nullhz {kind}" for name, mode in MODES.items()}


def test_attributes_are_roots(vm):
    """Nobody else writes any, nor a module's parameters."""
    script = (
        "import json, privileges as p; print(json.dumps([[n, oct(s.st_mode & 0o7777), s.st_uid, s.st_gid]"
    )
    script += " for n, s in p.attributes()]))"
    shown = json.loads(vm.run(["python3", "-S", "-c", script], cwd=guest.HOME).stdout)
    assert len(shown) > 80
    modes = {"0o444", "0o644", "0o200"}
    wrong = [line for line in shown if line[1] not in modes or line[2:] != [0, 0]]
    assert wrong == []
    loose = vm.run("find /sys/module/nullhz_*/ -type f -perm /022").stdout
    assert loose == ""


def test_debugfs_shows_and_takes_nothing(vm):
    """What the product's modules have there can only be read, by root; what tests write to comes
    with kernels that have KUnit."""
    vm.run("modprobe -r nullhz_fault_gen nullhz_mce_gen nullhz_stall_gen nullhz_soft_gpu")
    shown = vm.run("cd /sys/kernel/debug && find nullhz_* -type f -exec stat -c '%n %a %U' {} +").stdout
    files = [line.split() for line in shown.splitlines()]
    assert {name for name, _, _ in files} == {
        "nullhz_fault/incidents",
        "nullhz_fault/readers",
        "nullhz_stall/ranks",
    }
    assert {(mode, owner) for _, mode, owner in files} == {("400", "root")}
    refused = vm.run("ls /sys/kernel/debug/nullhz_fault", user="nobody", cwd="/tmp", check=False)
    assert refused.rc and "Permission denied" in refused.stderr
    product = build_dir() / "install" / "nullhz" / "lib" / "modules"
    shipped = [path.name for path in product.glob("*/updates/**/*.ko*")]
    assert [name for name in shipped if re.search("gen|kunit|mutant", name)] == []


def privileges(vm, *wrap, **options):
    """What guest/privileges.py may, started by way of `wrap`."""
    vm.run(f"mkdir -p /tmp/security && cp {guest.HOME}/*.py /tmp/security/")
    command = [*wrap, "python3", "-S", "/tmp/security/privileges.py"]
    return json.loads(vm.run(command, cwd="/tmp", **options).stdout)


def test_root_with_its_capabilities_may(vm):
    """The counterpart of the refusals below: nothing else than the capability is missing there."""
    answers = privileges(vm)
    ioctls = {name: answers.pop(name) for name in list(answers) if name.startswith("ioctl")}
    assert ioctls == {"ioctl ACK": "ENOENT", "ioctl CHECKPOINT": "ok", "ioctl ACK of nothing": "EINVAL"}
    assert len(answers) > 30
    assert {path: error for path, error in answers.items() if error != "ok"} == {}


@pytest.mark.parametrize(
    "who", ["root without CAP_SYS_ADMIN", "root of a user namespace", "the group", "nobody"]
)
def test_the_rest_may_not(vm, who):
    """Every attribute that can be written, and every privileged ioctl."""
    wrap, options, refusals = (), {}, {"EPERM"}
    if who == "root without CAP_SYS_ADMIN":
        wrap = ("setpriv", f"--bounding-set={CAPABILITY}", f"--inh-caps={CAPABILITY}")
    elif who == "root of a user namespace":
        if vm.run("test -e /proc/self/ns/user", check=False).rc:
            pytest.skip("this kernel has no user namespaces")
        wrap = ("unshare", "--user", "--map-root-user")
    else:
        # The file's mode comes first.
        options, refusals = {"user": "nobody"}, {"EPERM", "EACCES"}
        if who == "the group":
            options["groups"] = ["nullhz"]
    answers = privileges(vm, *wrap, **options)
    assert ("ioctl ACK" in answers) == (who != "nobody"), answers
    assert len(answers) > 30
    assert {name: error for name, error in answers.items() if error not in refusals} == {}


def test_no_kernel_address_is_shown(vm):
    """In attributes, debugfs, tracepoints, the log or events, whatever had happened."""
    vm.run("echo 1 > /proc/sys/kernel/kptr_restrict")
    vm.run("for e in /sys/kernel/tracing/events/nullhz_*/enable; do echo 1 > $e; done")
    marker = "security test"
    vm.run(f"echo '{marker}' > /dev/kmsg; echo 0 > /sys/class/misc/nullhz-fault/incident_cooldown_ms")
    reader = listen(vm)
    # In the middle of the kernel; then a stall whose stacks are logged.
    kernel = {"ip": "0xffffffff81234567", "cs": 0x10, "mcgstatus": 5, "addr": hex(NOWHERE), "misc": hex(LINE)}
    generate(vm, "nullhz_mce_gen", count=1, status=hex(0xBD000000000000C0), **kernel)
    user = {**kernel, "ip": "0x401000", "cs": 0x33}
    generate(vm, "nullhz_mce_gen", count=1, status=hex(0xBD000000000000C0), **user)
    generate(vm, "nullhz_fault_gen", count=3)
    rank = Rank(vm, 50, step=300, waits=0)
    rank.do("quiet")
    expect_stall(reader, 0, rank, 300)
    rank.kill()
    script = guest.put_script(vm, "leaks.py")
    found = dict(map(reversed, json.loads(vm.run(["python3", "-S", script, marker]).stdout)))
    seen = {place: count for count, place in found.items() if isinstance(count, int)}
    assert seen["places"] > 80 and seen["records"] > 5
    leaked = {place: address for address, place in found.items() if not isinstance(address, int)}
    assert leaked == {}
    checks = guest.Reader(vm, newest=False, sources=1 << bus.SRC_MCE)
    # User space's own are told.
    shown = [event["mce"]["ip"] for event in checks.wait(10, count=2, source=bus.SRC_MCE)]
    assert shown[-2:] == [0, 0x401000]
    checks.close()
    reader.close()
    log = "\n".join(vm.dmesg())
    assert "Call Trace" in log[log.rindex(marker) :], "no stack was logged"


def test_no_byte_is_uninitialised(vm):
    """Pads and the end of payloads are zero, whatever was in the buffer before."""
    generate(vm, "nullhz_fault_gen", count=3)
    generate(vm, "nullhz_fault_gen", count=1, level="imminent")
    generate(vm, "nullhz_mce_gen", count=3)
    script = guest.put_script(vm, "uninitialised.py")
    assert json.loads(vm.run(["python3", "-S", script]).stdout) == []


def test_jobs_do_not_reach_each_other(vm):
    """Two jobs of different users, both in the device's group."""
    script = guest.put_script(vm, "jobs.py")
    answers = json.loads(vm.run(["python3", "-S", script, "nullhz"]).stdout)
    expected = {
        "child's mappings": 0,
        "child maps the inherited file": "EBUSY",
        "open through /proc": "EACCES",
        "read its memory": "EPERM",
        "open its memory": "EACCES",
        "take its file": "EPERM",
        "pages of one's own": "ok",
        "pages after them": "ok",
    }
    for who in ("", "same user: "):
        expected |= {f"{who}map page {number}": "EINVAL" for number in (1, 2, 1 << 20)}
        expected |= {f"{who}{what} without a rank": "EINVAL" for what in ("map", "leave")}
        expected |= {f"{who}register the same rank": "EEXIST", f"{who}map the lent file": "EBUSY"}
    expected["same user: map through /proc"] = "EINVAL"
    assert answers == expected


def test_all_works_in_lockdown(boot, flavour):
    """lockdown=integrity: what the node needs is neither debugfs nor raw memory."""
    vm = boot(append="lockdown=integrity")
    if vm.run("zgrep -q CONFIG_SECURITY_LOCKDOWN_LSM=y /proc/config.gz", check=False).rc:
        pytest.skip("this kernel has no lockdown")
    assert any("Kernel is locked down from command line" in line for line in vm.dmesg())
    for name in ("nullhz_fault", "nullhz_mce", "nullhz_stall"):
        assert vm.read(f"/sys/module/{name}/initstate") == "live"
    reader = guest.Reader(vm)
    action_optional(vm, page(1))
    opened = imminent(reader, page(1))
    acked = reader.wait(30, source=bus.SRC_BUS, kind=bus.BUS_ACKED)["bus"]
    assert (acked["incident"], acked["result"]) == (opened["incident"], 0)
    assert acked["snapshot_id"] in snapshots(vm)
    rank = Rank(vm, 5, step=400)
    rank.do("quiet")
    expect_stall(reader, 0, rank, 400)
    rank.kill()
    # Readable there, too.
    assert "rank pid" in vm.read("/sys/kernel/debug/nullhz_stall/ranks")
    reader.close()
