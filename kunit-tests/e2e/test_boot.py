# SPDX-License-Identifier: GPL-2.0
"""The node: boot line, isolation, read-only root, checkpoint volume, reboots."""

import errno
import json
import os

import pytest
from nullhz.errors import BootError, SetupError

# The product page counts them on a node: everything with a command line.
MAX_PROCESSES = 18


# In one process of the node: a shell would fork for every entry of /proc.
PROCESSES = """
import json, os
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if open(f"/proc/{pid}/cmdline").read():
            name = open(f"/proc/{pid}/comm").read().strip()
            found.append((name, sorted(os.sched_getaffinity(int(pid)))))
    except (FileNotFoundError, ProcessLookupError):
        pass
print(json.dumps(found))
"""

# A process spins on CPU argv[1]; another CPU looks, second by second, for one in
# which the spinner ran and was interrupted by next to no timer tick.
QUIET = """
import os, sys, time
cpu, seconds = int(sys.argv[1]), int(sys.argv[2])
def ticks():
    for line in open("/proc/interrupts"):
        if line.lstrip().startswith("LOC:"):
            return int(line.split()[1 + cpu])
def ran():
    return sum(map(int, open(f"/proc/{child}/stat").read().split()[13:15])) / 100
child = os.fork()
if not child:
    os.sched_setaffinity(0, [cpu])
    while True:
        pass
# The first moments belong to the start of the process.
time.sleep(1)
quiet = False
while seconds and not quiet:
    before = ticks(), ran()
    time.sleep(1)
    seen = ticks() - before[0], ran() - before[1]
    print(*seen, file=sys.stderr)
    quiet = seen[0] <= 2 and seen[1] > 0.3
    seconds -= 1
os.kill(child, 9)
sys.exit(not quiet)
"""


def processes(vm):
    """Name and CPUs of every process with a command line, kernel threads aside."""
    return json.loads(vm.run(["python3", "-c", PROCESSES]).stdout)


def test_kernel_is_ours(shared_node):
    release = shared_node.run(["uname", "-r"]).stdout.strip()
    assert release.endswith("-nullhz")
    assert "PREEMPT_RT" in shared_node.run(["uname", "-v"]).stdout


def test_training_cpus_are_isolated(shared_node):
    cpu = "/sys/devices/system/cpu"
    assert shared_node.read(f"{cpu}/isolated") == "2-3"
    assert shared_node.read(f"{cpu}/nohz_full") == "2-3"
    log = "\n".join(line.text for line in shared_node.console.lines())
    assert "Offload RCU callbacks from CPUs: 2-3." in log
    assert shared_node.read("/proc/irq/default_smp_affinity").lstrip("0,") == "3"
    assert shared_node.read("/sys/devices/virtual/workqueue/cpumask").lstrip("0,") == "3"


def test_boot_line(shared_node):
    words = shared_node.read("/proc/cmdline").split()
    for word in ("intel_idle.max_cstate=1", "processor.max_cstate=1", "hugepages=16"):
        assert word in words
    assert shared_node.read("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") == "16"


def test_no_tick_on_a_busy_training_cpu(shared_node):
    # On a busy host RCU asks late CPUs for ticks now and then: hence the patience.
    quiet = shared_node.run(["python3", "-c", QUIET, 3, 20], timeout=120, check=False)
    assert quiet.rc == 0, quiet
    ticking = shared_node.run(["python3", "-c", QUIET, 1, 3], timeout=60, check=False)
    assert ticking.rc == 1, ticking


def test_no_process_may_run_on_training_cpus(shared_node):
    found = processes(shared_node)
    assert any(name == "init" for name, _ in found)
    for name, cpus in found:
        assert set(cpus) <= {0, 1}, name


def test_few_processes(shared_node):
    assert len(processes(shared_node)) <= MAX_PROCESSES


def test_root_is_read_only(shared_node):
    assert shared_node.run("grep ' / ' /proc/mounts").stdout.split()[3].startswith("ro")
    result = shared_node.run(["touch", "/etc/passwd"], check=False)
    assert result.rc and os.strerror(errno.EROFS) in result.stderr
    shared_node.run(["touch", "/tmp/x", "/run/x", "/var/log/x", "/root/x"])


def test_no_password_logs_in(shared_node):
    hashes = [line.split(":")[1] for line in shared_node.read("/etc/shadow").splitlines()]
    assert hashes and all(field.startswith(("*", "!")) for field in hashes)


def test_tuning_values(shared_node):
    expected = {
        "vm/swappiness": "0",
        "vm/overcommit_memory": "1",
        "vm/dirty_ratio": "40",
        "vm/dirty_background_ratio": "10",
        "vm/zone_reclaim_mode": "0",
    }
    values = {name: shared_node.read(f"/proc/sys/{name}") for name in expected}
    assert values == expected


def test_modules_of_modules_load_d_are_loaded(shared_node):
    wanted = shared_node.run("sed 's/#.*//' /etc/modules-load.d/*.conf").stdout.split()
    assert wanted == ["nullhz_fault", "nullhz_mce", "nullhz_stall"]
    for module in wanted:
        assert shared_node.read(f"/sys/module/{module}/initstate") == "live"


def test_fault_device_belongs_to_the_nodes_group(shared_node):
    assert shared_node.run("stat -c '%U %G %a' /dev/nullhz-fault").stdout.split() == ["root", "nullhz", "640"]


def test_commands_of_the_channel(shared_node):
    assert shared_node.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False).rc == 3
    assert shared_node.run("kill -9 $$", check=False).rc == -9
    data = os.urandom(3_000_000)
    shared_node.put(data, "/tmp/data")
    assert shared_node.get("/tmp/data") == data
    result = shared_node.run("id -un; id -Gn", user="nobody", groups=["nullhz"])
    assert result.stdout.split() == ["nobody", "nogroup", "nullhz"]
    # A child left in the background does not hold the command up.
    assert shared_node.run("sleep 60 & echo started", timeout=5).stdout == "started\n"


def test_checkpoint_volume_outlives_a_reboot(boot):
    vm = boot()
    assert "BTRFS" in "".join(vm.dmesg())
    assert vm.run("stat -f -c %T /checkpoint").stdout.strip() == "btrfs"
    vm.run("btrfs subvolume show /checkpoint/current && ls -d /checkpoint/.snapshots")
    vm.run("echo step 7 > /checkpoint/current/state && sync -f /checkpoint")
    vm.spawn(["reboot"])
    vm.wait_boot()
    assert vm.read("/checkpoint/current/state") == "step 7"


def test_a_foreign_disk_is_not_formatted(boot, tmp_path):
    disk = tmp_path / "disk.img"
    with open(disk, "wb") as image:
        # The signature of a partition table makes it not blank.
        image.truncate(64 << 20)
        image.seek(510)
        image.write(b"\x55\xaa")
    before = disk.read_bytes()
    vm = boot(checkpoint_file=disk)
    vm.wait_log("is not blank and not labelled checkpoint: left alone", 5)
    assert vm.run("mountpoint -q /checkpoint", check=False).rc
    assert disk.read_bytes() == before


def test_panic_reboots_and_reserved_memory_survives_it(boot):
    """The breadcrumb's kind of store, with the kernel's own user of it."""
    vm = boot(append="reserve_mem=1M:4096:oops ramoops.mem_name=oops ramoops.ecc=1")
    vm.expect("Kernel panic - not syncing: sysrq")
    first = vm.read("/proc/sys/kernel/random/boot_id")
    assert vm.run("ls /sys/fs/pstore").stdout == ""
    vm.spawn("echo c > /proc/sysrq-trigger")
    vm.monitor.wait("RESET", 30)
    vm.wait_boot()
    assert vm.read("/proc/sys/kernel/random/boot_id") != first
    assert "sysrq triggered crash" in vm.run("cat /sys/fs/pstore/dmesg-ramoops-0").stdout


def test_power_off_ends_the_machine(boot):
    vm = boot()
    vm.spawn(["poweroff"])
    vm.wait_end()
    assert not vm.alive


def test_a_node_that_does_not_boot_says_why(boot):
    panic = "Unable to mount root fs"
    with pytest.raises(BootError, match=panic):
        boot(append="root=/dev/vdz panic=-1", expect=[f"Kernel panic.*{panic}"])


def test_a_missing_image_says_what_to_do(boot, tmp_path):
    with pytest.raises(SetupError, match="make image"):
        boot(image=tmp_path / "none.squashfs")
