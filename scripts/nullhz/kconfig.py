# SPDX-License-Identifier: GPL-2.0
"""Kernel configurations: reading them, the reasons for our options, differences.

An option that is off has the value "n", whether a configuration says so ("is not
set") or leaves it out; values of strings keep their quotes.
"""

import gzip
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

OPEN = {".gz": gzip.open, ".xz": lzma.open}
SET = re.compile(r"(CONFIG_\w+)=(.*)")
UNSET = re.compile(r"# (CONFIG_\w+) is not set")
HEADING = re.compile(r"# --- (.*?) -+$")
# Of the compiler that built the kernel, not of its configuration.
OF_THE_COMPILER = re.compile(
    r"CONFIG_(AS|CC|GCC|CLANG|LD|LLD|LLVM|PAHOLE|RUSTC|BINDGEN|TOOLS_SUPPORT)_|"
    r"CONFIG_(AS_VERSION|CC_VERSION_TEXT|BUILD_SALT)$"
)


def _lines(path):
    path = Path(path)
    with OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        yield from map(str.rstrip, file)


def _option(line):
    """What a line sets: (name, value), or None."""
    if match := SET.fullmatch(line):
        return match[1], match[2]
    if match := UNSET.fullmatch(line):
        return match[1], "n"
    return None


def read(path):
    """Options of a .config, a fragment or /proc/config.gz, also compressed: name -> value."""
    return dict(filter(None, map(_option, _lines(path))))


def reasons(*fragments):
    """Why our fragments set an option: name -> the comment above it or its group.

    Without a comment, the heading of its section. Of several fragments the last says.
    """
    found = {}
    for fragment in fragments:
        heading, comment, ended = "", [], True
        for line in _lines(fragment):
            if option := _option(line):
                found[option[0]] = " ".join(comment) or heading
                ended = True
            elif match := HEADING.fullmatch(line):
                heading, comment = match[1], []
            elif line.startswith("# ") and not line.startswith("# SPDX-"):
                comment = [*([] if ended else comment), line[2:]]
                ended = False
            elif not line:
                comment = []
    return found


@dataclass(frozen=True)
class Difference:
    """One option that two configurations disagree on."""

    option: str
    ours: str
    theirs: str
    reason: str
    """Empty: no fragment names the option; another one selects it, or it is the default."""

    @property
    def kind(self):
        if self.theirs == "n":
            return "on here alone"
        return "off here" if self.ours == "n" else "other value"


def difference(ours, theirs, why=None):
    """What `ours` has otherwise than `theirs` (as from read()), by name.

    `why`: as from reasons(). What the compiler's version brings along is left out.
    """
    rows = []
    for option in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(option, "n"), theirs.get(option, "n")
        if mine != other and not OF_THE_COMPILER.match(option):
            rows.append(Difference(option, mine, other, (why or {}).get(option, "")))
    return rows
