"""Trials of recipes: each recipe is made, scored and priced once, by one of the processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.cost import Price
from quantfx.accuracy.metric import Called, Meter
from quantfx.accuracy.ranks import Ranks
from quantfx.accuracy.score import Score
from quantfx.accuracy.split import Part, Split
from quantfx.accuracy.trial_book import TrialBook
from quantfx.patterns.errors import QuantfxError

FLOAT_MODEL = "the float model"


@dataclass(frozen=True)
class Trial:
    """The outcome of one recipe on one part of the data.

    Attributes:
        candidate: The recipe.
        part: Part of the data.
        score: Score by the metric.
        price: Price of the recipe.
        number: Number of the trial, from 1.
    """

    candidate: Candidate
    part: Part
    score: Score
    price: Price
    number: int

    def as_dict(self) -> dict[str, Any]:
        """Return the trial as plain data."""
        return {
            "recipe": self.candidate.text,
            **self.candidate.as_dict(),
            "part": self.part,
            "metric": self.score.value,
            "error": self.score.error,
            "seconds": self.score.seconds,
            "failure": self.score.failure,
            **self.price._asdict(),
        }


class Trials:
    """All trials of a search.

    Attributes:
        done: Trials in the order of the search, each recipe once for each part of the data.
        exact: Score of the float model on the items that choose.
        ranks: The processes that search.

    Args:
        make: Returns the callable model of a recipe.
        price: Returns the price of a recipe.
        meter: The metric.
        split: The items.
        book: Earlier trials.
        ranks: The processes that search.
        until: Time by ``clock`` when to stop.
        console: Where to report progress; None for nowhere.
        clock: Returns seconds.
    """

    def __init__(
        self,
        make: Callable[[Candidate], Called],
        price: Callable[[Candidate], Price],
        meter: Meter,
        split: Split,
        *,
        book: TrialBook,
        ranks: Ranks,
        until: float,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._price, self._meter, self._split = make, price, meter, split
        self._book, self._until, self._clock, self._console = book, until, clock, console
        self.ranks = ranks
        self.done: list[Trial] = []
        self.exact = Score(float("nan"))
        self._error: float | None = None  # for a function, found once: with the first recipe
        self._longest = 0.0

    @property
    def late(self) -> bool:
        """Whether no time is left for one more trial; the same in all processes."""
        left = self._until - self._clock()
        return self.ranks.agree(left < self._longest)

    def score_float(self, model: Called) -> None:
        """Score the float model.

        Raises:
            QuantfxError: the metric raises.
        """

        def score() -> Score:
            if self._meter.exact is not None:
                return Score(self._meter.exact, 0.0)
            return self._book.known(FLOAT_MODEL, "choose") or self._meter.score(
                model, self._split.choose, FLOAT_MODEL, folds=False
            )

        self.exact = self.ranks.all_do(score)[0]
        self._book.add(FLOAT_MODEL, "choose", self.exact)
        self._write()

    def on(self, part: Part, candidates: Sequence[Candidate]) -> list[Trial]:
        """Return the trials of recipes on one part of the data; run those that are missing."""
        known = {each.candidate: each for each in self.done if each.part == part}
        new = [each for each in dict.fromkeys(candidates) if each not in known]
        start = self._clock()
        scores = self.ranks.map(lambda each: self._score(each, part), new)
        for candidate, score in zip(new, scores, strict=True):
            price = self._price(candidate)
            trial = Trial(candidate, part, self._with_error(score), price, len(self.done) + 1)
            self.done.append(trial)
            known[candidate] = trial
            self._book.add(candidate.text, part, trial.score)
            self._tell(trial)
        if new:
            took = (self._clock() - start) / -(-len(new) // self.ranks.count)
            self._longest = max(self._longest, took)
            self._write()
        return [known[each] for each in candidates]

    def chosen_on(self) -> list[Trial]:
        """Return the trials on the items that choose, less those that failed."""
        return [each for each in self.done if each.part == "choose" and not each.score.failure]

    def front(self) -> list[Trial]:
        """Return the trials that no other beats in both cost and metric, the cheapest first."""
        found: list[Trial] = []
        order = sorted(
            self.chosen_on(), key=lambda each: (each.price.cost, -each.score.value, each.number)
        )
        for each in order:
            if not found or each.score.value > found[-1].score.value:
                found.append(each)
        return found

    def _score(self, candidate: Candidate, part: Part) -> Score:
        """Return the score of a recipe; a failure loses this recipe only, not the search."""
        known = self._book.known(candidate.text, part)
        if known is not None:
            return known
        folds = part == "judge" or not self.chosen_on()
        try:
            model = self._make(candidate)
            return self._meter.score(model, self._split.part(part), candidate.short, folds=folds)
        except QuantfxError as error:
            return Score(float("nan"), failure=str(error))

    def _with_error(self, score: Score) -> Score:
        """Return a score that takes the first recipe's standard error if it has none of its own."""
        if self._error is None:
            self._error = score.error
        return replace(score, error=self._error) if score.error is None else score

    def _write(self) -> None:
        self.ranks.together(lambda: self._book.write() if self.ranks.is_first else None)

    def _tell(self, trial: Trial) -> None:
        if self._console is None:
            return
        score = trial.score
        told = score.failure.partition("\n")[0] or f"{self._meter.name} {score.value:.4g}"
        told += f" +- {score.error:.2g}" if score.error is not None else ""
        front = ", ".join(f"{e.price.cost:.4g}: {e.score.value:.4g}" for e in self.front()[:6])
        self._console.print(
            f"[dim]{trial.number:>3}[/] {trial.part} {trial.candidate.short}: {told}, cost "
            f"{trial.price.cost:.4g} [dim](front {front})[/]",
            highlight=False,
        )
