"""A benchmark as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engines import BASELINE
from quantfx.tools.bench.results import BenchReport, Comparison, Measured, Missed

# Largest ratio of a call of the breakdown to the median of the turns.
_BUSY = 1.5
_BREAKDOWN_LEGEND = (
    "loops: oneDNN's reorders, and what prepared plans compute without oneDNN. call overhead: "
    "inside the int8 operators, around kernels and loops. the rest: float operators, generated "
    "loops, and the calls from Python.\n"
)


def parts_of(comparison: Comparison) -> Iterator[Table | str]:
    """Yield the table of a model, why engines are missing, and the breakdown if there is one."""
    yield comparison_table(comparison)
    missed = [row for row in comparison.rows if isinstance(row, Missed)]
    yield "\n".join([*(f"{row.engine} {row.reason}" for row in missed), ""])
    found: dict[str, Breakdown] = {}
    for engine, breakdown in comparison.breakdowns.items():
        if isinstance(breakdown, Breakdown):
            found[engine] = breakdown
            yield breakdown_table(f"{comparison.model}, {engine}", breakdown)
            yield from _distrust(comparison, engine, breakdown)
        else:
            yield f"{comparison.model}, {engine}: no breakdown; {breakdown}"
    if len(found) > 1:
        yield sums_table(comparison.model, found)
    if found:
        yield _BREAKDOWN_LEGEND


def _distrust(comparison: Comparison, engine: str, breakdown: Breakdown) -> Iterator[str]:
    for row in comparison.rows:
        if row.engine != engine or isinstance(row, Missed):
            continue
        if breakdown.whole_ms > _BUSY * row.median_ms:
            yield (
                f"Do not trust this breakdown: one call took {_short(breakdown.whole_ms)} ms, but "
                f"{_short(row.median_ms)} ms before. Other programs were busy, for which threads "
                "wait inside the kernels.\n"
            )


def comparison_table(comparison: Comparison) -> Table:
    """Return a row for every engine that ran."""
    table = _table(comparison.model)
    table.add_column("engine", no_wrap=True)
    for figure in ("speed-up", "ms", "min", "build\ns", "peak\nMB", "SQNR\ndB", "top-1"):
        table.add_column(figure, justify="right", no_wrap=True)
    for row in comparison.rows:
        if isinstance(row, Measured):
            table.add_row(row.engine, *_figures(comparison, row))
    return table


def _figures(comparison: Comparison, row: Measured) -> Iterator[str]:
    speedup = comparison.speedup(row, BASELINE.name)
    yield str(speedup) if speedup else "-"
    yield _short(row.median_ms)
    yield _short(row.min_ms)
    yield _short(row.build_seconds)
    yield f"{row.peak_bytes / 1e6:.0f}"
    yield f"{row.accuracy.sqnr_db:.1f}"
    yield "-" if row.accuracy.top1 is None else f"{row.accuracy.top1:.1%}"


def breakdown_table(model: str, breakdown: Breakdown) -> Table:
    """Return a row for every site, and the sums below."""
    table = _table(f"{model}: where the milliseconds are")
    table.add_column("site", overflow="fold")
    table.add_column("kernel", no_wrap=True)
    for figure in ("kernel ms", "loops ms", "overhead ms", "share"):
        table.add_column(figure, justify="right", no_wrap=True)
    whole = breakdown.whole_ms
    for site in breakdown.sites:
        parts = site.kernel_ms, site.loop_ms, site.overhead_ms
        figures = (*(f"{each:.3f}" for each in parts), f"{sum(parts) / whole:.1%}")
        table.add_row(site.site, site.kernel, *figures)
    table.add_section()
    for name, milliseconds in _sums(breakdown):
        table.add_row(name, "", f"{milliseconds:.3f}", "", "", f"{milliseconds / whole:.1%}")
    return table


def sums_table(model: str, breakdowns: Mapping[str, Breakdown]) -> Table:
    """Return the sums of several engines side by side, in milliseconds."""
    table = _table(f"{model}: one call, in ms")
    table.add_column("")
    for engine in breakdowns:
        table.add_column(engine, justify="right", no_wrap=True)
    columns = [_sums(each) for each in breakdowns.values()]
    for row in zip(*columns, strict=True):
        table.add_row(row[0][0], *(f"{milliseconds:.3f}" for _, milliseconds in row))
    return table


def _sums(breakdown: Breakdown) -> list[tuple[str, float]]:
    return [
        ("int8 kernels", breakdown.kernel_ms),
        ("loops", breakdown.loop_ms),
        ("call overhead", breakdown.overhead_ms),
        ("the rest", breakdown.rest_ms),
        ("one call", breakdown.whole_ms),
    ]


def legend(report: BenchReport) -> str:
    """Return the meaning of the figures in all tables, and the machine."""
    machine, settings = report.machine, report.settings
    return (
        f"{machine.cpu}, {machine.target}, {settings.threads} threads; {settings.rounds} rounds in "
        f"which each engine had one turn of {settings.calls} calls.\n"
        f"speed-up: over {BASELINE.name}, median of the ratios of each round (quartiles). ms: of a "
        "call; the median and the fastest round. build: import, quantize, compile and first call, "
        "from empty caches. peak: resident memory of the engine's process, with the float model "
        "and building. "
        "SQNR and top-1: against the float network."
    )


def _table(title: str) -> Table:
    # As narrow as can be: eight columns of figures have to fit into a terminal of 80.
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}" if value >= 100 else f"{value:.3g}"
