# SPDX-License-Identifier: GPL-2.0
"""Runs nullhz nodes in virtual machines: for tests, demo, benchmarks, a shell."""
