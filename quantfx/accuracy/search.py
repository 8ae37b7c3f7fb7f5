"""Find the cheapest recipe that meets a goal: whole recipes, then sites taken back from int8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantfx.accuracy.candidate import Candidate, SiteMode
from quantfx.accuracy.cost import Price
from quantfx.accuracy.goal import Goal
from quantfx.accuracy.space import Space
from quantfx.accuracy.trials import FLOAT_MODEL, Trial, Trials
from quantfx.patterns.errors import QuantfxError

_JUDGED = 3  # if more were judged, the judging data would choose


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        answer: The trial of the recipe on the items that chose it.
        judged: The trials of all recipes that were judged, in order; the last is the answer.
        met: Whether the goal holds, with a margin on the items that chose, and on those that
            judged.
        why_not: Why the goal does not hold, in words; empty if it holds.
    """

    answer: Trial
    judged: tuple[Trial, ...]
    met: bool
    why_not: str


class Search:
    """Looks for the cheapest recipe that holds.

    1. Whole recipes, until one holds.
    2. From the best of them, sites are taken back from int8 in the order of the estimate. Bisection
       finds how many, by real evaluation.
    3. Sites are put back one by one, the largest saving first, as long as the goal holds.
    4. The answer is judged on other data. If it fails, a recipe that scored better is needed.

    A recipe holds if its score minus one standard error meets the goal. At any time the best recipe
    so far is an answer.

    Args:
        goal: The goal.
        trials: Tries recipes.
        space: The recipes to choose from.
    """

    def __init__(self, goal: Goal, trials: Trials, space: Space) -> None:
        self._goal, self._trials, self._space = goal, trials, space
        self._least = space.costs.price({})
        self._above = -math.inf

    def run(self) -> Found:
        """Return the answer.

        Raises:
            QuantfxError: no recipe could be scored.
        """
        judged: list[Trial] = []
        while True:
            self._look()
            answer = self._answer()
            judge = self._trials.on("judge", [answer.candidate])[0]
            judged.append(judge)
            why_not = self._why_not(answer, judge)
            again = self._holds(answer) and len(judged) < _JUDGED and not self._trials.late
            if not why_not or not again:
                return Found(answer, tuple(judged), not why_not, why_not)
            self._above = answer.score.value

    def _look(self) -> None:
        """Try recipes until one holds."""
        base = self._whole()
        if base is None or self._trials.late or self._cheapest_holds():
            return
        sites = self._affordable(base)
        if self._goal.at_least is None:
            self._take_most(base, sites)
            return
        if self._reachable and not any(map(self._holds, self._trials.chosen_on())):
            self._bisect(base, sites)
        self._put_back()

    @property
    def _reachable(self) -> bool:
        """Whether the float model itself holds; otherwise no share of float sites does."""
        exact = self._trials.exact
        return bool(exact.value >= (self._goal.at_least or -math.inf))

    def _whole(self) -> Candidate | None:
        """Try whole recipes; return the best, from which to take sites back."""
        self._try([Candidate()])  # always, so that there is an answer
        for each in self._space.with_options():
            if self._cheapest_holds() or self._trials.late:
                break
            if not self._useless(each):
                self._try([each])
        best = self._best([each for each in self._trials.chosen_on() if not each.candidate.modes])
        if best is None or self._cheapest_holds():
            return None if best is None else best.candidate
        for each in self._space.variants(best.candidate):
            if self._cheapest_holds() or self._trials.late:
                break
            self._try([each])
        whole = [each for each in self._trials.chosen_on() if not each.candidate.modes]
        best = self._best(whole) or best
        return best.candidate

    def _useless(self, candidate: Candidate) -> bool:
        """Whether one of its options made no difference by itself."""
        scores = {each.candidate: each.score.value for each in self._trials.chosen_on()}
        plain = scores.get(Candidate())
        if plain is None or len(candidate.options) < 2:
            return False
        alone = [Candidate((option,)) for option in candidate.options]
        return any(scores.get(each) == plain for each in alone)

    def _affordable(self, base: Candidate) -> list[tuple[str, SiteMode]]:
        """Return sites with their new mode, the best first, as far as the budget allows."""
        by_name = {site.name: site for site in self._space.costs.sites}
        found: list[tuple[str, SiteMode]] = []
        for name in self._trials.ranks.all_do(lambda: list(self._space.order(base)))[0]:
            mode = self._space.freed_mode(by_name[name])
            if self._affords(self._space.costs.price(dict([*found, (name, mode)]))):
                found.append((name, mode))
        return found if len(found) < len(by_name) else found[:-1]  # one at least stays int8

    def _bisect(self, base: Candidate, sites: Sequence[tuple[str, SiteMode]]) -> None:
        """Find how many sites to take back; each process tries another number."""
        low, high = 0, len(sites) + 1
        while high - low > 1 and not self._trials.late:
            steps = min(self._trials.ranks.count, high - low - 1)
            counts = [low + (high - low) * (i + 1) // (steps + 1) for i in range(steps)]
            tried = self._try([base.with_modes(dict(sites[:count])) for count in counts])
            held = [count for count, each in zip(counts, tried, strict=True) if self._holds(each)]
            high = min([high, *held])
            low = max([low, *(count for count in counts if count < high)])

    def _take_most(self, base: Candidate, sites: Sequence[tuple[str, SiteMode]]) -> None:
        """Try as many sites as the budget allows, then half of them, and a quarter."""
        counts = dict.fromkeys(len(sites) // part for part in (1, 2, 4))
        for count in filter(None, counts):
            if self._trials.late:
                return
            self._try([base.with_modes(dict(sites[:count]))])

    def _put_back(self) -> None:
        """Make sites of the answer cheaper, one by one, as long as the goal holds."""
        answer = self._answer()
        if not self._holds(answer):
            return
        pending = list(self._space.cheaper(dict(answer.candidate.modes)))
        while pending and not self._trials.late:
            now, pending = pending[: self._trials.ranks.count], pending[self._trials.ranks.count :]
            steps = [_changed(answer.candidate, *step) for step in now]
            tried = self._try(steps)
            held = [i for i, each in enumerate(tried) if self._holds(each)]
            if not held:
                continue
            answer = tried[held[0]]
            taken = now[held[0]][0]
            again = [now[i] for i in held[1:]]  # both may fail where each alone holds
            pending = [step for step in [*again, *pending] if step[0] != taken]

    def _try(self, candidates: Sequence[Candidate]) -> list[Trial]:
        return self._trials.on("choose", candidates)

    def _answer(self) -> Trial:
        """Return the cheapest trial that holds, if need be without margin; else the best trial."""
        scored = self._trials.chosen_on()
        if not scored:
            lost = self._trials.done[0]
            message = f"no recipe could be scored; the first failed: {lost.score.failure}"
            site = lost.candidate.text
            raise QuantfxError(message, rule="no-trial", site=site)
        least = self._goal.at_least
        holding = [each for each in scored if self._holds(each)] or [
            each
            for each in scored
            if least is not None and each.score.value >= least and self._affords(each.price)
        ]
        if least is None or not holding:
            best = self._best(scored)
            return best or min(scored, key=lambda each: each.price.size)
        return min(holding, key=lambda e: (e.price.cost, -e.score.value, e.number))

    def _best(self, scored: Sequence[Trial]) -> Trial | None:
        """Return the trial with the best score within the budget; of equals, the cheapest."""
        fitting = [each for each in scored if self._affords(each.price)]
        if not fitting:
            return None
        return max(fitting, key=lambda each: (each.score.value, -each.price.cost, -each.number))

    def _holds(self, trial: Trial) -> bool:
        score = trial.score
        if score.failure or not self._affords(trial.price):
            return False
        if self._goal.at_least is None:
            return True
        return score.lower >= self._goal.at_least and score.value > self._above

    def _cheapest_holds(self) -> bool:
        """Whether the cheapest possible recipe holds."""
        if self._goal.at_least is None:
            return False
        return any(
            self._holds(each) and each.price.cost <= self._least.cost * (1 + 1e-9)
            for each in self._trials.chosen_on()
        )

    def _affords(self, price: Price) -> bool:
        return self._goal.affords(price, self._least)

    def _why_not(self, answer: Trial, judge: Trial) -> str:
        """Return why the answer does not meet the goal; empty if it does."""
        least = self._goal.at_least
        if not self._affords(answer.price):
            return f"no recipe is within {self._goal}: this one has {answer.price.size:,} bytes"
        if least is None:
            return ""
        if not self._reachable:
            exact = self._trials.exact.value
            return f"{FLOAT_MODEL} itself has {exact:.4g} on the items that choose, not {least:g}"
        if not self._holds(answer):
            error, value = answer.score.error, answer.score.value
            within = f" less its standard error {error:.2g}" if error and value >= least else ""
            return (
                f"no recipe that was tried holds {least:g}: this one has "
                f"{value:.4g}{within} on the items that choose"
            )
        if judge.score.failure:
            return f"judging it failed: {judge.score.failure}"
        if judge.score.value < least:
            return f"on the items that judge it has {judge.score.value:.4g}, not {least:g}"
        return ""


def _changed(candidate: Candidate, name: str, mode: SiteMode | None) -> Candidate:
    modes: Mapping[str, SiteMode | None] = {**dict(candidate.modes), name: mode}
    return candidate.with_modes({n: m for n, m in modes.items() if m is not None})
