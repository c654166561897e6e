# SPDX-License-Identifier: GPL-2.0
"""An altered module is refused, on the test kernel told to insist and on the product's."""

import pytest
from nullhz.errors import SetupError

MODULE = "nullhz_fault"


@pytest.fixture(params=["test", "nullhz"])
def vm(request, boot, flavour):
    if request.param == "nullhz":
        try:
            # MODULE_SIG_FORCE: built in, whatever the boot line says.
            return boot(flavour="nullhz", append="modprobe.blacklist=nullhz_stall,nullhz_mce,nullhz_fault")
        except SetupError as error:
            pytest.skip(str(error))
    return boot(
        flavour=flavour, append="module.sig_enforce=1 modprobe.blacklist=nullhz_stall,nullhz_mce,nullhz_fault"
    )


def test_an_altered_module_is_refused(vm):
    path = vm.run(["modinfo", "-n", MODULE]).stdout.strip()
    module = bytearray(vm.get(path))
    assert module.endswith(b"~Module signature appended~\n")
    # One letter of the description: the code is as it was.
    at = module.index(b"description=") + len(b"description=")
    module[at] ^= 0x20
    vm.put(bytes(module), "/tmp/altered.ko")
    vm.put(bytes(module[: module.rindex(b"~Module signature appended~\n")]), "/tmp/unsigned.ko")
    for altered in ("altered", "unsigned"):
        refused = vm.run(["insmod", f"/tmp/{altered}.ko"], check=False)
        assert refused.rc and "Key was rejected by service" in refused.stderr, refused
        assert vm.run(f"test -d /sys/module/{MODULE}", check=False).rc
    vm.run(["insmod", path])
    assert vm.read(f"/sys/module/{MODULE}/initstate") == "live"
