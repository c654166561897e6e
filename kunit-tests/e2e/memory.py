# SPDX-License-Identifier: GPL-2.0
"""What a node's kernel holds, for the scenarios; the soak asks as well."""

from nullhz.memory import leftovers, memory

__all__ = ["leftovers", "memory"]
