"""What rounding at each site costs at the outputs, as data that prints itself."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from torch import Tensor

from quantfx.passes.errors import ArgumentError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.statistics.whole_file import writing
from quantfx.passes.report.compare.site_numbers import plain_numbers
from quantfx.passes.report.sensitivity.chart import chart
from quantfx.passes.report.sensitivity.ranking import Evaluation, Measured, Ranked, Whole
from quantfx.passes.report.sensitivity.text import tables
from quantfx.patterns.errors import QuantfxError, unknown_name

Order = Literal["cost", "win", "graph"]
By = Literal["site", "module"]


@dataclass(frozen=True)
class SensitiveSite:
    """A site whose rounding reaches the outputs.

    Attributes:
        site: The anchor of the match.
        op: Its operator.
        module: Path of the user's module it comes from.
        mode: How it is quantized.
        macs: Multiply-accumulates, as in ``Report.work``; None if unknown.
        weight_bytes: Bytes of its weights, in float.
        measured: The metric without it and with it alone; None if it was not evaluated.
    """

    site: Site
    op: str
    module: str
    mode: str
    _: KW_ONLY
    macs: int | None
    weight_bytes: int
    measured: Measured | None = None


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How rounding at each site affects the outputs, to first order.

    Noise is relative: the power of the outputs' error over the power of the outputs. Several
    outputs count equally, whatever their power.

    Attributes:
        sites: The columns of ``contributions``, in the order of the float graph.
        contributions: ``(rows, sites)`` in float64. The noise of rounding several sites is the mean
            over rows of the square of the sum of their columns.
        calls: Number of calls.
        draws: Number of random vectors per row.
        unit: The meaning of a row of ``contributions``: a ``row`` of the data, or a ``call`` if
            rows do not stay apart (one tensor for all, or time before rows).
        left_out: Planned sites and outputs without numbers, with the reason.
        whole: The measured noise of all sites; None unless requested.
        evaluation: The metric of the whole model; None without real evaluation.
    """

    sites: tuple[SensitiveSite, ...]
    contributions: Tensor
    _: KW_ONLY
    calls: int
    draws: int
    unit: Literal["row", "call"]
    left_out: tuple[tuple[str, str], ...] = ()
    whole: Whole | None = None
    evaluation: Evaluation | None = None

    def predict(self, float_sites: Iterable[str | Site] = ()) -> float:
        """Return the expected noise if some sites stay float.

        With ``whole``, it is the measured total noise minus the wins of these sites, which is good
        for a few of many sites. Otherwise it is the mean square of the remaining columns.

        Args:
            float_sites: Sites, or their names such as ``conv2d_3``.

        Raises:
            QuantfxError: no site has that name; names the nearest.
        """
        names = {str(each.site): index for index, each in enumerate(self.sites)}
        chosen = torch.zeros(len(self.sites), dtype=torch.bool)
        for name in map(str, float_sites):
            if name not in names:
                raise unknown_name(QuantfxError, "site", name, names, of="the sensitivity")
            chosen[names[name]] = True
        if self.whole is None:
            return float(self.contributions[:, ~chosen].sum(1).square().mean())
        return max(self.whole.noise - self._win(chosen.nonzero().flatten().tolist()), 0.0)

    def ranked(self, order: Order = "cost", *, by: By = "site") -> tuple[Ranked, ...]:
        """Return the cost and win of each site or module, highest first.

        Args:
            order: By the ``cost`` of rounding only it, by the ``win`` of leaving only it float, or
                in the order of the ``graph``.
            by: Each ``site``, or all sites of a ``module`` together.

        Raises:
            ArgumentError: ``order`` or ``by`` is unknown.
        """
        if order not in get_args(Order):
            raise unknown_name(ArgumentError, "order", order, get_args(Order), of="a ranking")
        if by not in get_args(By):
            raise unknown_name(ArgumentError, "kind", by, get_args(By), of="a ranking")
        groups: dict[str, list[int]] = {}
        for index, each in enumerate(self.sites):
            name = str(each.site) if by == "site" else each.module
            groups.setdefault(name, []).append(index)
        rows = [self._ranked(name, members) for name, members in groups.items()]
        if order == "graph":
            return tuple(rows)
        return tuple(sorted(rows, key=lambda row: -getattr(row, order)))

    def at(self, name: str, *, by: By = "site") -> Ranked:
        """Return the cost and win of a site or a module.

        Raises:
            QuantfxError: none has that name; names the nearest.
        """
        known = {row.name: row for row in self.ranked("graph", by=by)}
        if name not in known:
            raise unknown_name(QuantfxError, by, name, known, of="the sensitivity")
        return known[name]

    def heat(self) -> dict[str, float]:
        """Return, by site, the SQNR of the outputs if only it is rounded, for ``quantfx.draw``."""
        return {row.name: row.sqnr for row in self.ranked("graph")}

    def as_dict(self, *, contributions: bool = True) -> dict[str, Any]:
        """Return everything as plain data for JSON; infinite numbers become the text ``"inf"``.

        Args:
            contributions: Whether to include the matrix, with a number for each row and site.
        """
        data: dict[str, Any] = {
            "noise": self.predict(),
            "calls": self.calls,
            "draws": self.draws,
            "unit": self.unit,
            "sites": [row.as_dict() for row in self.ranked("graph")],
            "modules": [row.as_dict() for row in self.ranked("graph", by="module")],
            "left_out": self.left_out,
            "whole": None if self.whole is None else asdict(self.whole),
            "evaluation": None if self.evaluation is None else asdict(self.evaluation),
        }
        if contributions:
            data["contributions"] = self.contributions.tolist()
        plain: dict[str, Any] = plain_numbers(data)
        return plain

    def to_json(self, *, contributions: bool = True) -> str:
        """Return ``as_dict`` as text."""
        return json.dumps(self.as_dict(contributions=contributions), indent=2)

    def chart(self, path: str | Path, *, by: By = "site", most: int = 30) -> Path:
        """Draw the costs and wins of the worst sites or modules as bars, and return the path.

        Args:
            path: Path of the file, e.g. ``sensitivity.svg``.
            by: Each ``site``, or all sites of a ``module`` together.
            most: Number of bars.

        Raises:
            FileError: the file cannot be written.
        """
        with writing(Path(path)) as file:
            file.write(chart(self.ranked(by=by)[:most], self.predict()).encode())
        return Path(path)

    def table(self, order: Order = "cost", *, by: By = "site") -> str:
        """Return the ranking as text; see ``ranked``."""
        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            for each in self._tables(order, by):
                console.print(each)
        return captured.get()

    def with_measured(self, evaluation: Evaluation, found: dict[str, Measured]) -> Sensitivity:
        """Return this with values of a metric for the whole model and for some sites by name."""
        sites = (replace(each, measured=found.get(str(each.site))) for each in self.sites)
        return replace(self, sites=tuple(sites), evaluation=evaluation)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables."""
        yield from self._tables("cost", "site")

    def __str__(self) -> str:
        return self.table()

    def _tables(self, order: Order, by: By) -> Iterator[Any]:
        rows = len(self.contributions)
        head = f"{rows} {self.unit}{'s' * (rows != 1)}"
        told = "expected" if self.whole is None else "measured"
        ranked, noise = self.ranked(order, by=by), self.predict()
        return tables(ranked, noise, told, head, by, self.left_out, self.evaluation)

    def _win(self, members: Collection[int]) -> float:
        """Return by how much the noise falls if these sites stay float."""
        own = self.contributions[:, list(members)].sum(1)
        if self.whole is None:
            return float((2 * self.contributions.sum(1) * own - own.square()).mean())
        return 2 * sum(self.whole.shares[index] for index in members) - float(own.square().mean())

    def _ranked(self, name: str, members: Collection[int]) -> Ranked:
        own = self.contributions[:, list(members)].sum(1)
        squares = own.square()
        cost = float(squares.mean())
        deviation = float(squares.std()) / math.sqrt(len(squares)) if len(squares) > 1 else math.inf
        sites = [self.sites[index] for index in members]
        macs = [each.macs for each in sites]
        return Ranked(
            name,
            op=", ".join(dict.fromkeys(each.op for each in sites)),
            module=sites[0].module,
            sites=tuple(str(each.site) for each in sites),
            cost=cost if math.isfinite(cost) else math.inf,
            win=self._win(members),
            uncertainty=deviation / cost if cost else 0.0,
            macs=None if None in macs else sum(each or 0 for each in macs),
            weight_bytes=sum(each.weight_bytes for each in sites),
            measured=sites[0].measured if len(sites) == 1 else None,
        )
