# SPDX-License-Identifier: GPL-2.0
"""Timelines as SVG: panels of lanes with bars and labelled marks.

A picture of its own background, so that it can be read on a light and on a dark page,
and in the colours that the reader prefers; fonts are those that the reader has.
"""

from dataclasses import dataclass, field
from html import escape

WIDTH = 1000
# Names of lanes to the left, ends of labels to the right.
LEFT, RIGHT = 92, 150
PLOT = WIDTH - LEFT - RIGHT
# Of a character at the size of the text; a bound, as fonts differ.
CHARACTER = 6.3
BAR, ROW, GAP = 18, 16, 14

STYLE = """
text { font: 11px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 14px; font-weight: 600 }
.lane, .axis { fill: #59636e }
.inside { fill: #ffffff; font-weight: 600 }
.card { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.leader { stroke: #818b98; stroke-width: 1 }
.link { stroke: #0969da; stroke-width: 1.5; fill: none; stroke-dasharray: 4 3 }
.idle { fill: #818b98 } .good { fill: #1a7f37 } .bad { fill: #cf222e } .warn { fill: #bc4c00 }
.watch { fill: #9a6700 } .store { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .lane, .axis { fill: #9198a1 }
  .card { fill: #0d1117; stroke: #3d444d }
  .grid { stroke: #3d444d }
  .leader { stroke: #656c76 }
  .link { stroke: #4493f8 }
  .idle { fill: #656c76 } .good { fill: #238636 } .bad { fill: #da3633 } .warn { fill: #bd561d }
  .watch { fill: #9e6a03 } .store { fill: #1f6feb }
}
"""


@dataclass
class Bar:
    start: float
    end: float
    kind: str
    """A class of STYLE."""
    text: str = ""
    """Stands in the bar if there is room, else beside it as a mark's label does."""


@dataclass
class Mark:
    time: float
    kind: str
    text: str


@dataclass
class Lane:
    name: str
    bars: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    links: list[tuple[float, float]] = field(default_factory=list)
    """Arcs from one time to a later one."""


@dataclass
class Panel:
    title: str
    start: float
    end: float
    unit: str
    scale: float
    """Units per unit of time."""
    lanes: list[Lane]


def element(name, kind, **attributes):
    words = [f'<{name} class="{kind}"']
    for key, value in attributes.items():
        words.append(f'{key}="{value:.1f}"' if isinstance(value, float) else f'{key}="{value}"')
    return " ".join(words) + "/>"


def text(x, y, content, kind="label", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x, top, bottom, kind):
    return element("line", kind, x1=float(x), x2=float(x), y1=float(top), y2=float(bottom))


def step_of(span, most=10):
    """Distance of the axis' numbers: 1, 2 or 5 times a power of ten."""
    step = 1e-9
    while span / step > most:
        step *= 2 if str(f"{step:e}")[0] in "15" else 2.5
    return step


def rows_of(labels):
    """The row of each (x, text), so that texts do not overlap and no leader crosses one.

    From the right to the left: what is above a label begins to the right of its leader.
    """
    rows = {}
    for x, content in sorted(labels, reverse=True):
        end = x + CHARACTER * len(content) + 8
        rows[x, content] = 1 + max((row for (other, _), row in rows.items() if other < end), default=-1)
    return rows


class Drawing:
    def __init__(self, title, description):
        self.parts = [f"<title>{escape(title)}</title>", f"<desc>{escape(description)}</desc>"]
        self.y = 8

    def add(self, panel):
        self.y += 22
        self.parts.append(text(16, self.y, panel.title, "title"))
        self.y += 12
        top, grid = self.y, len(self.parts)
        for lane in panel.lanes:
            self.lane(panel, lane)
        self.axis(panel, top, grid)

    def lane(self, panel, lane):
        def place(time):
            return LEFT + (time - panel.start) / (panel.end - panel.start) * PLOT

        if lane.links:
            self.y += GAP
        centre, labels = self.y + BAR / 2, []
        self.parts.append(text(LEFT - 10, centre + 4, lane.name, "lane", "end"))
        for bar in lane.bars:
            x, width = place(bar.start), max(2, place(bar.end) - place(bar.start) - 1)
            self.parts.append(element("rect", bar.kind, x=x, y=self.y, width=width, height=BAR, rx=3))
            if len(bar.text) * CHARACTER + 8 < width:
                self.parts.append(text(x + width / 2, centre + 4, bar.text, "inside", "middle"))
            elif bar.text:
                labels.append((x + 3, bar.text))
        for start, end in lane.links:
            a, b, top = place(start), place(end), self.y - GAP
            path = f"M{a:.1f} {centre:.1f} C{a:.1f} {top:.1f} {b:.1f} {top:.1f} {b:.1f} {centre:.1f}"
            self.parts.append(element("path", "link", d=path))
        for mark in lane.marks:
            self.parts.append(
                f'<circle class="{mark.kind}" cx="{place(mark.time):.1f}" cy="{centre}" r="5"/>'
            )
            if mark.text:
                labels.append((place(mark.time), mark.text))
        self.y += BAR
        rows = rows_of(labels)
        for (x, content), row in rows.items():
            bottom = self.y + 4 + row * ROW
            self.parts += [line(x, centre + 6, bottom + 10, "leader"), text(x + 4, bottom + 10, content)]
        self.y += ROW * (1 + max(rows.values(), default=-1)) + (GAP if rows else GAP / 2)

    def axis(self, panel, top, at):
        """Lines go below everything: to where the panel begins in the list."""
        step, grid = step_of((panel.end - panel.start) * panel.scale), []
        for number in range(int((panel.end - panel.start) * panel.scale / step) + 1):
            value = number * step
            x = LEFT + value / panel.scale / (panel.end - panel.start) * PLOT
            grid.append(line(x, top, self.y, "grid"))
            self.parts.append(text(x, self.y + 14, f"{value:g} {panel.unit}", "axis", "middle"))
        self.parts[at:at] = grid
        self.y += 26

    def svg(self):
        height = round(self.y + 10)
        size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        card = element("rect", "card", x=0.5, y=0.5, width=WIDTH - 1, height=height - 1, rx=6)
        return "\n".join([head, f"<style>{STYLE}</style>", card, *self.parts, "</svg>"]) + "\n"
