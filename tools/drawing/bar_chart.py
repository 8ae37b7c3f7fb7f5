"""Horizontal bars with whiskers, as deterministic SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from xml.sax.saxutils import escape

_LABELS = 150  # pixels left of the bars
_BARS = 460  # pixels of the axis
_VALUES = 80  # pixels right of the axis, for the text after the longest whisker
_ROW, _BAR = 30, 18
_HEADING, _MARGIN, _LINE = 34, 16, 18
_WIDTH = _MARGIN + _LABELS + _BARS + _VALUES
_LEFT = _MARGIN + _LABELS
_STEPS = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_MOST_TICKS = 8

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #222 }
.title { font-size: 17px; font-weight: 600 }
.group { font-size: 14px; font-weight: 600 }
.tick, .note { font-size: 11px; fill: #666 }
.grid { stroke: #e4e4e4 }
.one { stroke: #888; stroke-dasharray: 4 3 }
.bar { fill: #a9b8c9 }
.ours { fill: #2f6fb3 }
.whisker { stroke: #222; stroke-width: 1.5 }"""


@dataclass(frozen=True)
class Bar:
    """One value.

    Attributes:
        label: Text to its left.
        value: Its length.
        low: Where the whisker starts.
        high: Where it ends.
        ours: Drawn in another colour.
    """

    label: str
    _: KW_ONLY
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True)
class Group:
    """Bars under a heading."""

    heading: str
    bars: tuple[Bar, ...]


def bar_chart(title: str, note: str, groups: Sequence[Group]) -> str:
    """Return an SVG document; all groups share one axis, which starts at 0.

    Args:
        title: Text above the bars.
        note: Text below the bars; may have several lines.
        groups: Groups from top to bottom.
    """
    ticks = _ticks(max((bar.high for group in groups for bar in group.bars), default=1.0))
    scale = _BARS / ticks[-1]
    top = _MARGIN + _HEADING
    bottom = top + sum(_HEADING + _ROW * len(group.bars) for group in groups)
    notes = note.splitlines()
    height = bottom + 2 * _LINE + _LINE * len(notes) + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_MARGIN, _MARGIN + _LINE, title, "title"),
        *_axis(ticks, scale, top, bottom),
    ]
    y = top
    for group in groups:
        lines.append(_text(_MARGIN, y + _HEADING - 10, group.heading, "group"))
        y += _HEADING
        for bar in group.bars:
            lines += _bar(bar, y, scale)
            y += _ROW
    lines += [
        _text(_MARGIN, bottom + (index + 3) * _LINE, line, "note")
        for index, line in enumerate(notes)
    ]
    return "\n".join([*lines, "</svg>", ""])


def _ticks(highest: float) -> list[float]:
    """Return the numbers on the axis, from 0 to the first not below ``highest``."""
    step = next((s for s in _STEPS if highest / s <= _MOST_TICKS), highest / _MOST_TICKS)
    return [step * index for index in range(math.ceil(highest / step) + 1)]


def _axis(ticks: Sequence[float], scale: float, top: int, bottom: int) -> Iterator[str]:
    for tick in ticks:
        x = _LEFT + tick * scale
        yield f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, bottom + _LINE, f"{tick:g}x", "tick", "middle")
    one = _LEFT + scale
    yield f'<line class="one" x1="{one:.1f}" y1="{top}" x2="{one:.1f}" y2="{bottom}"/>'


def _bar(bar: Bar, y: int, scale: float) -> Iterator[str]:
    middle = y + _ROW / 2
    low, high = _LEFT + bar.low * scale, _LEFT + bar.high * scale
    yield _text(_LEFT - 8, middle + 4.5, bar.label, "", "end")
    yield (
        f'<rect class="{"ours" if bar.ours else "bar"}" x="{_LEFT}" y="{middle - _BAR / 2:.1f}" '
        f'width="{bar.value * scale:.1f}" height="{_BAR}"/>'
    )
    yield f'<line class="whisker" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
    for x in (low, high):
        yield (
            f'<line class="whisker" x1="{x:.1f}" y1="{middle - 4}" x2="{x:.1f}" y2="{middle + 4}"/>'
        )
    end = max(high, _LEFT + bar.value * scale)
    yield _text(end + 8, middle + 4.5, f"{bar.value:.2f}x", "")


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'
