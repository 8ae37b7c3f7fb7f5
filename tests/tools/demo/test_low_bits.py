"""Training recovers what calibration loses at few bits."""

from __future__ import annotations

from xml.etree import ElementTree

from quantfx.tools.demo.low_bits import AtBits, Recovery, chart, recovery
from quantfx.tools.models.digits import DigitsRun


def test_training_recovers_what_calibration_loses_at_two_bits(digits: DigitsRun) -> None:
    found = recovery("convolutions", digits, bits=(2,), epochs=2)
    [row] = found.rows
    assert found.accuracy > 0.98
    assert row.calibrated < 0.9
    assert row.repaired > row.calibrated + 0.05
    assert row.int8 > row.calibrated + 0.05
    assert row.learned_int8 > row.calibrated + 0.05
    assert len(row.trained) == len(row.learned) == 3
    assert abs(row.trained[-1] - row.int8) < 0.02  # the kernels compute what was trained


def test_the_chart_has_two_panels_a_network() -> None:
    rows = (
        AtBits(
            8,
            calibrated=0.99,
            repaired=0.99,
            trained=(0.98, 0.99),
            learned=(0.98, 0.99),
            int8=0.99,
            learned_int8=0.99,
        ),
        AtBits(
            2,
            calibrated=0.7,
            repaired=0.9,
            trained=(0.4, 0.98),
            learned=(0.7, 0.97),
            int8=0.98,
            learned_int8=0.97,
        ),
    )
    text = chart([Recovery("one", 0.99, rows), Recovery("two", 0.95, rows)])
    root = ElementTree.fromstring(text)  # our own text
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 4 * 5
    words = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert words.count("bits of a weight") == 2
    assert "one: 2 bits" in words
