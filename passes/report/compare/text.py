"""A comparison as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from quantfx.passes.report.compare.site_numbers import SiteNumbers
from quantfx.passes.report.compare.tally import Fidelity, decibels
from quantfx.passes.report.folded_table import folded_table

# More sites than a screen holds are in the data.
_ROWS = 20

# Relative error of the float graph that exceeds rounding: 1e-3 of the signal.
FLOAT_LIMIT = 60.0


def tables(
    ranked: Sequence[SiteNumbers],
    output: Fidelity | None,
    model: Fidelity | None,
    calls: int,
    left_out: Sequence[tuple[str, str]],
) -> Iterator[RenderableType]:
    """Yield a summary line, the worst sites, and their problems."""
    yield Text(_head(output, calls), style="bold")
    if model is not None and model.sqnr < FLOAT_LIMIT:
        yield Text(
            f"the float graph is not the model: {_decibels(model)} between them. A pass before "
            "quantization changed the function; this names it: quantfx.bisect(model, example, "
            'check=quantfx.checks.close_to_float(60), config="float", strict=False)',
            style="red",
        )
    table = folded_table("site", "op", "module", "own", "here", "cosine", "what is the matter")
    for column in table.columns[3:6]:
        column.justify, column.no_wrap = "right", True
    for each in ranked[:_ROWS]:
        cosine = "-" if each.accumulated is None else f"{each.accumulated.cosine:.5f}"
        names = ", ".join(dict.fromkeys(found.name for found in each.diagnoses))
        table.add_row(
            str(each.site),
            each.op,
            each.module,
            _decibels(each.own),
            _decibels(each.accumulated),
            cosine,
            names,
        )
    if len(ranked) > _ROWS:
        table.add_row(f"and {len(ranked) - _ROWS} better ones", "", "", "", "", "", "")
    yield table
    if found := [diagnosis for site in ranked[:_ROWS] for diagnosis in site.diagnoses]:
        told = folded_table("tensor", "is", "because", "remedy")
        for diagnosis in dict.fromkeys(found):
            told.add_row(
                diagnosis.tensor,
                diagnosis.name,
                Text(diagnosis.message),
                Text(diagnosis.remedy),
            )
        yield told
    for site, reason in left_out:
        yield Text(f"not compared: {site}: {reason}")


def _decibels(fidelity: Fidelity | None) -> str:
    return "-" if fidelity is None else decibels(fidelity.sqnr)


def _head(output: Fidelity | None, calls: int) -> str:
    counted = f"{calls} call{'s' * (calls != 1)}"
    if output is None:
        return f"{counted}; the model has no float result"
    return f"results: {_decibels(output)}, cosine {output.cosine:.5f}, over {counted}"
