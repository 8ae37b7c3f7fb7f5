"""What a bisection found: data, and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantfx.bisection.culprit import Culprit, toml_of
from quantfx.bisection.trials import Verdict
from quantfx.passes.config.config import Config
from quantfx.passes.pipeline.permits import Permit

_WIDTH = 100


@dataclass(frozen=True)
class BisectResult:
    """The decisions without which the check holds.

    Attributes:
        culprits: The culprits, in the order found. If ``complete``, refusing these and nothing else
            makes the check hold.
        complete: Whether this was shown. A bisection stops after a number of culprits and trials.
        permits: Every decision that was made with everything permitted, in order.
        verdicts: The verdict of every trial, in order.
        calibrations: Number of trials that had to calibrate; the others reuse their ranges.
    """

    culprits: tuple[Culprit, ...]
    complete: bool
    permits: tuple[Permit, ...]
    verdicts: tuple[Verdict, ...]
    calibrations: int

    @property
    def culprit(self) -> Culprit:
        """The first culprit."""
        return self.culprits[0]

    @property
    def evaluations(self) -> int:
        """Number of trials."""
        return len(self.verdicts)

    @property
    def config(self) -> str:
        """A config as TOML that keeps every culprit's site float."""
        config = Config()
        for each in self.culprits:
            config = each.keep_float(config)
        return toml_of(config)

    def __str__(self) -> str:
        console = Console(width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip()

    def __rich__(self) -> RenderableType:
        """Return the culprits, then what each trial showed."""
        return Group(*self._lines, self._table)

    @cached_property
    def _lines(self) -> list[Text]:
        found = [line for each in self.culprits for line in _describe(each)]
        end = "refusing these alone makes the check hold"
        if not self.complete:
            end = "there are more: the check still fails without these"
        told = f"{self.evaluations} trials of {len(self.permits)} decisions"
        return [*found, Text(f"{end}; {told}, {self.calibrations} calibrated")]

    @property
    def _table(self) -> Table:
        table = Table("trial", "permitted", "the result")
        for index, verdict in enumerate(self.verdicts, start=1):
            table.add_row(str(index), verdict.permitted, Text(str(verdict)))
        return table


def _describe(culprit: Culprit) -> Iterator[Text]:
    permit = culprit.permit
    yield Text(f"pass      {permit.by}", style="bold red")
    if permit.template:
        yield Text(f"template  {permit.template}")
    if permit.site:
        yield Text(f"site      {permit.site}")
    yield Text(f"that is   {culprit.means}; with it the result {culprit.verdict}")
    if not culprit.is_smallest:
        yield Text(f"only with some of these {len(culprit.needs)}: the trials did not suffice")
    for other in culprit.needs:
        yield Text(f"{'only with' if culprit.is_smallest else '         '} {other}")
    yield Text(f"without   {culprit.remedy}")
    if culprit.config:
        yield Text("".join(f"          {line}\n" for line in culprit.config.splitlines()).rstrip())
    yield Text()
