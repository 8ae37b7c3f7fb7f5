"""The result of ``quantize_to``, with its recipe and all trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.evidence import Evidence
from quantfx.accuracy.goal import Goal
from quantfx.accuracy.score import Score
from quantfx.accuracy.trials import Trial
from quantfx.passes.config.config import Config
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.report.compare.site_numbers import plain_numbers
from quantfx.result import Result

_ROWS = 12  # rows of the front to show


@dataclass(frozen=True, eq=False)
class Tuned:
    """A result that meets a goal, or the best result found.

    To make it again bit for bit, without a search, call ``quantfx.quantize(model, example,
    statistics=tuned.statistics, backend=tuned.result.backend)`` with the ``example_kwargs`` and
    ``dynamic_shapes`` of the search. From files, the backend is ``quantfx.backends.get(name,
    **options, **tuned.backend)``, with the name and options (target, kernels, observer, ...) of the
    search's backend, and ``config=tuned.config``.

    Attributes:
        result: The result.
        met: Whether the goal holds, by a margin of one standard error on the items that chose, and
            on the items that judge.
        why_not: Why the goal does not hold; empty if it holds.
        config: How sites are quantized, ``config.to_toml()`` for a file.
        backend: Options added to those of the search's backend.
        statistics: Statistics that calibrated it, ``statistics.save(path)`` for a file.
        goal: The goal.
        candidate: The recipe as one value.
        front: ``(cost, metric, recipe)`` of each trial that no other beats in both.
        trials: All trials, in order.
        evidence: The evidence for the answer.
        costs: The origin of the costs, in words.
        float_share: Share of multiply-accumulates that is not computed in int8.
        seconds: Time that the search took.
    """

    result: Result
    met: bool
    why_not: str
    config: Config
    backend: dict[str, Any]
    statistics: Statistics
    goal: Goal
    candidate: Candidate
    front: tuple[tuple[float, float, str], ...]
    trials: tuple[Trial, ...]
    evidence: Evidence
    costs: str
    float_share: float
    seconds: float

    def text(self) -> str:
        """Return the report as text."""
        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            for each in self._parts():
                console.print(each)
        return captured.get()

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the result and the statistics as plain data, for JSON."""
        evidence = self.evidence
        scores = {name: getattr(evidence, name) for name in ("exact", "chosen", "judged")}
        data = {
            "met": self.met,
            "why_not": self.why_not,
            "goal": vars(self.goal),
            "config": json.loads(self.config.to_json()),
            "backend": self.backend,
            "recipe": self.candidate.text,
            "float_share": self.float_share,
            "front": [list(each) for each in self.front],
            "trials": [each.as_dict() for each in self.trials],
            "evidence": {**vars(evidence)} | {n: s.as_dict() for n, s in scores.items()},
            "costs": self.costs,
            "seconds": self.seconds,
        }
        plain: dict[str, Any] = plain_numbers(data)
        return plain

    def to_json(self) -> str:
        """Return ``as_dict`` as text."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        return self.text()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the report."""
        yield from self._parts()

    def _parts(self) -> Iterator[Any]:
        evidence = self.evidence
        yield Text(
            f"{evidence.metric} {self.goal}: {'met' if self.met else 'not met'}",
            style="bold green" if self.met else "bold yellow",
        )
        if self.why_not:
            yield Text(self.why_not)
        yield Text(f"recipe: {self.candidate.short} ({self.float_share:.1%} of MACs not int8)")
        parts = ((evidence.choose, "chose it", evidence.chosen), (evidence.judge, "judge", None))
        for items, verb, score in parts:
            yield Text(f"on {items} items that {verb}: {_told(score or evidence.judged)}")
        yield Text(f"the float model on those that chose: {_told(evidence.exact)}")
        for each in evidence.refused:
            yield Text(f"refused by the items that judge: {each}")
        for each in evidence.thin:
            yield Text(f"thin evidence: {each}", style="yellow")
        yield self._front()
        for trial in self.trials:
            if trial.score.failure:
                yield Text(f"lost: {trial.score.failure}")
        yield Text(
            f"{len(self.trials)} trials in {self.seconds:.1f} s, {evidence.seconds:.1f} s of them "
            f"in {evidence.calls} calls of the metric; costs are {self.costs}"
        )

    def _front(self) -> Table:
        table = Table("recipe", title="what was tried, and nothing beats in both")
        table.add_column("cost", justify="right")
        table.add_column(self.evidence.metric, justify="right")
        least = min((each[0] for each in self.front), default=1.0) or 1.0
        chosen = [e for e in self.trials if e.part == "choose" and not e.score.failure]
        short = {each.candidate.text: each.candidate.short for each in chosen}
        for cost, value, recipe in self.front[:_ROWS]:
            table.add_row(short[recipe], f"{cost / least:.3f}", f"{value:.4g}")
        return table


def _told(score: Score) -> str:
    error = "" if score.error is None else f" +- {score.error:.2g}"
    return f"{score.value:.4g}{error}"
