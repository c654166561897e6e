# SPDX-License-Identifier: GPL-2.0
"""The mirror in Python against the C header, by the compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nullhz_stall import _abi

UAPI = Path(__file__).resolve().parents[3] / "drivers/include/uapi"
COMPILER = os.environ.get("CC") or shutil.which("clang-19") or shutil.which("cc")


def expected():
    """C expressions, and what Python takes them for."""
    page = "struct nullhz_stall_page"
    values = {f"NULLHZ_STALL_PHASE_{phase.name}": int(phase) for phase in _abi.Phase}
    values |= {f"NULLHZ_STALL_{state.name}": int(state) for state in _abi.State}
    values |= {
        "NULLHZ_STALL_ABI_VERSION": _abi.ABI_VERSION,
        "NULLHZ_STALL_PAGE_SIZE": _abi.PAGE_SIZE,
        "NULLHZ_STALL_NAME_SIZE": _abi.NAME_SIZE,
        "NULLHZ_STALL_PHASES": _abi.PHASES,
        f"offsetof({page}, step)": _abi.STEP * 8,
        f"offsetof({page}, progress)": _abi.PROGRESS * 8,
        f"offsetof({page}, phase)": _abi.PHASE * 4,
        f"offsetof({page}, checkpoint_ack)": _abi.CHECKPOINT_ACK * 4,
        f"offsetof({page}, checkpoint_request)": _abi.CHECKPOINT_REQUEST * 4,
        f"offsetof({page}, state)": _abi.STATE * 4,
        f"offsetof({page}, incident)": _abi.INCIDENT * 8,
        f"offsetof({page}, deadline_ns)": _abi.DEADLINE_NS * 8,
        f"offsetof({page}, sampled_ns)": _abi.SAMPLED_NS * 8,
        "sizeof(struct nullhz_stall_info)": _abi.INFO.size,
        "sizeof(struct nullhz_stall_register)": _abi.REGISTER.size,
        "sizeof(struct nullhz_stall_grace)": _abi.GRACE.size,
        # Where the first and the last field of each kind lie.
        "offsetof(struct nullhz_stall_info, max_grace_ms)": 20,
        "offsetof(struct nullhz_stall_register, name)": 8,
        "offsetof(struct nullhz_stall_register, deadline_ms)": 40,
        "offsetof(struct nullhz_stall_register, floor_ms)": 60,
        "offsetof(struct nullhz_stall_register, warmup)": 64,
        "NULLHZ_STALL_IOC_INFO": _abi.IOC_INFO,
        "NULLHZ_STALL_IOC_REGISTER": _abi.IOC_REGISTER,
        "NULLHZ_STALL_IOC_GRACE": _abi.IOC_GRACE,
        "NULLHZ_STALL_IOC_LEAVE": _abi.IOC_LEAVE,
    }
    return values


@pytest.mark.skipif(not UAPI.is_dir(), reason="outside of the repository there is no header")
@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
@pytest.mark.parametrize("width", ["-m64", "-m32"])
def test_same_as_the_header(width, tmp_path):
    source = tmp_path / "abi.c"
    lines = ["#include <stddef.h>", "#include <nullhz/stall.h>"]
    lines += [f'_Static_assert({what} == {value}, "{what}");' for what, value in expected().items()]
    source.write_text("\n".join(lines) + "\n")
    # Debian keeps asm/ headers, the same for both widths, in a folder per architecture.
    includes = [f"-I{UAPI}", "-I/usr/include/x86_64-linux-gnu"]
    done = subprocess.run(
        [COMPILER, width, "-fsyntax-only", *includes, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_register_has_all_fields():
    # 2 + 5 + 3 words, and the name between.
    assert _abi.REGISTER.unpack(bytes(72)) == (0, 0, bytes(32), 0, 0, 0, 0, 0, 0, 0, 0)
