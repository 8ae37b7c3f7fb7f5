"""Numbers for every site of a q/dq graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderResult

from quantfx.passes.report.compare.site_numbers import SiteNumbers, plain_numbers
from quantfx.passes.report.compare.tally import Fidelity
from quantfx.passes.report.compare.text import tables
from quantfx.patterns.errors import QuantfxError, unknown_name

Order = Literal["own", "accumulated", "graph"]


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
