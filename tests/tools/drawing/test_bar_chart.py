from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from quantfx.tools.bench.results_file import to_svg
from quantfx.tools.drawing.bar_chart import Bar, Group, bar_chart
from tests.tools.bench.sample import sample_report

SVG = "{http://www.w3.org/2000/svg}"
GROUPS = (
    Group(
        "first <net>",
        (
            Bar("a & b", value=1.0, low=1.0, high=1.0),
            Bar("ours", value=2.0, low=1.5, high=2.75, ours=True),
        ),
    ),
    Group("second", (Bar("c", value=0.5, low=0.25, high=1.0),)),
)


def parsed(svg: str) -> Element:
    return ElementTree.fromstring(svg)


def of_class(root: Element, tag: str, *names: str) -> list[Element]:
    return [element for element in root.iter(SVG + tag) if element.get("class") in names]


def test_bars_are_as_long_as_their_values() -> None:
    bars = of_class(parsed(bar_chart("t", "n", GROUPS)), "rect", "bar", "ours")
    widths = [float(bar.get("width", "")) for bar in bars]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 0.5], rel=1e-2)
    assert [bar.get("class") for bar in bars] == ["bar", "ours", "bar"]


def test_whiskers_lie_on_the_axis_of_the_bars() -> None:
    root = parsed(bar_chart("t", "n", GROUPS))
    bar = of_class(root, "rect", "ours")[0]
    zero, length = (float(bar.get(key, "")) for key in ("x", "width"))
    whisker = of_class(root, "line", "whisker")[3]  # a line and two ends for each bar
    ends = [(float(whisker.get(key, "")) - zero) / length * 2.0 for key in ("x1", "x2")]
    assert ends == pytest.approx([1.5, 2.75], rel=1e-2)
    (one,) = of_class(root, "line", "one")
    assert float(one.get("x1", "")) - zero == pytest.approx(length / 2, abs=0.1)


def test_every_text_is_there_and_escaped() -> None:
    svg = bar_chart("the title", "line one\nline two", GROUPS)
    texts = [element.text for element in parsed(svg).iter(SVG + "text")]
    for text in ("the title", "line one", "line two", "first <net>", "a & b", "2.00x", "0.50x"):
        assert text in texts


def test_everything_lies_inside_the_picture() -> None:
    root = parsed(bar_chart("t", "n", GROUPS))
    width, height = (float(root.get(key, "")) for key in ("width", "height"))
    for element in root.iter():
        for keys, limit in ((("x", "x1", "x2"), width), (("y", "y1", "y2"), height)):
            for key in keys:
                assert 0 <= float(element.get(key, "0")) <= limit


def test_figures_of_any_size_have_at_most_nine_ticks() -> None:
    for value in (0.01, 0.3, 1.0, 7.9, 30.0, 900.0):
        bar = Bar("a", value=value, low=value, high=value)
        ticks = of_class(parsed(bar_chart("t", "n", [Group("g", (bar,))])), "text", "tick")
        assert 2 <= len(ticks) <= 10


def test_no_bars_are_a_picture_too() -> None:
    parsed(bar_chart("t", "", []))


def test_a_benchmark_is_drawn_without_the_engines_that_did_not_run() -> None:
    svg = to_svg(sample_report())
    texts = [element.text for element in parsed(svg).iter(SVG + "text")]
    assert "quantfx" in texts
    assert "bf16" not in texts
    assert "net & co" in texts
    assert svg == to_svg(sample_report())
