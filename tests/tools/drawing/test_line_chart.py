"""Line charts: the same text for the same figures, with points where they belong."""

from __future__ import annotations

import re

from quantfx.tools.drawing.line_chart import Line, Panel, line_chart

PANEL = Panel("t", "bits", ("8", "2"), (Line("a <b>", (("8", 1.0), ("2", 0.5))),))


def test_points_span_the_axes() -> None:
    text = line_chart("title", [PANEL])
    assert text == line_chart("title", [PANEL])
    [points] = re.findall(r'points="([^"]*)"', text)
    (x1, y1), (x2, y2) = (tuple(map(float, point.split(","))) for point in points.split())
    grid = [float(y) for y in re.findall(r'class="grid" x1="\d+" y1="([\d.]+)"', text)]
    assert x2 - x1 == 330
    assert (y1, y2) == (min(grid), y2)
    assert y1 < y2 <= max(grid)
    assert "a &lt;b&gt;" in text


def test_rows_have_axes_of_their_own_and_single_points_are_dots() -> None:
    high = Panel("h", "bits", ("8",), (Line("a", (("8", 0.99),)),))
    text = line_chart("title", [PANEL, PANEL, high])
    assert text.count("<circle") == 1
    assert "99 %" in text
    assert "50 %" in text or "40 %" in text
