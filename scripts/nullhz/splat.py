# SPDX-License-Identifier: GPL-2.0
"""Finds in a kernel log what no test run may contain."""

import re

# Every report of a bug that Linux prints, by its first line.
_SPLATS = re.compile(
    r"""
    \bBUG:\s                                  # KASAN, scheduling while atomic, bad page, ...
    | \bWARNING:\s                            # WARN(), lockdep's "possible ..." and "bad unlock"
    | \bOops\b | Unable\ to\ handle\ kernel
    | \bgeneral\ protection\ fault\b
    | kernel\ BUG\ at | Kernel\ panic
    | KASAN: | KCSAN: | KFENCE: | UBSAN:
    | inconsistent\ lock\ state | INFO:\ possible\ .*\ detected
    | INFO:\ suspicious\ RCU\ usage | suspicious\ RCU\ usage
    | INFO:\ trying\ to\ register\ non-static\ key
    | \[\ BUG:\ Invalid\ wait\ context\ \]
    | ODEBUG:
    | INFO:\ rcu.*(?:stall|self-detected)|rcu:\ INFO:
    | INFO:\ task\ .*\ blocked\ for\ more\ than
    | soft\ lockup | hard\ LOCKUP
    | refcount_t:
    | kmemleak:\ [1-9]\d*\ new\ suspected
    | sysfs:\ cannot\ create\ duplicate
    | rust_kernel:\ panicked | \bpanicked\ at\b
    | irq\ \d+:\ nobody\ cared
    | unregister_netdevice:\ waiting
    | sched:\ RT\ throttling\ activated
    """,
    re.VERBOSE,
)

# Bits of /proc/sys/kernel/tainted, Documentation/admin-guide/tainted-kernels.rst.
_TAINTS = "PFSRMBUDAWCIOELKXTNJ"
# Modules of ours are out of tree; those of a test build need no signature;
# KUnit marks the kernel as one that ran tests.
EXPECTED_TAINTS = frozenset("OEN")

# A CPU that another one's panic because of a machine check leaves waiting opens interrupts
# within #MC (wait_for_panic() in arch/x86/kernel/cpu/mce/core.c), and lockdep tells of the lock
# of the first timer that expires there. An interrupt in #MC is two levels of hardirq; what #MC
# itself does, ours too, is one. The panic cuts the report short.
_LOCK_STATE = re.compile(r"\bWARNING: inconsistent lock state")
_INTERRUPT_IN_MC = re.compile(r"\[HC2\[2\]:\S+ takes:")
_MC_PANIC = re.compile(r"Kernel panic - not syncing: (?:Timeout:|.*machine check)", re.I)
_NEAR = 30


def _waits_for_panic(lines, index):
    near = lines[index : index + _NEAR]
    return all(any(map(pattern.search, near)) for pattern in (_INTERRUPT_IN_MC, _MC_PANIC))


def find(lines, allow=()):
    """The lines that report a bug, except those that a pattern of `allow` matches, and one report
    of the kernel's own way to die."""
    lines = list(lines)
    allowed = [re.compile(pattern) for pattern in allow]
    return [
        line
        for index, line in enumerate(lines)
        if _SPLATS.search(line)
        and not any(pattern.search(line) for pattern in allowed)
        and not (_LOCK_STATE.search(line) and _waits_for_panic(lines, index))
    ]


def taints(value):
    """The letters of a taint mask, e.g. {"O", "W"}."""
    letters = {letter for bit, letter in enumerate(_TAINTS) if value >> bit & 1}
    if value >> len(_TAINTS):
        letters.add("?")
    return letters
