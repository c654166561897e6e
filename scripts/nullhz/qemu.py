# SPDX-License-Identifier: GPL-2.0
"""QEMU's command line for a node."""

import functools
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SetupError

PROGRAM = "qemu-system-x86_64"
PORT_NAME = "nullhz.shell"
# Memory that keeps its contents and its address over a warm reset: last words
# of the fault bus, the stall watchdog's ledger of resets.
RESERVED = {"nullhz": "1M", "nullhz-stall": "64K"}

# Of what counts instructions: more, and the local APIC's timer would count more than one in a
# nanosecond, which Linux does not expect.
MAX_PER_NS = 15

# What makes the machine have which watchdog; each resets it.
WATCHDOGS = {
    "i6300esb": ["-device", "i6300esb"],
    # Every q35 has one; its strap lets it report only, unless told otherwise.
    "itco": ["-global", "ICH9-LPC.noreboot=false"],
}

# A Xeon whose machine checks are survivable: QEMU's own models are AMD's, or
# lack the software error recovery (MCG_SER_P) that comes with "max" here.
INTEL = "max,vendor=GenuineIntel,family=6,model=85,stepping=7"
# QEMU's default is an AMD without recovery: any uncorrected error is fatal.
AMD = "max"

FLAVOURS = ("nullhz", "test", "debug")
# Sanitizers make a node slower: all that its callers wait for may take this many times as long.
PATIENCE = {"debug": 5}


def build_dir():
    top = Path(__file__).resolve().parent.parent.parent
    return Path(os.environ.get("NULLHZ_BUILD") or top / "build")


@functools.cache
def version():
    """QEMU's version, e.g. (10, 0, 2)."""
    if not shutil.which(PROGRAM):
        raise SetupError(f"{PROGRAM} is not installed: run `make setup` as root")
    text = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if not match:
        raise SetupError(f"cannot tell the version of {PROGRAM} from {text!r}")
    return tuple(int(number) for number in match.groups())


def host_tsc_khz():
    """Frequency of the host's TSC, which the emulation passes on; None if not known.

    Where no driver changes the CPUs' frequency, as in a virtual machine, Linux
    shows the TSC's.
    """
    if Path("/sys/devices/system/cpu/cpufreq/policy0").exists():
        return None
    shown = re.findall(r"^cpu MHz\s*: ([\d.]+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return round(float(shown[0]) * 1000) if shown and len(set(shown)) == 1 else None


@dataclass
class Config:
    """A node to run. Sizes in MiB, times in seconds."""

    flavour: str = "test"
    """Kernel: nullhz (the product), test (what tests add) or debug (sanitizers)."""
    kernel: Path | None = None
    """vmlinux (a bzImage works, slower); default: that of the flavour in the build directory."""
    image: Path | None = None
    """Root file system; default: that of the flavour in the build directory."""
    cpus: int = 4
    housekeeping: int = 2
    """CPUs 0..n-1 run the operating system; the others are training CPUs."""
    cpu: str = INTEL
    memory: int = 1536
    checkpoint: int = 1024
    """Size of the checkpoint volume; 0: none."""
    checkpoint_file: Path | None = None
    """Keeps the volume in this file, made when missing; default: a temporary one."""
    huge_pages: int = 16
    reserved: bool = True
    """Memory that the boot line sets aside for what outlives a reset."""
    watchdog: str | None = "i6300esb"
    """Hardware watchdog: a key of WATCHDOGS, or None."""
    per_ns: int = 0
    """Time is not the host's: it goes on by a nanosecond for so many instructions of all CPUs
    together, and by itself when all of them sleep, so that what is measured is the same in each
    run, however busy the host is. With as many as there are CPUs, each is worth one that does an
    instruction in a nanosecond, and all run at the same time: known as time dilation. 0: the
    host's."""
    append: str = ""
    """Added to the boot line; a later parameter wins over an earlier one."""
    devices: list[str] = field(default_factory=list)
    """More arguments for QEMU, e.g. ["-device", "i6300esb"]."""
    erst: Path | None = None
    """File of an ACPI error record store (made when missing)."""
    shell: bool = False
    """A root shell on the console."""

    def __post_init__(self):
        if self.flavour not in FLAVOURS:
            raise SetupError(f"flavour {self.flavour!r}: one of {', '.join(FLAVOURS)} is needed")
        if self.watchdog is not None and self.watchdog not in WATCHDOGS:
            raise SetupError(f"watchdog {self.watchdog!r}: one of {', '.join(WATCHDOGS)} or None is needed")
        if not 1 <= self.housekeeping <= self.cpus:
            raise SetupError(f"{self.housekeeping} housekeeping CPUs of {self.cpus}: impossible")
        if not 0 <= self.per_ns <= MAX_PER_NS:
            raise SetupError(f"{self.per_ns} instructions in a ns: 0 to {MAX_PER_NS} are possible")
        build = build_dir()
        self.kernel = Path(self.kernel or build / "kernel" / self.flavour / "vmlinux")
        self.image = Path(self.image or build / "image" / f"{self.flavour}.squashfs")
        for what, path in (("kernel", self.kernel), ("image", self.image)):
            if not path.is_file():
                raise SetupError(f"no {what} at {path}: run `make image FLAVOUR={self.flavour}`")

    @property
    def patience(self):
        """What times of waiting are to be multiplied with."""
        return PATIENCE.get(self.flavour, 1)

    @property
    def is_dilated(self):
        """Whether the kernel's nanoseconds are not QEMU's."""
        return self.per_ns > 1

    def boot_line(self):
        """The product's boot line at this machine's size."""
        line = [
            "console=ttyS0 root=/dev/vda ro rootfstype=squashfs",
            "panic=1",
            f"hugepagesz=2M hugepages={self.huge_pages}",
            "intel_idle.max_cstate=1 processor.max_cstate=1",
            # A watchdog that still runs from before the reset bites a slow boot.
            "watchdog.handle_boot_enabled=1",
        ]
        if self.reserved:
            line += [f"reserve_mem={size}:4096:{name}" for name, size in RESERVED.items()]
        if self.housekeeping < self.cpus:
            training = f"{self.housekeeping}-{self.cpus - 1}"
            line.append(f"isolcpus=domain,managed_irq,{training} nohz_full={training}")
            line.append(f"rcu_nocbs={training} irqaffinity=0-{self.housekeeping - 1}")
        # For the emulation: no delay calibration (minutes with many CPUs), and
        # no doubt of a TSC that only looks unsteady when the host is busy. The
        # clocksource watchdog would also interrupt the training CPUs.
        # A machine that counts instructions has a TSC that does the same.
        khz = self.per_ns * 1_000_000 or host_tsc_khz()
        line.append(f"lpj={khz * 10 if self.per_ns else 10000000} tsc=reliable")
        if khz:
            line.append(f"tsc_early_khz={khz}")
        if self.watchdog is None:
            # The board's own cannot be taken out.
            line.append("modprobe.blacklist=iTCO_wdt")
        if self.shell:
            line.append("nullhz.console=shell")
        if self.append:
            line.append(self.append)
        return " ".join(line)

    def command(self, run_dir, checkpoint_file, state=None):
        """QEMU's argument list. The machine waits for `cont` on its monitor.

        `state`: a file of the state that VM.save() wrote, to go on from.
        """
        # QEMU 7.2 crashes guests that patch their text while several virtual
        # CPUs run at the same time.
        threads = "multi" if version() >= (8, 0, 0) and not self.per_ns else "single"
        args = [PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-S"]
        # Without the PIT: the kernel measures the TSC against it and believes
        # it, though a busy host makes it late; HPET and PM timer are read.
        # Where time is dilated there is no HPET: it knows of the machine's own time only.
        clocks = "pit=off,hpet=off" if self.is_dilated else "pit=off"
        args += ["-machine", f"q35,{clocks}", "-accel", f"tcg,thread={threads}"]
        if self.per_ns:
            args += ["-icount", "shift=0,sleep=off"]
        if self.is_dilated:
            args += ["-gdb", f"unix:{run_dir}/gdb,server=on,wait=off"]
        args += ["-cpu", self.cpu, "-smp", str(self.cpus), "-m", f"{self.memory}M"]
        args += ["-kernel", str(self.kernel), "-append", self.boot_line()]
        args += ["-qmp", f"unix:{run_dir}/qmp,server=on,wait=off"]
        mux = ",mux=on,signal=off" if self.shell else ""
        args += ["-chardev", f"stdio,id=console{mux}", "-serial", "chardev:console"]
        args += ["-chardev", f"socket,id=shell,path={run_dir}/shell,server=on,wait=off"]
        # Fixed slots: the kernel names disks in the order of their slots.
        args += ["-blockdev", f"file,node-name=root,filename={self.image},read-only=on"]
        args += ["-device", "virtio-blk-pci,drive=root,addr=2"]
        if checkpoint_file:
            args += ["-blockdev", f"file,node-name=checkpoint,filename={checkpoint_file},discard=unmap"]
            args += ["-device", "virtio-blk-pci,drive=checkpoint,serial=checkpoint,addr=3"]
        args += ["-device", "virtio-serial-pci,addr=4"]
        args += ["-device", f"virtserialport,chardev=shell,name={PORT_NAME}"]
        args += ["-device", "virtio-rng-pci,addr=5"]
        args += [*WATCHDOGS.get(self.watchdog, []), "-action", "watchdog=reset"]
        if self.erst:
            size = 64 << 10
            args += ["-object", f"memory-backend-file,id=erst,mem-path={self.erst},size={size},share=on"]
            args += ["-device", "acpi-erst,memdev=erst"]
        if state:
            args += ["-incoming", f"exec:cat {shlex.quote(str(state))}"]
        return args + self.devices
