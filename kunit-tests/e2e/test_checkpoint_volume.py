# SPDX-License-Identifier: GPL-2.0
"""The checkpoint volume itself: what the kernel must not do to it."""

NODE = {"append": "nullhz.agent=off modprobe.blacklist=nullhz_stall,nullhz_mce,nullhz_fault"}

# A snapshot that is deleted while somebody has a file of it open, on a volume that is read-only for
# a moment meanwhile. BTRFS cleans up at commits.
DELETED_IN_USE = """
set -e
cd /
echo whole > /checkpoint/current/file
mount -o remount,commit=1 /checkpoint
btrfs -q subvolume snapshot -r /checkpoint/current /checkpoint/.snapshots/one
exec 5< /checkpoint/.snapshots/one/file
btrfs -q subvolume delete /checkpoint/.snapshots/one
mount -o remount,ro /checkpoint
mount -o remount,rw /checkpoint
commit() {
	for n in 1 2 3; do
		echo "$n" > /checkpoint/current/more
		sync -f /checkpoint
		sleep 1
	done
}
commit
btrfs subvolume list -d /checkpoint | grep -q DELETED && echo "kept while in use"
read -r text <&5
exec 5<&-
commit
timeout 60 btrfs subvolume sync /checkpoint
commit
echo "$text"
"""


def test_a_deleted_snapshot_in_use_is_dropped_once(shared_node):
    vm = shared_node
    said = vm.run(DELETED_IN_USE, 120)
    assert said.stdout.splitlines()[0] == "kept while in use", said
    assert said.stdout.splitlines()[-1] == "whole", said
    assert vm.run("btrfs subvolume list -d /checkpoint").stdout == ""
    assert " rw," in vm.run("grep ' /checkpoint ' /proc/mounts").stdout
    vm.assert_clean()
