# SPDX-License-Identifier: GPL-2.0
"""The runner's own parts, without a virtual machine."""

import io
import random

import pytest
from nullhz import frames, splat
from nullhz.console import Console
from nullhz.errors import SetupError
from nullhz.qemu import Config


def stream(*messages):
    return b"".join(frames.encode(header, payload) for header, payload in messages)


MESSAGES = [
    ({"op": "out", "id": 1}, b"text"),
    ({"op": "exit", "rc": 0}, b""),
    ({"a": "\u00e9"}, frames.MAGIC),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 10_000])
def test_frames_in_pieces(piece):
    data = stream(*MESSAGES)
    reader = frames.Reader()
    got = [frame for at in range(0, len(data), piece) for frame in reader.feed(data[at : at + piece])]
    assert got == MESSAGES
    assert reader.skipped == 0


def test_reader_finds_its_place_again():
    hello = ({"op": "hello"}, b"")
    for rubbish in (b"", b"\xff", b"\xffNH", random.Random(1).randbytes(5000)):
        assert hello in frames.Reader().feed(rubbish + stream(hello)), rubbish


def test_node_is_heard_after_a_reset_in_mid_frame():
    hello = ({"op": "hello"}, b"")
    frame = frames.encode({"op": "out", "id": 9}, b"x" * frames.PIECE)
    for length in (1, 3, 5, 6, 9, 10, 12, 20, 40, 100, len(frame) - 1):
        got = list(frames.Reader().feed(frame[:length] + frames.FLUSH + stream(hello)))
        assert got[-1:] == [hello], length


def test_frames_that_are_too_large():
    with pytest.raises(ValueError, match="too large"):
        frames.encode({}, bytes(frames.MAX_PAYLOAD + 1))
    huge = frames.MAGIC + b"\xff" * 8
    assert list(frames.Reader().feed(huge + stream(MESSAGES[0]))) == MESSAGES[:1]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] BUG: KASAN: slab-use-after-free in foo+0x1/0x2",
        "[    1.0] WARNING: kernel/workqueue.c:1 at foo+0x1/0x2, CPU#0: bash/1",
        "[    1.0] WARNING: possible recursive locking detected",
        "[    1.0] WARNING: inconsistent lock state",
        "[    1.0] BUG: sleeping function called from invalid context at kernel/x.c:9",
        "[    1.0] Oops: general protection fault, 0000 [#1] SMP",
        "[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[    1.0] INFO: task nullhz-mce:55 blocked for more than 30 seconds.",
        "[    1.0] UBSAN: array-index-out-of-bounds in foo.c:1:2",
        "[    1.0] rust_kernel: panicked at drivers/x.rs:1:2:",
        "[    1.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "[    1.0] Kernel panic - not syncing: Fatal machine check",
        "[    1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
        "[    1.0] refcount_t: underflow; use-after-free.",
        "[    1.0] [ BUG: Invalid wait context ]",
    ],
)
def test_splats_are_found(line):
    assert splat.find([line]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] mce: [Hardware Error]: Machine check events logged",
        "[    1.0] nullhz_fault: loading out-of-tree module taints kernel.",
        "[    1.0] kmemleak: 0 new suspected memory leaks",
        "[    1.0] rcu: Preemptible hierarchical RCU implementation.",
        "[    1.0] pnp 00:01: debug: nothing",
    ],
)
def test_ordinary_lines_are_no_splats(line):
    assert splat.find([line]) == []


def test_only_the_named_splat_is_expected():
    lines = ["Kernel panic - not syncing: sysrq", "Kernel panic - not syncing: other"]
    assert splat.find(lines, ["syncing: sysrq"]) == lines[1:]


def test_the_kernels_own_way_to_die_is_no_splat():
    """Only an interrupt that is taken within #MC, and only before a panic because of one."""
    interrupt = "[  116.990197] swapper/0/0 [HC2[2]:SC0[0]:HE0:SE1] takes:"
    panic = "[  116.996818] Kernel panic - not syncing: Fatal machine check"
    report = [
        "[  116.974834] WARNING: inconsistent lock state",
        "[  116.975131] mce: [Hardware Error]: TSC 47d3ec9ebc ADDR 1200005000 MISC 86",
        "[  116.989943] inconsistent {INITIAL USE} -> {IN-NMI} usage.",
    ]
    assert splat.find([*report, interrupt, panic], ["Kernel panic"]) == []
    ours = interrupt.replace("HC2[2]", "HC1[1]")
    assert splat.find([*report, ours, panic], ["Kernel panic"]) == report[:1]
    assert splat.find([*report, interrupt]) == report[:1]
    assert splat.find([panic, *report, interrupt], ["Kernel panic"]) == report[:1]


def test_taint_letters():
    assert splat.taints(0) == set()
    assert splat.taints(1 << 12 | 1 << 9 | 1 << 4) == {"O", "W", "M"}
    assert splat.taints(1 << 40) == {"?"}


def test_console_keeps_times_and_wakes_waiters(tmp_path):
    text = b"one\r\n\x1b[31mred\x1b[0m two\nlast without end"
    console = Console(io.BufferedReader(io.BytesIO(text)), tmp_path / "log", 0.0)
    line, match = console.wait("t(w)o", 5)
    assert (line.text, match[1]) == ("red two", "w")
    assert console.wait("never", 5) is None
    console.join(5)
    assert [line.text for line in console.lines()] == ["one", "red two", "last without end"]
    assert (tmp_path / "log").read_text().splitlines()[0].endswith(" one")


def test_bad_sizes(tmp_path):
    with pytest.raises(SetupError, match="housekeeping"):
        Config(cpus=2, housekeeping=3)
    with pytest.raises(SetupError, match="flavour"):
        Config(flavour="other")
    with pytest.raises(SetupError, match="no kernel"):
        Config(kernel=tmp_path / "none")
