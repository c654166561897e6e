# SPDX-License-Identifier: GPL-2.0
"""A Debian system in a folder, to install the project's packages in."""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

from nullhz.guest import TOP
from nullhz.qemu import build_dir

PACKAGES = ("nullhz-agent", "nullhz-dev", "nullhz-dkms", "nullhz-node", "python3-nullhz-stall")
# What the system has besides what the packages depend on.
SYSTEM = ("dbus", "gcc", "kmod", "libc6-dev", "lintian", "man-db", "systemd-sysv", "udev", "util-linux")
# Written by the system's own tools whenever anything is installed.
KEPT_BY_OTHERS = re.compile(
    r"(var/(lib/(dpkg|apt|systemd|man-db|ucf)|log|cache)|run|proc|sys|dev|tmp|root)(/|$)|"
    r"etc/(group|gshadow|passwd|shadow|subuid|subgid)-$|etc/\.pwd\.lock$|etc/ld\.so\.cache$|"
    r"usr/lib/modules/[^/]+/modules\.\w+(\.bin)?$|var/lib/dkms/dkms_dbversion$"
)
# Of no use in the virtual machine, where nothing is compiled.
TOOLCHAIN = ("usr/lib/llvm-*", "usr/lib/rustlib", "usr/lib/gcc", "usr/share/doc/*", "usr/share/perl")
TOOLCHAIN += ("usr/lib/x86_64-linux-gnu/lib*LLVM*", "usr/lib/x86_64-linux-gnu/librustc*", "usr/share/locale")
TOOLCHAIN += ("usr/lib/x86_64-linux-gnu/libclang*", "usr/include/*", "usr/share/lintian")


def script(*command, **options):
    """One of scripts/, in its own words on standard error; returns what it prints."""
    done = subprocess.run(
        [TOP / "scripts" / command[0], *command[1:]], stdout=subprocess.PIPE, text=True, **options
    )
    assert done.returncode == 0, f"scripts/{' '.join(map(str, command))} failed"
    return done.stdout.strip()


def built(version=()):
    """The packages, by name."""
    return {Path(path).name.partition("_")[0]: Path(path) for path in script("deb", *version).split()}


def field(package, name):
    command = ["dpkg-deb", "--field", package, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def dependencies(packages):
    """What the packages depend on beside each other: the first of each choice."""
    wanted = set(SYSTEM)
    for package in packages.values():
        for choice in filter(None, field(package, "Depends").split(", ")):
            wanted.add(re.match(r"[\w.+-]+", choice)[0])
    return sorted(wanted - set(PACKAGES))


def base(packages):
    """A fresh Debian of this machine's release with what the packages depend on; cached."""
    codename = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())[1]
    sources = script("apt-sources", "own")
    wanted = dependencies(packages)
    key = hashlib.sha256(repr((sources, wanted)).encode()).hexdigest()[:12]
    cache = Path(os.environ["NULLHZ_CACHE"]) / "image"
    tree = cache / f"base-packages-{codename}-{key}"
    if not tree.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = tree.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--include={','.join(wanted)}"]
        with open(build_dir() / "log/packages-base.log", "w") as log:
            subprocess.run(
                [*command, codename, part], input=sources, text=True, stdout=log, stderr=log, check=True
            )
        part.rename(tree)
    os.utime(tree)
    return tree


class System:
    """A writable copy of a tree, without copying it; `root` is its folder."""

    def __init__(self, tree, work):
        self.root = work / "root"
        for name in ("root", "upper", "work"):
            (work / name).mkdir(parents=True)
        self.options = f"lowerdir={tree},upperdir={work / 'upper'},workdir={work / 'work'}"

    def mount(self):
        subprocess.run(["mount", "-t", "overlay", "-o", self.options, "overlay", self.root], check=True)

    def umount(self):
        subprocess.run(["umount", self.root], check=True)

    def run(self, command, check=True):
        """In the system, with a /proc of its own; `command`: for sh."""
        inside = (
            f"mount -t proc proc /proc && exec env -i PATH=/usr/sbin:/usr/bin sh -c {shlex.quote(command)}"
        )
        outside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", self.root, "sh", "-c"]
        done = subprocess.run([*outside, inside], capture_output=True, text=True, timeout=600)
        assert not check or done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def install(self, packages):
        """All of them in one go; what they depend on is there."""
        into = self.root / "root/packages"
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        for package in packages.values():
            shutil.copy(package, into)
        return self.run("DEBIAN_FRONTEND=noninteractive dpkg --install /root/packages/*.deb")

    def files(self):
        """Every file that is not kept by others: path -> mode, owner and contents."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            for name in [*folders, *names]:
                path = Path(folder, name)
                inside = str(path.relative_to(self.root))
                if KEPT_BY_OTHERS.match(inside):
                    continue
                status = path.lstat()
                contents = os.readlink(path) if path.is_symlink() else ""
                if inside.startswith("etc/") and stat.S_ISREG(status.st_mode):
                    contents = hashlib.sha256(path.read_bytes()).hexdigest()
                elif stat.S_ISREG(status.st_mode):
                    contents = str(status.st_size)
                found[inside] = (oct(status.st_mode), status.st_uid, status.st_gid, contents)
            folders[:] = [
                name
                for name in folders
                if not KEPT_BY_OTHERS.match(str(Path(folder, name).relative_to(self.root)))
            ]
        return found

    def pack(self, disk, size="2G"):
        """The system as a disk for a virtual machine, without its compilers."""
        left_out = [
            f"--exclude=./{pattern}" for pattern in (*TOOLCHAIN, "proc/*", "sys/*", "dev/*", "var/cache/*")
        ]
        staged = disk.with_suffix(".tree")
        staged.mkdir()
        pipe = f"tar -C {shlex.quote(str(self.root))} {shlex.join(left_out)} -cf - . | tar -C {staged} -xf -"
        subprocess.run(["bash", "-o", "pipefail", "-c", pipe], check=True)
        subprocess.run(["truncate", "-s", size, disk], check=True)
        subprocess.run(["mkfs.btrfs", "--quiet", "--rootdir", staged, disk], check=True)
        shutil.rmtree(staged)


@contextlib.contextmanager
def system(tree, work):
    debian = System(tree, work)
    debian.mount()
    try:
        yield debian
    finally:
        debian.umount()
        shutil.rmtree(work)
