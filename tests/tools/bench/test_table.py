from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from quantfx.tools.bench.results import BenchReport
from quantfx.tools.bench.table import legend, parts_of
from tests.tools.bench.sample import BREAKDOWN, ROWS, sample_report


def text_of(report: BenchReport, width: int = 80) -> str:
    stream = StringIO()
    console = Console(file=stream, width=width)
    for comparison in report.comparisons:
        for part in parts_of(comparison):
            console.print(part, markup=False)
    console.print(legend(report), markup=False)
    return stream.getvalue()


def test_a_row_of_figures() -> None:
    text = text_of(sample_report())
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "quantfx 3.00x (2.50 to 3.50) 2 2 1.5 1000 20.0 75.0%" in rows
    assert "quantfx - 2 2 1.5 1000 20.0 75.0%" in rows  # the model without a baseline


def test_the_longest_row_fits_into_80_columns() -> None:
    report = sample_report()
    slow = replace(
        ROWS[0], engine="quantfx-dynamic", seconds=(1.2345, 1.3, 1.4), build_seconds=123.4
    )
    wide = replace(report, comparisons=(replace(report.comparisons[0], rows=(slow, *ROWS)),))
    assert "…" not in text_of(wide)


def test_reasons_and_meanings_are_below() -> None:
    text = text_of(sample_report())
    assert "bf16 skipped: no bfloat16" in text
    assert "3 rounds in which each engine had one turn of 5 calls" in " ".join(text.split())


def test_a_breakdown_ends_with_its_sums() -> None:
    lines = [line.split() for line in text_of(sample_report()).splitlines()]
    assert ["conv2d", "qconv_pointwise", "0.500", "0.000", "0.250", "37.5%"] in lines
    assert ["relu", "lookup", "0.000", "0.125", "0.000", "12.5%"] in lines
    assert [line[-2:] for line in lines if line[:2] in (["one", "call"], ["int8", "kernels"])] == [
        ["0.625", "31.2%"],
        ["2.000", "100.0%"],
        ["0.500", "50.0%"],
        ["1.000", "100.0%"],
        ["0.625", "0.500"],  # before and after, side by side
        ["2.000", "1.000"],
    ]
    assert ["call", "overhead", "0.375", "0.062"] in lines


def test_a_missing_breakdown_has_its_reason() -> None:
    report = sample_report()
    without = replace(report.comparisons[0], breakdowns={"quantfx": "failed: odd"})
    text = text_of(replace(report, comparisons=(without,)))
    assert "net & co, quantfx: no breakdown; failed: odd" in text


def test_a_breakdown_of_a_busy_machine_is_not_to_be_trusted() -> None:
    report = sample_report()  # its calls took 2 ms each
    slow = replace(BREAKDOWN, whole_ms=3.5)
    busy = replace(report.comparisons[0], breakdowns={"quantfx": slow})
    assert "Do not trust" in text_of(replace(report, comparisons=(busy,)))
    assert "Do not trust" not in text_of(report)
