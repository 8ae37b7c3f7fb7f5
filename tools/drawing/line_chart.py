"""Lines in panels beside each other, as deterministic SVG text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 330, 230  # of a panel's axes, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 44, 52
_COLUMN, _ROW = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
_HEAD = 64  # of title and legend
_LEGEND = 150  # of one entry
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_COLORS = ("#888888", "#c2571a", "#2f6fb3", "#1d8a5b", "#7a3fb0")

_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-size: 17px; font-weight: 600 }
.panel { font-size: 13px; font-weight: 600 }
.tick, .label { font-size: 11px; fill: #666 }
.grid { stroke: #e4e4e4 }
.line { fill: none; stroke-width: 2 }"""


@dataclass(frozen=True)
class Line:
    """One series; lines of one name have one color in all panels.

    Attributes:
        name: Name in the legend.
        points: ``(place, value)`` pairs, with places of the panel.
    """

    name: str
    points: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Panel:
    """Axes with lines.

    Attributes:
        title: Text above.
        label: Text below: the meaning of the places.
        places: Places from left to right.
        lines: Lines from back to front.
    """

    title: str
    label: str
    places: tuple[str, ...]
    lines: tuple[Line, ...]


def line_chart(title: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """Return an SVG document; the panels of a row share one vertical axis, in percent, up to 100 %.

    Args:
        title: Text above the panels.
        panels: Panels, row by row.
        columns: Number of panels beside each other.
    """
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colors = {name: _COLORS[at % len(_COLORS)] for at, name in enumerate(names)}
    rows = [panels[at : at + columns] for at in range(0, len(panels), columns)]
    width, height = columns * _COLUMN, _HEAD + len(rows) * _ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(16, 28, title, "title"),
    ]
    for at, name in enumerate(names):
        x = 16 + at * _LEGEND
        lines.append(f'<path class="line" stroke="{colors[name]}" d="M{x} 52h18"/>')
        lines.append(_text(x + 24, 56, name, ""))
    for down, row in enumerate(rows):
        ticks = _ticks(min(y for panel in row for line in panel.lines for _, y in line.points))
        for across, panel in enumerate(row):
            corner = across * _COLUMN, _HEAD + down * _ROW
            lines += _panel(panel, corner, ticks, colors)
    return "\n".join([*lines, "</svg>", ""])


def _ticks(lowest: float) -> list[float]:
    """Return the numbers on the axis, from the first not above ``lowest`` to 1."""
    step = next((step for step in _STEPS if (1 - lowest) / step <= 6), _STEPS[-1])
    count = 0
    while 1 - count * step > lowest + 1e-9:
        count += 1
    return [1 - step * index for index in range(max(count, 1), -1, -1)]


def _panel(
    panel: Panel, corner: tuple[int, int], ticks: Sequence[float], colors: dict[str, str]
) -> Iterator[str]:
    left, top = corner[0] + _LEFT, corner[1] + _TOP
    last = max(len(panel.places) - 1, 1)
    across = {place: left + _WIDTH * at / last for at, place in enumerate(panel.places)}

    def down(value: float) -> float:
        return top + _HEIGHT * (ticks[-1] - value) / (ticks[-1] - ticks[0])

    yield _text(left, top - 14, panel.title, "panel")
    for tick in ticks:
        y = down(tick)
        yield f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + _WIDTH}" y2="{y:.1f}"/>'
        yield _text(left - 8, y + 4, f"{tick * 100:g} %", "tick", "end")
    for place, x in across.items():
        yield _text(x, top + _HEIGHT + 18, place, "tick", "middle")
    yield _text(left + _WIDTH / 2, top + _HEIGHT + 36, panel.label, "label", "middle")
    for line in panel.lines:
        points = " ".join(f"{across[place]:.1f},{down(value):.1f}" for place, value in line.points)
        yield f'<polyline class="line" stroke="{colors[line.name]}" points="{points}"/>'
        if len(line.points) == 1:
            place, value = line.points[0]
            color, x, y = colors[line.name], across[place], down(value)
            yield f'<circle fill="{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'
