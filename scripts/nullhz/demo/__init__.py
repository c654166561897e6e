# SPDX-License-Identifier: GPL-2.0
"""The chapters of scripts/demo."""
