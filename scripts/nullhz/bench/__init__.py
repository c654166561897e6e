# SPDX-License-Identifier: GPL-2.0
"""The figures of scripts/bench."""
