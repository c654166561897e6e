# SPDX-License-Identifier: GPL-2.0
"""The attributes in sysfs are those of the modules' ABI texts, no more and no fewer."""

import re

import pytest
from nullhz.guest import TOP

# What has to be loaded to see them; the library's belong to a driver.
TEXTS = {
    "nullhz_fault": "drivers/fault/sysfs-nullhz-fault",
    "nullhz_mce": "drivers/mce/sysfs-nullhz-mce",
    "nullhz_stall": "drivers/stall/sysfs-nullhz-stall",
    "nullhz_soft_gpu": "drivers/mmu_batch/sysfs-nullhz-mmu-batch",
}
HOME = re.compile(r"/sys/(class/misc|devices/faux)/[^/]+/")
# The driver core gives them to every device.
GENERIC = {"dev", "uevent"}


def described(text):
    """Paths of all attributes, also of those in the list that a directory's text has."""
    paths = set()
    for entry in re.split(r"^What:\s+", text, flags=re.M)[1:]:
        what = entry.split(None, 1)[0]
        if not what.endswith("/"):
            paths.add(what)
            continue
        # A table, or names with a tab behind them.
        names = re.findall(r"^\t\t(\w+)\t", entry, re.M)
        for table in re.findall(r"^\t\t=[= ]+\n(.*)^\t\t=[= ]+$", entry, re.M | re.S):
            names += re.findall(r"^\t\t(\w+) ", table, re.M)
        paths |= {f"{what}{name}" for name in names if name != "file"}
    return paths


@pytest.mark.parametrize("module", TEXTS)
def test_every_attribute_is_described_and_there(shared_node, module):
    shared_node.run(["modprobe", module])
    paths = described((TOP / TEXTS[module]).read_text())
    [home] = {HOME.match(path)[0] for path in paths}
    place = home.replace("<device>", "*")
    found = shared_node.run(f"cd {place} && find . -type f ! -path './power/*'").stdout.split()
    there = {f"{home}{file[2:]}" for file in found if file[2:] not in GENERIC}
    assert there == paths and len(paths) > 10
