"""The costs and wins of sites as bars in SVG text, which is deterministic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from quantfx.passes.report.compare.tally import decibels
from quantfx.passes.report.sensitivity.ranking import Ranked, noise_decibels

_LABELS, _BARS, _VALUES = 230, 420, 90  # pixels: left of the bars, the axis, right of the bars
_ROW, _BAR, _HEAD, _MARGIN = 26, 9, 64, 16
_WIDTH = 2 * _MARGIN + _LABELS + _BARS + _VALUES
_LEFT = _MARGIN + _LABELS
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-size: 16px; font-weight: 600 }
.cost { fill: #2f6fb3 }
.win { fill: #e39b3a }
.zero { stroke: #888 }"""


def chart(ranked: Sequence[Ranked], noise: float) -> str:
    """Return an SVG document with two bars for each of ``ranked``, as shares of ``noise``.

    Args:
        ranked: The rows from top to bottom.
        noise: The noise with all sites rounded.
    """
    shares = [(_share(row.cost, noise), _share(row.win, noise)) for row in ranked]
    highest = max((max(pair) for pair in shares), default=0.0)
    lowest = min((min(0.0, *pair) for pair in shares), default=0.0)
    scale = _BARS / ((highest - lowest) or 1.0)
    zero = _LEFT - lowest * scale
    height = _HEAD + _ROW * len(ranked) + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_MARGIN, 30, f"all rounded: {decibels(noise_decibels(noise))}", "title"),
        _text(_MARGIN, 50, "shares of the noise: blue, rounded alone; orange, won if left float"),
    ]
    for index, (row, pair) in enumerate(zip(ranked, shares, strict=True)):
        lines += _bars(row.name or "(the model itself)", pair, _HEAD + index * _ROW, zero, scale)
    bottom = height - _MARGIN
    lines.append(f'<line class="zero" x1="{zero:.1f}" y1="{_HEAD}" x2="{zero:.1f}" y2="{bottom}"/>')
    return "\n".join([*lines, "</svg>", ""])


def _share(part: float, noise: float) -> float:
    """Return ``part / noise``; 0 if the noise is zero or infinite."""
    return part / noise if noise and math.isfinite(part) and math.isfinite(noise) else 0.0


def _bars(
    label: str, shares: tuple[float, float], y: int, zero: float, scale: float
) -> Iterator[str]:
    yield _text(_LEFT - 8, y + 14, label, anchor="end")
    for share, kind, top in zip(shares, ("cost", "win"), (y + 3, y + 3 + _BAR), strict=True):
        x, width = min(zero, zero + share * scale), abs(share) * scale
        yield (f'<rect class="{kind}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}"/>')
    end = zero + max(0.0, *shares) * scale
    yield _text(end + 6, y + 15, " / ".join(f"{share:.1%}" for share in shares))


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
