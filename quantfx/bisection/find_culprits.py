"""The bisection itself: from everything permitted to the decisions that spoil the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quantfx.backends.backend import Backend
from quantfx.backends.inductor.compile import POST_GRAD
from quantfx.bisection.culprit import ELSEWHERE, INDUCTOR, Culprit
from quantfx.bisection.search import Budget, first_bad, smallest
from quantfx.bisection.trials import Trials
from quantfx.passes.errors import BisectError
from quantfx.passes.pipeline.permits import Permit


def find_culprits(trials: Trials, *, most: int, budget: Budget) -> tuple[list[Culprit], bool]:
    """Return the culprits, and whether the check holds without them.

    1. Check that the result fails with everything permitted, and passes with nothing permitted.
    2. Find, by halving, the first decision that fails together with all before it.
    3. Repeat without it as long as the rest fails. Decisions that an exception had prevented come
       last.
    4. For each, find the smallest set of earlier decisions with which it still fails.

    Args:
        trials: Runs trials.
        most: Number of culprits to look for.
        budget: Number of trials for the fourth step.

    Raises:
        BisectError: the first step fails, or trials contradict each other.
    """
    permits = _require_assumptions(trials)
    found: list[Culprit] = []
    left, good = list(permits), 0
    while len(found) < most:

        def fails(count: int, left: Sequence[Permit] = tuple(left)) -> bool:
            return not trials.run(left[:count]).good

        count = first_bad(len(left), fails, good=good)
        before = left[:count]
        found.append(_culprit(trials, before, budget))
        left.remove(before[-1])
        good = count - 1
        if not trials.run(left).good:
            continue
        refused = [each.permit for each in found]
        new = [each for each in trials.run(left).asked if each not in {*left, *refused}]
        if not new:
            return found, True
        without = trials.run_without(refused)
        if without.good:
            return found, True
        good = len(left)
        left += [each for each in without.asked if each not in {*left, *refused}]
        if trials.run(left).good:
            raise _not_repeated()
    return found, False


def _require_assumptions(trials: Trials) -> tuple[Permit, ...]:
    """Return the permits that were asked for with everything permitted."""
    everything, nothing = trials.run_without(), trials.run(())
    if everything.good:
        raise BisectError(
            "nothing is wrong: with everything permitted the result passes the check",
            rule="nothing-wrong",
            fix="give a check that fails, or the example and the batches with which it does",
        )
    if not nothing.good:
        raise BisectError(
            f"no decision is to blame: with nothing permitted the result {nothing}; only passes "
            "that cannot be left out run then",
            rule="fails-without",
            fix="examine the check, the float model, or the named pass",
        ) from nothing.error
    permits = everything.asked
    if trials.run(permits).good:
        raise _not_repeated()
    return permits


def _not_repeated() -> BisectError:
    return BisectError(
        "the check does not repeat itself: the same decisions failed once and passed once",
        rule="not-repeated",
        fix="seed what is random in it",
    )


def _culprit(trials: Trials, before: list[Permit], budget: Budget) -> Culprit:
    """Return the last of ``before`` as a culprit, with what it needs to do harm."""
    permit, verdict = before[-1], trials.run(before)

    def fails_alike(some: list[Permit]) -> bool:
        kept = {*own, *some}
        return trials.run([each for each in before if each in kept]).kind == verdict.kind

    own = [each for each in before if not each.site or each.node == permit.node]
    others = [each for each in before if each not in own]
    culprit = Culprit(permit, verdict, _place(trials.backend, permit.by))
    if not others or (budget.take() and fails_alike([])):
        return culprit
    needs, is_smallest = smallest(others, fails_alike, budget)
    return replace(culprit, needs=tuple(needs), is_smallest=is_smallest)


def _place(backend: Backend, name: str) -> str:
    """Return where a pass can be left out, see `Culprit.place`."""
    for place in ("prepare_pipeline", "convert_pipeline", "lower_pipeline"):
        for each in getattr(backend, place):
            if each.name == name:
                return place if each.optional else ""
    return INDUCTOR if name in POST_GRAD.names else ELSEWHERE
