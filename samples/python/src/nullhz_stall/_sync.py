# SPDX-License-Identifier: GPL-2.0
"""Getting a checkpoint onto the disk."""

from __future__ import annotations

import contextlib
import os
import stat


def sync_tree(path: str | os.PathLike[str]) -> None:
    """fsync() of a file, or of all files and folders below a folder, and of the
    folder that holds it: a checkpoint that is so synced survives a reset."""
    if os.path.isdir(path):
        for folder, _, names in os.walk(path):
            for name in names:
                # Other ranks' temporary files may vanish meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    entry = os.path.join(folder, name)
                    if stat.S_ISREG(os.lstat(entry).st_mode):
                        _sync(entry)
            _sync(folder)
    else:
        _sync(path)
    _sync(os.path.dirname(os.path.abspath(path)))


def _sync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
