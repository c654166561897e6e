# SPDX-License-Identifier: GPL-2.0
"""The rows of a run."""

# What tells rows of one name apart.
KEYS = ("client", "against", "intervals", "notifier_mib", "window_us", "stat", "ranks")
KEYS += ("dirty_mib", "preflush")


def percentile(values, percent):
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Table:
    """Prints a row for each figure and keeps it."""

    def __init__(self):
        self.rows = []
        print(f"{'figure':56}{'value':>12} {'unit':8}{'baseline':>12}  {'ratio':>8}  baseline is")

    def add(self, name, value, unit, baseline, baseline_value, **more):
        ratio = value / baseline_value if baseline_value else None
        row = {"name": name, "value": value, "unit": unit}
        row |= {"baseline": baseline, "baseline_value": baseline_value, "ratio": ratio, **more}
        self.rows.append(row)
        shown = {key: more[key] for key in KEYS if key in more}
        label = " ".join([name, *(f"{key}={value}" for key, value in shown.items())])
        ratio = "-" if ratio is None else f"{ratio:.4g}"
        print(f"{label:56}{value:12.6g} {unit:8}{baseline_value:12.6g}  {ratio:>8}  {baseline}", flush=True)
