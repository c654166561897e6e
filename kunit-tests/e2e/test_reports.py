# SPDX-License-Identifier: GPL-2.0
"""What demo, bench and tests make of their results, without a virtual machine."""

import random
from xml.etree import ElementTree

import pytest
from nullhz import svg
from nullhz.bench import readme
from nullhz.testing.results import Results


def test_labels_of_a_timeline_can_be_read():
    """None covers another one, and no leader goes through a text."""
    chance = random.Random(1)
    for _ in range(200):
        labels = {
            (chance.uniform(90, 850), "x" * chance.randint(1, 40)) for _ in range(chance.randint(1, 12))
        }
        rows = svg.rows_of(labels)
        assert set(rows) == labels
        for (x, content), row in rows.items():
            end = x + svg.CHARACTER * len(content)
            below = [other for (other, _), place in rows.items() if place >= row and x < other < end]
            assert not below, f"{content} in row {row} from {x} to {end}: {below}"


@pytest.mark.parametrize("span", [0.003, 0.9, 1, 7.4, 42, 61, 999])
def test_axis_has_round_numbers(span):
    step = svg.step_of(span)
    assert 2 < span / step <= 10
    assert f"{step:e}"[0] in "125" and float(f"{step:.0e}") == pytest.approx(step)


def test_a_picture_is_xml_within_its_frame():
    bars = [svg.Bar(5, 6, "good", "a text that is longer than its bar"), svg.Bar(6, 30, "bad", "<inside>")]
    marks = [svg.Mark(5, "warn", "at 5"), svg.Mark(5.01, "warn", 'a & "b"'), svg.Mark(30, "idle", "")]
    drawing = svg.Drawing("title", "description")
    drawing.add(svg.Panel("panel", 5, 30, "s", 1, [svg.Lane("lane", bars, marks, [(5, 30)])]))
    root = ElementTree.fromstring(drawing.svg())
    height = float(root.get("height"))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"panel", "lane", "<inside>", 'a & "b"', "0 s", "25 s"} <= set(texts)
    for element in root.iter():
        for name, bound in (("x", svg.WIDTH), ("x2", svg.WIDTH), ("y", height), ("y2", height)):
            assert 0 <= float(element.get(name, 0)) <= bound


def row(name, value, baseline_value, **more):
    ratio = value / baseline_value if baseline_value else None
    entry = {"name": name, "value": value, "unit": "ms", "baseline": "the other", **more}
    return {**entry, "baseline_value": baseline_value, "ratio": ratio}


ROWS = [
    row("a.b_ms", 1234.5, 0.5, stat="p50", dirty_mib=16),
    row("a.b_ms", 2.04, 4.08, stat="p99", dirty_mib=16),
    row("a.b_ms", 0, 0, dirty_mib=0, preflush=False),
]
TABLE = """\
| figure | value | baseline, same run | ratio |
|---|---|---|---|
| `a.b_ms` dirty_mib 16; p50 / p99 | 1,234 / 2.04 ms | 0.5 / 4.08: the other | 2,469 / 0.5 |
| `a.b_ms` dirty_mib 0, preflush no | 0 ms | 0: the other | – |
"""


def test_a_run_as_a_table():
    assert readme.table(ROWS) == TABLE


def test_the_readme_takes_a_table():
    text = f"before\n{readme.BEGIN}\nolder\n{readme.END}\nafter\n"
    replaced = readme.replace(text, ROWS)
    assert replaced == f"before\n{readme.BEGIN}\n\n{TABLE}\n{readme.END}\nafter\n"
    assert readme.replace(replaced, ROWS) == replaced
    for unmarked in (readme.BEGIN, readme.END, ""):
        with pytest.raises(ValueError, match="no <!--"):
            readme.replace(unmarked, ROWS)


@pytest.mark.parametrize("second", ("passed", "failed"))
def test_a_second_try_leaves_the_results_of_others(second):
    results = Results()
    results.add("e2e", "test_it", "at all", "failed", detail="late", more={"node": "n", "final": False})
    with results.second_try("n"):
        results.add("host", "samples", "beside it", "failed", detail="wrong")
        results.add("e2e", "test_it", "at all", second, more={"node": "n", "final": False})
    beside, own = sorted(results.tests, key=lambda test: test["part"], reverse=True)
    assert (beside["name"], beside["status"]) == ("beside it", "failed") and "first_failure" not in beside
    assert own["status"] == second and own.get("first_failure") == ("late" if second == "passed" else None)
