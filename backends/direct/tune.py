"""Measure what is fastest on this machine.

For each step: oneDNN's implementations, and numbers of threads. For each region: the plan, and
torch's int8 operators. Float operators are measured too, and the report names regions where they
would be faster. Regions with the same computation and layouts, such as a transformer's layers, are
measured once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from quantfx.backends.direct.plans import new_store, translate
from quantfx.backends.direct.region import Region, region_calls
from quantfx.backends.direct.routes import layouts_of, region_key
from quantfx.backends.direct.runtime.plan import Plan
from quantfx.backends.direct.runtime.steps import Accumulate
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.backends.direct.tune_routes import Call, OtherRoute, measure_routes
from quantfx.backends.direct.tuned import (
    GAIN,
    Choice,
    RouteTimes,
    apply_choice,
    remember,
    signature,
)

# Implementations to try for each step; later ones are oneDNN's references.
IMPLEMENTATIONS = 3
# Largest share of a region's time for its steps; its routes get the rest.
_STEPS_SHARE = 0.6
_ROUNDS = 40
_TURNS, _FEW_TURNS = 21, 5


@dataclass(frozen=True)
class TunedStep:
    """A step that is faster by another choice than oneDNN's own.

    Attributes:
        site: The node whose value it yields.
        choice: The new choice.
        before: Microseconds of oneDNN's own choice, the least of all rounds.
        after: Microseconds of this choice.
    """

    site: str
    choice: Choice
    before: float
    after: float


@dataclass(frozen=True)
class TuningReport:
    """The findings of tuning.

    Attributes:
        steps: Steps that changed, if all changes together pay.
        ratio: Median ratio of the times of a call before and after, in turns; 1.0 if nothing
            changed.
        tried: Number of steps measured.
        regions: Each kind of region with its times by each route.
    """

    steps: tuple[TunedStep, ...]
    ratio: float
    tried: int
    regions: tuple[RouteTimes, ...] = ()

    @property
    def moved(self) -> tuple[RouteTimes, ...]:
        """The regions that torch's int8 operators compute from now on."""
        return tuple(each for each in self.regions if each.loses)

    @property
    def slower_than_float(self) -> tuple[RouteTimes, ...]:
        """The regions that float operators would compute faster than the int8 route taken."""
        return tuple(each for each in self.regions if each.float_wins)

    def __str__(self) -> str:
        lines = [
            f"{len(self.steps)} of {self.tried} steps are faster otherwise; a call is "
            f"{self.ratio:.2f} times as fast",
            *(
                f"{each.name}: torch's int8 operators take it, in {each.operators:.0f} us instead "
                f"of {each.plan:.0f}"
                for each in self.moved
            ),
            *(
                f"{each.name}: float operators are {each.float_gain:.2f} times as fast as int8"
                for each in self.slower_than_float
            ),
        ]
        if self.regions and not self.slower_than_float:
            lines.append("int8 is nowhere slower than float")
        return "\n".join(lines)


def tune(
    module: nn.Module,
    *args: object,
    seconds: float = 10.0,
    other: OtherRoute | None = None,
    **kwargs: object,
) -> TuningReport:
    """Measure the regions of ``module`` for one call, and keep faster choices for all plans.

    Candidates take turns, and the least time of each step over all rounds counts. A choice is kept
    if it gains 5 % and the whole region gains as well. A region that is 5 % slower than the other
    route is no longer formed if that route is available.

    ``seconds`` is not a strict bound: the plans and other routes of each kind of region are always
    built, and called at least three times.

    Args:
        module: E.g. ``Result.module``.
        args: Positional inputs.
        seconds: Time limit, see above.
        other: Lowers the graph of a region to torch's int8 operators; None if these may not take
            it.
        kwargs: Keyword inputs.

    Raises:
        QuantfxError: the findings cannot be saved, or another route of a region fails.
    """
    remember(torch.get_num_threads(), {})  # to fail now rather than at the end
    kinds = _kinds(region_calls(lambda: module(*args, **kwargs)))
    changed: list[TunedStep] = []
    ratios: list[float] = []
    tried = 0
    start = time.monotonic()
    for number, (region, inputs) in enumerate(kinds.values(), start=1):
        until = start + _STEPS_SHARE * seconds * number / len(kinds)
        found = _Tuning(region, inputs, until)
        tried += found.tried
        steps, ratio = found.run()
        ratios.append(ratio)
        changed += steps
    routes = measure_routes(kinds, other, start + seconds)
    if changed:
        for each in module.modules():
            if isinstance(each, Region):
                each.forget_plans()
    return TuningReport(tuple(changed), median(ratios) if ratios else 1.0, tried, tuple(routes))


def _kinds(calls: Sequence[Call]) -> dict[str, Call]:
    """Return one call of each kind of region that runs a plan, by ``region_key``."""
    kinds: dict[str, Call] = {}
    for region, inputs in calls:
        if region.plan_for(inputs) is not None:
            key = region_key(region.graph, layouts_of(region.graph, inputs))
            kinds.setdefault(key, (region, inputs))
    return kinds


class _Tuning:
    """The measurements of one region.

    Args:
        region: The region; not changed, but forgets its plans.
        inputs: Inputs of one call.
        until: When to stop.
    """

    def __init__(self, region: Region, inputs: tuple[Tensor, ...], until: float) -> None:
        self._region, self._inputs, self._until = region, inputs, until
        self._threads = torch.get_num_threads()
        self._store = new_store()
        self._default = self._plan(lambda step: Choice())
        self.tried = sum(isinstance(each, Accumulate) for each in self._default.program.steps)

    def run(self) -> tuple[list[TunedStep], float]:
        """Return the changed steps and their joint gain; both are saved."""
        times = self._measure(self._candidates())
        changed = self._faster(times)
        if not changed:
            return [], 1.0
        choices = {
            signature(step): changed[index].choice
            for index, step in enumerate(self._default.program.steps)
            if isinstance(step, Accumulate) and index in changed
        }
        tuned = self._plan(lambda step: choices.get(signature(step), Choice()))
        ratio = self._compare(tuned)
        if ratio <= 1.0:
            return [], 1.0
        remember(self._threads, choices)
        self._region.forget_plans()  # its routes are measured next
        return list(changed.values()), ratio

    def _candidates(self) -> dict[Choice, Plan]:
        """Return a plan for each choice, applied to all its steps."""
        threads = (0, 1) if self._threads > 1 else (0,)
        choices = [Choice(each, count) for each in range(IMPLEMENTATIONS) for count in threads]
        plans = {Choice(): self._default}
        for choice in choices:
            if choice not in plans and time.monotonic() < self._until:
                plans[choice] = self._plan(lambda step, choice=choice: choice)  # type: ignore[misc]
        return plans

    def _plan(self, choose: Callable[[Accumulate], Choice]) -> Plan:
        program = translate(self._region.graph, [layout_of(x) for x in self._inputs])
        for step in program.steps:
            if isinstance(step, Accumulate):
                apply_choice(step, choose(step))
        return Plan(self._store, program, self._threads)

    def _measure(self, plans: Mapping[Choice, Plan]) -> dict[Choice, list[float]]:
        """Return the least time of each step by each choice, which take turns."""
        least: dict[Choice, list[float]] = {}
        for _ in range(_ROUNDS):
            for choice, plan in plans.items():
                if least and time.monotonic() > self._until:
                    return least
                times = plan.times(self._inputs, 1)
                least[choice] = list(map(min, times, least.get(choice, times)))
        return least

    def _faster(self, times: Mapping[Choice, list[float]]) -> dict[int, TunedStep]:
        """Return the faster choices by the step's place in the program."""
        changed: dict[int, TunedStep] = {}
        for index, step in enumerate(self._default.program.steps):
            if not isinstance(step, Accumulate):
                continue
            best = min(times, key=lambda choice: times[choice][index])
            before, after = times[Choice()][index], times[best][index]
            if after < GAIN * before:
                site = "" if step.output is None else step.output.name
                changed[index] = TunedStep(site, best, before, after)
        return changed

    def _compare(self, tuned: Plan) -> float:
        """Return the median of the ratios of calls in turns."""
        ratios: list[float] = []
        while len(ratios) < _TURNS:
            if len(ratios) >= _FEW_TURNS and time.monotonic() > self._until:
                break
            ratios.append(self._seconds(self._default) / self._seconds(tuned))
        return median(ratios)

    def _seconds(self, plan: Plan) -> float:
        start = time.perf_counter()
        plan.run(self._inputs)
        return time.perf_counter() - start
