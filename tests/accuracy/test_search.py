"""The search against models whose scores are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from rich.console import Console

from quantfx.accuracy.candidate import Candidate
from quantfx.accuracy.cost import CostModel, Price, PricedSite
from quantfx.accuracy.goal import Goal
from quantfx.accuracy.metric import Meter
from quantfx.accuracy.ranks import Ranks
from quantfx.accuracy.search import Found, Search
from quantfx.accuracy.space import Space
from quantfx.accuracy.split import split_items
from quantfx.accuracy.trial_book import TrialBook
from quantfx.accuracy.trials import Trials
from quantfx.passes.errors import ArgumentError
from quantfx.patterns.errors import QuantfxError
from tests.refusals import refused

SITES = 16
SPLIT = split_items(16, 0)
# What each site loses if it is int8; of the even ones nothing, so that they are put back.
LOSS = {f"conv2d_{i}": 1.0 * (i % 2) for i in range(SITES)}


class Known(Meter):
    """Scores a candidate by what its sites lose, less with repair; judging has a score of its own."""

    def __init__(self, error: float = 0.1, judge: Callable[[float], float] = lambda x: x) -> None:
        super().__init__("known")
        self._error, self._judge = error, judge
        self.seen: list[str] = []

    def _measure(
        self, model: Callable[..., Any], chosen: Sequence[int], *, folds: bool
    ) -> tuple[float, float | None]:
        self.calls += 1
        candidate = model()
        if candidate is None:
            return 100.0, 0.0
        self.seen.append(candidate.text)
        freed = dict(candidate.modes)
        lost = sum(loss for name, loss in LOSS.items() if name not in freed)
        value = 100 - lost * (0.5 if candidate.options else 1.0)
        return (self._judge(value) if tuple(chosen) == SPLIT.judge else value), self._error


class Ticks:
    """A clock that goes on by one each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def search(
    goal: Goal,
    meter: Meter,
    *,
    until: float = 1e9,
    lost: str = "",
    console: Console | None = None,
) -> tuple[Found, Trials]:
    sites = tuple(
        PricedSite(name, "conv2d", "static", macs=1000 * (i + 1), weight_bytes=4)
        for i, name in enumerate(LOSS)
    )
    costs = CostModel(sites, (0, 0), 2.0)
    order = list(LOSS)
    options = ((), (("repair", True),))
    space = Space(costs, frozenset(["static"]), options, (), lambda _: order)

    def make(candidate: Candidate) -> Callable[[], Candidate]:
        if lost and candidate.text.startswith(lost):
            raise QuantfxError("it cannot be made", rule="no-kernel")
        return lambda: candidate

    trials = Trials(
        make,
        lambda each: costs.price(dict(each.modes)),
        meter,
        SPLIT,
        book=TrialBook(None, {}),
        ranks=Ranks(),
        until=until,
        console=console,
        clock=Ticks(),
    )
    trials.score_float(lambda: None)
    return Search(goal, trials, space).run(), trials


def test_a_whole_recipe_that_holds_ends_the_search() -> None:
    meter = Known()
    found, trials = search(Goal(at_least=91.5), meter)
    assert found.met
    assert found.answer.candidate == Candidate()
    assert meter.seen == ["plain", "plain"]  # chosen, judged
    assert [each.part for each in trials.done] == ["choose", "judge"]


def test_a_margin_of_a_standard_error_is_kept() -> None:
    assert search(Goal(at_least=92.0), Known(0.0))[0].answer.candidate == Candidate()
    found, _ = search(Goal(at_least=92.0), Known(0.1))
    assert found.answer.candidate == Candidate((("repair", True),))


def test_as_few_sites_as_hold_stay_float_and_needless_ones_are_put_back() -> None:
    meter = Known()
    found, trials = search(Goal(at_least=97.3), meter)
    assert found.met
    # Repaired, eight sites lose 0.5 each: three have to go, of the first in order.
    assert found.answer.candidate.text == "repair=True; float: conv2d_1, conv2d_3, conv2d_5"
    costs = [each.price.cost for each in trials.front()]
    assert costs == sorted(costs)
    assert len(meter.seen) < 20
    assert len(set(meter.seen)) == len(meter.seen) - 1, "no recipe is scored twice but to judge"


def test_a_goal_above_the_float_model_is_not_searched_for() -> None:
    meter = Known()
    found, _ = search(Goal(at_least=101.0), meter)
    assert not found.met
    assert "float model" in found.why_not
    assert found.answer.candidate == Candidate((("repair", True),)), "the best of whole recipes"
    assert not any("float" in each for each in meter.seen)


def test_a_goal_that_no_recipe_reaches_is_not_met() -> None:
    found, _ = search(Goal(at_least=99.8), Known())
    assert not found.met
    assert "no recipe" in found.why_not
    assert found.answer.score.value == 99.5


def test_judging_refuses_and_the_next_safer_is_judged() -> None:
    found, _ = search(Goal(at_least=97.3), Known(judge=lambda value: value - 0.3))
    assert found.met
    assert [each.score.value for each in found.judged] == [97.2, 97.7]
    assert found.answer.score.value == 98.0


def test_three_are_judged_at_most() -> None:
    found, _ = search(Goal(at_least=96.4), Known(judge=lambda _: 90.0))
    assert not found.met
    assert len(found.judged) == 3
    assert "judge" in found.why_not


def test_a_recipe_that_fails_is_lost_and_not_the_search() -> None:
    found, trials = search(Goal(at_least=97.3), Known(), lost="repair")
    assert found.met
    assert "repair" not in found.answer.candidate.text
    assert [each.score.failure for each in trials.done if each.score.failure] == [
        "it cannot be made"
    ]


def test_each_trial_is_told_with_the_front_so_far() -> None:
    console = Console(width=400)
    with console.capture() as captured:
        _, trials = search(Goal(at_least=97.3), Known(), lost="repair", console=console)
    lines = captured.get().splitlines()
    assert len(lines) == len(trials.done)
    assert "plain: known 92 +- 0.1" in lines[0]
    assert "it cannot be made" in lines[1]
    assert "front" in lines[-1]


def test_if_all_recipes_fail_it_is_refused() -> None:
    meter = Known()

    class Broken(Known):
        def _measure(
            self, model: Callable[..., Any], chosen: Sequence[int], *, folds: bool
        ) -> tuple[float, float | None]:
            if model() is not None:
                raise QuantfxError("has no labels", rule="metric-fails")
            return super()._measure(model, chosen, folds=folds)

    with refused("no-trial", site="plain", says="no labels"):
        search(Goal(at_least=97.3), Broken())
    assert not meter.seen


@pytest.mark.parametrize("until", [0, 10, 20, 40])
def test_when_time_is_up_the_best_so_far_is_the_answer(until: float) -> None:
    found, trials = search(Goal(at_least=97.3), Known(), until=until)
    scored = trials.chosen_on()
    assert found.judged[-1].candidate == found.answer.candidate
    assert found.answer.score.value == max(each.score.value for each in scored) or found.met
    assert until or len(scored) == 1


def test_a_budget_is_used_up_and_kept() -> None:
    found, trials = search(Goal(at_most_slower=0.1), Known())
    least = trials.done[0].price.cost
    assert found.met
    assert found.answer.price.cost <= 1.1 * least
    assert found.answer.score.value == max(each.score.value for each in trials.chosen_on())
    assert found.answer.candidate.modes
    small, _ = search(Goal(size=22), Known())
    assert small.met
    assert small.answer.price.size == 22
    tiny, _ = search(Goal(size=3), Known())
    assert not tiny.met
    assert "16 bytes" in tiny.why_not


def test_a_budget_may_be_too_small_for_the_goal() -> None:
    found, _ = search(Goal(at_least=97.3, at_most_slower=0.01), Known())
    assert not found.met
    assert found.answer.price.cost <= 1.01 * search(Goal(size=20), Known())[1].done[0].price.cost


def test_goals_have_to_be_there_and_in_range() -> None:
    with refused("no-goal", ArgumentError, fix="at_least"):
        Goal()
    with refused("number-range", ArgumentError, site="at_most_slower"):
        Goal(at_most_slower=-0.1)
    with refused("wrong-type", ArgumentError, site="at_least", says="str"):
        Goal(at_least=cast(Any, "20"))
    with refused("number-range", ArgumentError, site="at_least"):
        Goal(at_least=float("nan"))


def test_no_trial_begins_for_which_less_time_is_left_than_the_longest_took() -> None:
    now, took = [0.0], {"plain": 30.0, "repair=True": 1.0}

    def make(candidate: Candidate) -> Callable[[], Candidate]:
        now[0] += took[candidate.text]
        return lambda: candidate

    trials = Trials(
        make,
        lambda _: Price(1.0, 1, 0.0),
        Known(),
        SPLIT,
        book=TrialBook(None, {}),
        ranks=Ranks(),
        until=100.0,
        clock=lambda: now[0],
    )
    for each in (Candidate(), Candidate((("repair", True),))):
        trials.on("choose", [each])
    assert not trials.late
    now[0] = 75.0
    assert trials.late
