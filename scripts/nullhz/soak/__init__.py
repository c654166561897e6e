# SPDX-License-Identifier: GPL-2.0
"""Everything at once, at random, with an account at the end (`make soak`)."""
