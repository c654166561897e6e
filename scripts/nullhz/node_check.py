# SPDX-License-Identifier: GPL-2.0
"""Runs nullhz-node-check, the program in every node's image, on a node."""

PROGRAM = "/usr/sbin/nullhz-node-check"
# Until the watchdog is armed and the agent runs.
SETTLED = """
until grep -qs '^1$' /sys/class/misc/nullhz-stall/armed; do sleep 0.1; done
until nullhz-agent status --json | grep -q '"running":true'; do sleep 0.1; done
"""


def settle(vm):
    """Waits for what a node still does when it answers; not for what it never does."""
    vm.run(["timeout", "10", "sh", "-c", SETTLED], check=False)


def node_check(vm, *options):
    """The Result of the check."""
    return vm.run([PROGRAM, *options], timeout=90, check=False)
