# SPDX-License-Identifier: GPL-2.0
"""Debian packages: install, upgrade, remove and purge, in a fresh Debian and on a node
with systemd, against the product kernel."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from nullhz.guest import TOP
from nullhz.qemu import build_dir
from packages import PACKAGES, base, built, field, script, system

pytestmark = [pytest.mark.long, pytest.mark.exact]

PAGES = "nullhz-agent nullhz-fault nullhz-mce nullhz-stall nullhz-mmu-batch nullhz_heartbeat"
CLIENT = "cc -Wall -Wextra -Werror -pthread /usr/share/doc/nullhz-dev/examples/trainer.c"
MODULES = ("nullhz_fault", "nullhz_mce", "nullhz_mmu_batch", "nullhz_stall")
OLD = "0.0.9"
# The runner's end of the node, which no package brings.
CHANNEL = """[Unit]
DefaultDependencies=no
After=systemd-udevd.service systemd-tmpfiles-setup-dev.service
[Service]
ExecStart=/usr/lib/nullhz-test/channel
Restart=always
[Install]
WantedBy=sysinit.target
"""


@pytest.fixture(scope="module")
def new():
    return built()


@pytest.fixture(scope="module")
def kernel():
    """The product kernel's build directory."""
    return Path(script("kernel/build", "nullhz"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Large, so not in memory, where /tmp may be."""
    place = build_dir() / "e2e" / "packages"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def add_kernel(root, kernel):
    """What an operator has before: kernel modules, what to build with, and a key to sign with."""
    release = (kernel / "include/config/kernel.release").read_text().strip()
    shutil.copytree(kernel / "install/lib/modules", root / "usr/lib/modules", symlinks=True)
    devel = root / f"usr/src/linux-headers-{release}"
    script("kernel/devel", kernel, devel)
    link = root / f"usr/lib/modules/{release}/build"
    link.unlink(missing_ok=True)
    link.symlink_to(f"/usr/src/{devel.name}")
    keys = root / "etc/keys"
    keys.mkdir(mode=0o700)
    for name in ("signing_key.pem", "signing_key.x509"):
        shutil.copy(kernel / "certs" / name, keys)
    conf = root / "etc/dkms/framework.conf.d/keys.conf"
    conf.write_text("mok_signing_key=/etc/keys/signing_key.pem\nmok_certificate=/etc/keys/signing_key.x509\n")
    return release


def add_channel(root):
    place = root / "usr/lib/nullhz-test"
    place.mkdir()
    shutil.copy(TOP / "scripts/node/usr/lib/nullhz/channel", place)
    shutil.copy(TOP / "scripts/nullhz/frames.py", place)
    units = root / "etc/systemd/system"
    (units / "channel.service").write_text(CHANNEL)
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    (units / "sysinit.target.wants/channel.service").symlink_to("/etc/systemd/system/channel.service")


@pytest.fixture(scope="module")
def installed(new, kernel, work):
    """A system through the packages' life; what was seen, and the disk of a node."""
    old = built([OLD])
    seen = {"old": old, "new": new, "disk": work / "disk"}
    mounted = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount: {mounted.stderr.strip()}")
    with system(base(new), work / "system") as debian:
        seen["release"] = add_kernel(debian.root, kernel)
        add_channel(debian.root)
        debian.run(f"depmod {seen['release']}")
        state = "dkms status; getent group; getent passwd"
        seen["before"] = debian.files(), debian.run(state).stdout

        seen["install"] = debian.install(old)
        seen["old status"] = debian.run("dkms status").stdout
        seen["upgrade"] = debian.install(new)
        seen["status"] = debian.run("dkms status").stdout
        seen["files"] = debian.files()
        seen["modinfo"] = {
            name: debian.run(f"modinfo -k {seen['release']} {name}").stdout for name in MODULES
        }
        seen["versions"] = debian.run(
            f"dpkg-query -W -f '${{Package}} ${{Version}} ${{Status}}\\n' {' '.join(PACKAGES)}"
        ).stdout
        seen["verify"] = debian.run(f"dpkg --verify {' '.join(PACKAGES)}").stdout
        seen["pages"] = debian.run(f"for page in {PAGES}; do man -w $page || exit 1; done").stdout
        seen["client"] = debian.run(f"{CLIENT} -o /tmp/trainer && cd /tmp && ./trainer", check=False)
        seen["python"] = debian.run("python3 -c 'import nullhz_stall; print(nullhz_stall.__file__)'").stdout
        seen["completion"] = debian.run(
            "bash -c '. /usr/share/bash-completion/completions/nullhz-agent; complete -p nullhz-agent'"
        ).stdout
        debian.pack(seen["disk"])
        seen["refused"] = refusals(debian, seen["release"])

        debian.run(f"dpkg --remove {' '.join(PACKAGES)}")
        seen["removed"] = debian.files(), debian.run(state).stdout
        debian.run(f"dpkg --purge {' '.join(PACKAGES)}")
        seen["after"] = debian.files(), debian.run(state).stdout
    return seen


def refusals(debian, release):
    """What DKMS says of other kernels: name -> (exit status, what it said)."""
    devel = f"/usr/src/linux-headers-{release}"
    version = debian.run("dkms status").stdout.split("/")[1].split(",")[0]
    build = "dkms build nullhz/" + version + " -k {}"
    said = {}
    for other, change in {
        # A rescue kernel of the distribution.
        "6.12.9-rt-amd64": "",
        # Ours, with headers as they are packaged today.
        "7.3.4-nullhz-headers": "rm rust/*.rmeta",
        "7.3.4-nullhz-plain": "sed -i '/watchdog_gate_install/d' Module.symvers",
        "7.3.4-nullhz-gcc": "sed -i 's/^CONFIG_RUSTC_VERSION_TEXT=.*/"
        'CONFIG_RUSTC_VERSION_TEXT="rustc 1.80.0"/\' include/config/auto.conf',
    }.items():
        tree, place = f"/root/{other}", f"/usr/lib/modules/{other}"
        make = f"mkdir {place} && cp -al {devel} {tree} && ln -s {tree} {place}/build && cd {tree}"
        debian.run(f"{make} && {change or 'true'}")
        done = debian.run(build.format(other), check=False)
        said[other] = done.returncode, done.stderr
        debian.run(f"dkms remove nullhz/{version} -k {other}; rm -rf {tree} {place}", check=False)
    return said


def test_lintian(new):
    """scripts/deb fails on errors and warnings; what it overrides stands in scripts/debian."""
    log = (build_dir() / "log/deb-lintian.log").read_text()
    assert not re.search(r"^[EW]: ", log, re.M), log
    assert set(new) == set(PACKAGES)


def test_same_tree_same_packages(new):
    before = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in new.items()}
    again = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in built().items()}
    assert again == before


def test_built_installed_and_signed(installed):
    release = installed["release"]
    old, new = (
        field(packages["nullhz-dkms"], "Version") for packages in (installed["old"], installed["new"])
    )
    assert old == OLD != new
    assert installed["old status"].split() == f"nullhz/{old}, {release}, x86_64: installed".split()
    # The old version went with its modules.
    assert installed["status"].split() == f"nullhz/{new}, {release}, x86_64: installed".split()
    assert installed["versions"] == "".join(f"{name} {new} install ok installed\n" for name in PACKAGES)
    for name, text in installed["modinfo"].items():
        assert f"/updates/dkms/{name}.ko" in text
        assert re.search(r"^signer: +\S", text, re.M), text
        assert re.search(rf"^vermagic: +{re.escape(release)} ", text, re.M), text
    assert installed["verify"] == ""


def test_man_pages_name_every_parameter(installed):
    assert len(installed["pages"].split()) == len(PAGES.split())
    for name, text in installed["modinfo"].items():
        short = name.removeprefix("nullhz_")
        page = (TOP / "drivers" / short / f"nullhz-{short.replace('_', '-')}.4").read_text()
        for parameter in re.findall(r"^parm: +(\w+):", text, re.M):
            assert f".It Cm {parameter}\n" in page, f"{name}: {parameter}"


def test_clients(installed):
    assert installed["client"].returncode == 0, installed["client"].stderr
    assert installed["python"].strip() == "/usr/lib/python3/dist-packages/nullhz_stall/__init__.py"
    assert "nullhz-agent" in installed["completion"]


@pytest.mark.parametrize(
    ("release", "says"),
    [
        ("6.12.9-rt-amd64", "does not match this kernel"),
        ("7.3.4-nullhz-headers", "no Rust metadata"),
        ("7.3.4-nullhz-plain", "without the nullhz series"),
        ("7.3.4-nullhz-gcc", "Rust modules need the very same compiler"),
    ],
)
def test_kernels_that_do_not_fit(installed, release, says):
    rc, stderr = installed["refused"][release]
    assert rc != 0
    assert sum(says in line for line in stderr.splitlines()) == 1, stderr
    # A kernel that is none of ours is no failure: exit status 77, "skipped".
    assert (rc == 77) == (release[0] == "6")


def test_purge_leaves_nothing(installed):
    before, states = installed["before"]
    after, states_after = installed["after"]
    assert after == before
    assert states_after == states
    # And it was no empty installation.
    assert len(installed["files"].keys() - before.keys()) > 100
    # Removed, not purged: the group stays, and what says that the agent is enabled.
    left, states_left = installed["removed"]
    assert "nullhz:" in states_left
    more = left.keys() - before.keys()
    assert all(path.startswith("etc/systemd/system/") for path in more), more


@pytest.fixture(scope="module")
def node(nodes, installed, work):
    empty = work / "empty"
    empty.write_bytes(bytes(512))
    vm = nodes.boot(
        "packages",
        fresh=True,
        flavour="nullhz",
        image=empty,
        memory=2048,
        append="root=/dev/vdc rw rootfstype=btrfs",
        devices=[
            *("-blockdev", f"file,node-name=system,filename={installed['disk']}"),
            *("-device", "virtio-blk-pci,drive=system,addr=6"),
        ],
    )
    yield vm
    nodes.stop()


def test_node_with_systemd(node):
    """Modules, device nodes and agent come by themselves; a purge ends the agent and leaves nothing."""
    vm = node
    # The agent's volume; udev has started the agent when the bus was loaded.
    vm.run("udevadm settle; mkfs.btrfs -q -L checkpoint /dev/vdb && mount -m LABEL=checkpoint /checkpoint")
    vm.run("btrfs -q subvolume create /checkpoint/current", timeout=60)
    assert vm.read("/proc/sys/vm/swappiness") == "0"
    # This runs earlier than some of what systemd starts.
    vm.run("for i in $(seq 60); do systemctl -q is-active nullhz-node && exit; sleep 1; done; exit 1", 90)
    total = int(re.search(r"MemTotal: +(\d+)", vm.read("/proc/meminfo"))[1])
    assert int(vm.read("/proc/sys/vm/min_free_kbytes")) >= total // 32
    loaded = vm.run("lsmod").stdout
    assert all(name in loaded for name in MODULES[:2] + MODULES[3:]), loaded
    # The hardware watchdog's driver came first.
    assert "i6300esb" in loaded
    for device, mode in (("fault", "640"), ("stall", "660")):
        assert vm.run(f"stat -c '%U %G %a' /dev/nullhz-{device}").stdout.split() == ["root", "nullhz", mode]
    # Refused, were it not signed with the kernel's key.
    vm.run("modprobe nullhz_mmu_batch")
    assert vm.read("/sys/module/module/parameters/sig_enforce") == "Y"

    vm.run("systemctl restart nullhz-agent", timeout=60)
    status = vm.run(
        "for i in $(seq 60); do nullhz-agent status > /tmp/status && [ -s /run/nullhz/agent.json ] && break;"
        " sleep 1; done; systemctl is-active nullhz-agent; cat /tmp/status",
        timeout=120,
    ).stdout
    assert status.startswith("active\n"), status
    assert vm.run("systemctl show -p UnitFileState --value nullhz-agent").stdout.strip() == "enabled"

    # Without a bus it is not tried again every second.
    vm.run("systemctl stop nullhz-agent && mv /dev/nullhz-fault /dev/away && systemctl start nullhz-agent")
    assert vm.run("sleep 3; systemctl is-active nullhz-agent", check=False).stdout == "inactive\n"
    vm.run("mv /dev/away /dev/nullhz-fault")

    vm.run(f"dpkg --purge {' '.join(PACKAGES)}", timeout=300)
    assert vm.run("pgrep nullhz-agent", check=False).rc == 1
    assert vm.run("systemctl is-enabled nullhz-agent", check=False).rc != 0
    assert vm.run("getent group nullhz", check=False).rc == 2
    assert vm.run("dkms status").stdout == ""
    left = vm.run(
        "find / -xdev -iname '*nullhz*' -not -path '/usr/lib/nullhz-test*' -not -path '/var/lib/dpkg/*'"
    )
    kept = {"linux-headers", "/usr/lib/modules/", "/run/", "/tmp/", "/root/", "/var/log/"}
    assert [path for path in left.stdout.split() if not any(word in path for word in kept)] == []
    assert vm.run("modprobe -n nullhz_fault", check=False).rc != 0
