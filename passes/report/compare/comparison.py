"""Numbers for every site of a q/dq graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from quantfx.passes.report.compare.site_numbers import SiteNumbers, plain_numbers
from quantfx.passes.report.compare.tally import Fidelity, decibels
from quantfx.passes.report.folded_table import folded_table
from quantfx.patterns.errors import QuantfxError, unknown_name

Order = Literal["own", "accumulated", "graph"]


# More sites than a screen holds are in the data.
_ROWS = 20

# Relative error of the float graph that exceeds rounding: 1e-3 of the signal.
FLOAT_LIMIT = 60.0


@dataclass(frozen=True)
class Comparison:
    """Comparison of a q/dq graph with its float graph, over batches.

    Attributes:
        sites: Every match of the top graph, in its order.
        output: How close the results are.
        model: How close the float graph is to the model itself, i.e. whether the passes before
            quantization kept the function; None if the model was not run.
        calls: Number of calls that were compared.
        left_out: Planned sites without numbers (inside control flow, or without a counterpart in
            the float graph), with the reason.
    """

    sites: tuple[SiteNumbers, ...]
    output: Fidelity | None
    model: Fidelity | None
    calls: int
    left_out: tuple[tuple[str, str], ...] = ()

    def ranked(self, by: Order = "own") -> tuple[SiteNumbers, ...]:
        """Return the sites, worst first.

        Args:
            by: ``own`` error, ``accumulated`` error, or the order of the ``graph``.
        """
        if by == "graph":
            return self.sites
        return tuple(sorted(self.sites, key=lambda site: _sqnr(site, by)))

    def at(self, name: str) -> SiteNumbers:
        """Return the numbers of a site.

        Args:
            name: Its node, as in ``str(site)``, e.g. ``conv2d_3``.

        Raises:
            QuantfxError: no site has that name; names the nearest.
        """
        known = {str(each.site): each for each in self.sites}
        if name not in known:
            raise unknown_name(QuantfxError, "site", name, known, of="the comparison")
        return known[name]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON; infinite numbers become the text ``"inf"``."""
        data: dict[str, Any] = plain_numbers(asdict(self))
        for row, site in zip(data["sites"], self.sites, strict=True):
            row["site"] = str(site.site)
        return data

    def heat(self, by: Literal["own", "accumulated"] = "own") -> dict[str, float]:
        """Return the SQNR of each site in dB by name, for ``quantfx.draw(..., heat=...)``."""
        return {str(each.site): _sqnr(each, by) for each in self.sites if each.own is not None}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables."""
        yield from self._tables()

    def __str__(self) -> str:
        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            for table in self._tables():
                console.print(table)
        return captured.get()

    def _tables(self) -> Iterator[Any]:
        return tables(self.ranked(), self.output, self.model, self.calls, self.left_out)


def _sqnr(site: SiteNumbers, by: Order) -> float:
    fidelity = site.own if by == "own" else site.accumulated
    return math.inf if fidelity is None else fidelity.sqnr


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
