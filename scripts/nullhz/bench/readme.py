# SPDX-License-Identifier: GPL-2.0
"""A run as a table in Markdown, and that table's place in README.md."""

from .table import KEYS

BEGIN = "<!-- make bench: begin -->"
END = "<!-- make bench: end -->"
HEAD = "| figure | value | baseline, same run | ratio |\n|---|---|---|---|"
# Statistics of one figure stand side by side; other keys make a line of their own.
APART = tuple(key for key in KEYS if key != "stat")


def number(value):
    """Three digits that mean something, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{float(text):g}" if "e" not in text else text


def side_by_side(values):
    return " / ".join("–" if value is None else number(value) for value in values)


def key_and_value(row, key):
    value = row[key]
    return f"{key} {'yes' if value else 'no'}" if isinstance(value, bool) else f"{key} {value}"


def label(rows):
    """What a line is about: name, keys, statistics."""
    first = rows[0]
    keys = ", ".join(key_and_value(first, key) for key in APART if key in first)
    stats = " / ".join(row["stat"] for row in rows if "stat" in row)
    return "; ".join(filter(None, (f"`{first['name']}` {keys}".rstrip(), stats)))


def line(rows):
    baselines = [row["baseline_value"] for row in rows]
    if len(set(baselines)) == 1:
        del baselines[1:]
    cells = [
        label(rows),
        f"{side_by_side([row['value'] for row in rows])} {rows[0]['unit']}",
        f"{side_by_side(baselines)}: {rows[0]['baseline']}",
        side_by_side([row["ratio"] for row in rows]),
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def table(rows):
    """The table of a run's rows, in the order in which their figures came."""
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], *(row.get(key) for key in APART)), []).append(row)
    return "\n".join([HEAD, *map(line, groups.values())]) + "\n"


def replace(text, rows):
    """README's text with the table of these rows between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} with {END} below it")
    return f"{before}{BEGIN}\n\n{table(rows)}\n{END}{after}"
