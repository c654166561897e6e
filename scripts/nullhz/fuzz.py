# SPDX-License-Identifier: GPL-2.0
"""The fuzzer in the node, kunit-tests/e2e/guest/fuzz: its node, its runs, its reports."""

import json

from . import guest

# No agent takes part, and no hardware watchdog resets what is only tormented.
NODE = {"append": "nullhz.agent=off", "watchdog": None}
MODULES = ("nullhz_soft_gpu", "nullhz_soft_gpu_c", "nullhz_fault_gen")
PROGRAM = {"compiler": (*guest.CC, f"-I{guest.TOP}/samples/soft-gpu/uapi")}
# What is set before, and has to be as it was for those who come later.
TUNABLES = " ".join(
    f"/sys/{path}"
    for path in (
        "class/misc/nullhz-fault/*_ms",
        "class/misc/nullhz-fault/helper",
        "class/misc/nullhz-stall/tunables/*",
        "devices/faux/nullhz_*/t*/*",
    )
)


def prepare(vm):
    for module in MODULES:
        vm.run(["modprobe", module])


def run(vm, seed, seconds, rounds=None, patience=1):
    """One run; its report, with the exit status as `rc`."""
    before = tunables(vm)
    command = [guest.put_program(vm, "fuzz", **PROGRAM), seed, seconds, *([rounds] if rounds else [])]
    # The last processes may need to be killed, and a debug kernel takes its time for that.
    result = vm.run(command, (seconds + 150) * patience, check=False)
    for path, value in before.items():
        vm.run(["sh", "-c", 'printf "%s\n" "$2" > "$1"', "set", path, value], check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    report = json.loads(lines[-1]) if lines else {"finding": f"no report: {result}"}
    return report | {"rc": result.rc, "stderr": result.stderr}


def tunables(vm):
    """{path: value} of all that can be read and written."""
    script = f'for f in {TUNABLES}; do [ -w $f ] && [ -r $f ] && echo "$f=$(cat $f)"; done; true'
    return dict(line.split("=", 1) for line in vm.run(script).stdout.splitlines())
