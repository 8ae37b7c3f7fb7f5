"""A ranking of sites or modules as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from quantfx.passes.report.compare.tally import decibels
from quantfx.passes.report.folded_table import folded_table
from quantfx.passes.report.sensitivity.ranking import Evaluation, Ranked, noise_decibels

# More rows than a screen holds are in the data.
_ROWS = 20

# Above this, the order of neighbours in the ranking is chance.
_THIN = 0.5


def tables(
    ranked: Sequence[Ranked],
    noise: float,
    told: str,
    rows: str,
    by: str,
    left_out: Sequence[tuple[str, str]],
    evaluation: Evaluation | None,
) -> Iterator[RenderableType]:
    """Yield a summary line, the ranking, and the sites without numbers."""
    yield Text(
        f"all rounded: {decibels(noise_decibels(noise))} {told} at the outputs, over {rows}",
        style="bold",
    )
    if evaluation is not None:
        yield Text(
            f"{evaluation.metric}: {evaluation.exact:.4g} in float, {evaluation.rounded:.4g} with "
            "all sites rounded",
        )
    measured = any(row.measured for row in ranked)
    names = ["op", "module"] if by == "site" else ["sites"]
    figures = ["alone", "+-", "wins", "MACs", *(["measured alone", "without"] if measured else [])]
    table = folded_table(by, *names)
    for figure in figures:
        table.add_column(figure, justify="right")
    for row in ranked[:_ROWS]:
        table.add_row(*_cells(row, noise, by, measured=measured))
    if len(ranked) > _ROWS:
        table.add_row(f"and {len(ranked) - _ROWS} more", *[""] * (len(names) + len(figures)))
    yield table
    thin = sum(row.uncertainty > _THIN for row in ranked[:_ROWS])
    if thin:
        yield Text(
            f"the cost of {thin} of these is uncertain by more than {_THIN:.0%}: {rows} are few; "
            "give more batches, or draws=4",
            style="yellow",
        )
    for name, reason in left_out:
        yield Text(f"not estimated: {name}: {reason}")


def _cells(row: Ranked, noise: float, by: str, *, measured: bool) -> Iterator[str]:
    yield row.name or "(the model itself)"
    yield from [row.op, row.module] if by == "site" else [str(len(row.sites))]
    yield decibels(row.sqnr)
    yield f"{row.uncertainty:.0%}"
    yield f"{row.win / noise:.1%}" if noise else "-"
    yield "?" if row.macs is None else f"{row.macs:,}"
    if measured:
        found = row.measured
        yield "" if found is None else f"{found.alone:.4g}"
        yield "" if found is None else f"{found.without:.4g}"
