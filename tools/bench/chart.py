"""A benchmark as a bar chart."""

from __future__ import annotations

from quantfx.tools.bench.engines import BASELINE
from quantfx.tools.bench.results import BenchReport, Comparison, Measured
from quantfx.tools.drawing.bar_chart import Bar, Group, bar_chart


def to_svg(report: BenchReport) -> str:
    """Return an SVG document with the speed-up of every engine that ran, by model."""
    machine, settings = report.machine, report.settings
    note = (
        f"Median of {settings.rounds} rounds in which all engines took turns; whiskers are "
        "quartiles; the dashed line is the baseline.\n"
        f"{machine.cpu} ({machine.target}), {settings.threads} threads, torch "
        f"{machine.versions['torch']}, {machine.date[:10]}"
    )
    groups = [Group(comparison.model, _bars(comparison)) for comparison in report.comparisons]
    return bar_chart(f"Speed-up over {BASELINE.title}", note, groups)


def _bars(comparison: Comparison) -> tuple[Bar, ...]:
    bars: list[Bar] = []
    for row in comparison.rows:
        speedup = comparison.speedup(row, BASELINE.name) if isinstance(row, Measured) else None
        if speedup is not None:
            ours = row.engine.startswith("quantfx")
            bars.append(
                Bar(row.engine, value=speedup.median, low=speedup.low, high=speedup.high, ours=ours)
            )
    return tuple(bars)
