"""A benchmark as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from quantfx.tools.bench.breakdown import Breakdown
from quantfx.tools.bench.engines import BASELINE, BROKEN_DOWN
from quantfx.tools.bench.results import BenchReport, Comparison, Measured, Missed

# A call of the breakdown may take that many times as long as the median of the turns.
_BUSY = 1.5
_BREAKDOWN_LEGEND = (
    "call overhead: inside the int8 operators, around oneDNN's primitives. the rest: float "
    "operators, generated loops, and the calls from Python.\n"
)


def parts_of(comparison: Comparison) -> Iterator[Table | str]:
    """Yield the table of a model, why engines are missing, and the breakdown if there is one."""
    yield comparison_table(comparison)
    missed = [row for row in comparison.rows if isinstance(row, Missed)]
    yield "\n".join([*(f"{row.engine} {row.reason}" for row in missed), ""])
    if isinstance(comparison.breakdown, Breakdown):
        yield breakdown_table(comparison.model, comparison.breakdown)
        yield _BREAKDOWN_LEGEND
        yield from _distrust(comparison, comparison.breakdown)
    elif comparison.breakdown is not None:
        yield f"{comparison.model}: no breakdown; {comparison.breakdown}"


def _distrust(comparison: Comparison, breakdown: Breakdown) -> Iterator[str]:
    for row in comparison.rows:
        if row.engine != BROKEN_DOWN.name or isinstance(row, Missed):
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
    for figure in ("kernel ms", "overhead ms", "share"):
        table.add_column(figure, justify="right", no_wrap=True)
    whole = breakdown.whole_ms
    for site in breakdown.sites:
        share = (site.kernel_ms + site.overhead_ms) / whole
        figures = f"{site.kernel_ms:.3f}", f"{site.overhead_ms:.3f}", f"{share:.1%}"
        table.add_row(site.site, site.kernel, *figures)
    table.add_section()
    for name, milliseconds in (
        ("int8 kernels", breakdown.kernel_ms),
        ("call overhead", breakdown.overhead_ms),
        ("the rest", breakdown.rest_ms),
        ("one call", whole),
    ):
        table.add_row(name, "", f"{milliseconds:.3f}", "", f"{milliseconds / whole:.1%}")
    return table


def legend(report: BenchReport) -> str:
    """Return what the figures of all tables mean, and what they were measured on."""
    machine, settings = report.machine, report.settings
    return (
        f"{machine.cpu}, {machine.target}, {settings.threads} threads; {settings.rounds} rounds in "
        f"which each engine had one turn of {settings.calls} calls.\n"
        f"speed-up: over {BASELINE.name}, by round; median (quartiles). ms: of a call; the median "
        "and the fastest round. build: import, quantize, compile and first call, from empty "
        "caches. peak: resident memory of the engine's process, with the float model and building. "
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
