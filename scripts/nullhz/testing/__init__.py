# SPDX-License-Identifier: GPL-2.0
"""What `scripts/test` runs: a module for each part, and what is known of its results."""

PARTS = ("host", "kunit", "e2e")
