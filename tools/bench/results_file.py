"""A benchmark as JSON, with everything that was measured down to each round, and as a bar chart."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engines import BASELINE
from quantfx.tools.bench.results import BenchReport, Comparison, Measured, Missed
from quantfx.tools.drawing.bar_chart import Bar, Group, bar_chart

FORMAT = 2
_NOTES = {
    "speedup": "time of the baseline over time of the engine, of each round: median and quartiles",
    "build_seconds": "import, quantize, compile and first call, from empty caches",
    "accuracy": "against the float network run eagerly; non-finite numbers are texts",
    "peak_bytes": "resident memory of the engine's process since its start, with the float model "
    "and building, without the compilers it starts",
    "round_seconds": "of one call: mean over the calls of a turn; entry r belongs to round r, in "
    "which all engines had one turn",
    "breakdowns": "by engine; medians; kernels, loops, overhead and rest sum up to the whole",
}


def to_json(report: BenchReport) -> str:
    """Return the report as JSON text."""
    data = {
        "format": FORMAT,
        "machine": asdict(report.machine),
        "settings": asdict(report.settings),
        "baseline": BASELINE.name,
        "notes": _NOTES,
        "models": [_comparison(comparison) for comparison in report.comparisons],
    }
    return json.dumps(data, indent=2, allow_nan=False)


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "model": comparison.model,
        "rows": [_row(comparison, row) for row in comparison.rows],
        "breakdowns": {name: _breakdown(each) for name, each in comparison.breakdowns.items()},
    }


def _row(comparison: Comparison, row: Measured | Missed) -> dict[str, Any]:
    if isinstance(row, Missed):
        return {"engine": row.engine, "title": row.title, "missed": row.reason}
    speedup = comparison.speedup(row, BASELINE.name)
    return {
        "engine": row.engine,
        "title": row.title,
        "missed": None,
        "speedup": asdict(speedup) if speedup else None,
        "milliseconds": {"median": row.median_ms, "min": row.min_ms},
        "build_seconds": row.build_seconds,
        "peak_bytes": row.peak_bytes,
        "accuracy": {
            "sqnr_db": _number(row.accuracy.sqnr_db),
            "top1_agreement": row.accuracy.top1,
        },
        "round_seconds": list(row.seconds),
    }


def _breakdown(breakdown: Breakdown | str) -> dict[str, Any] | str:
    if not isinstance(breakdown, Breakdown):
        return breakdown
    return {
        "whole_ms": breakdown.whole_ms,
        "kernel_ms": breakdown.kernel_ms,
        "loop_ms": breakdown.loop_ms,
        "overhead_ms": breakdown.overhead_ms,
        "rest_ms": breakdown.rest_ms,
        "sites": [asdict(site) for site in breakdown.sites],
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no inf and no nan


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
