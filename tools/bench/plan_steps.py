"""Where the milliseconds of prepared plans are: each step timed, which no profiler sees inside."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from quantfx.backends.direct.plan import Plan
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.steps import Accumulate
from quantfx.backends.direct.taken import is_int8_product
from quantfx.tools.bench.breakdown import Breakdown, SiteTime

# What the profiler calls the call of a plan.
OPERATOR = "direct_region"

Call = tuple[Region, tuple[Tensor, ...]]


def with_steps(breakdown: Breakdown, call: Callable[[], object], repeats: int) -> Breakdown:
    """Return the breakdown with the steps of each prepared plan in front of the plan's own line.

    That line keeps what a call from Python costs beside its steps: looking the plan up, allocating
    results. Of both the least time counts, as others disturb a long call more than a short step.

    Args:
        breakdown: As profiled; a plan is one operator there, all of it overhead.
        call: What was profiled.
        repeats: Times of a step are medians over so many.
    """
    if not any(site.kernel == OPERATOR for site in breakdown.sites):
        return breakdown
    calls = iter(enumerate(_regions(call)))
    sites: list[SiteTime] = []
    for site in breakdown.sites:
        if site.kernel != OPERATOR:
            sites.append(site)
            continue
        number, (region, inputs) = next(calls)
        steps = step_times(region.plan(inputs), inputs, repeats)
        overhead = _overhead(region, inputs, repeats)
        sites += [*steps, replace(site, site=f"call of plan {number}", overhead_ms=overhead)]
    return replace(breakdown, sites=tuple(sites))


def step_times(plan: Plan, inputs: Sequence[Tensor], repeats: int) -> list[SiteTime]:
    """Return the median time of each step: of oneDNN's products as kernels, else as loops."""
    times = [plan.times(inputs, 1) for _ in range(repeats)]
    found: list[SiteTime] = []
    for index, (step, name) in enumerate(zip(plan.program.steps, plan.names(), strict=True)):
        spent = statistics.median(each[index] for each in times) / 1e3
        products = [node.name for node in step.nodes if is_int8_product(node)]
        site = products[0] if products else "" if step.output is None else step.output.name
        if isinstance(step, Accumulate):
            found.append(SiteTime(site, name, spent, 0.0))
        else:
            found.append(SiteTime(site, name, 0.0, 0.0, spent))
    return found


def _overhead(region: Region, inputs: tuple[Tensor, ...], repeats: int) -> float:
    """Return the milliseconds of a call that are not the runtime's."""
    plan = region.plan(inputs)
    calls: list[float] = []
    runs: list[float] = []
    with torch.no_grad():
        for _ in range(repeats):
            start = time.perf_counter()
            region(*inputs)
            calls.append((time.perf_counter() - start) * 1e3)
            runs.append(plan.whole_time(inputs) / 1e3)
    return max(min(calls) - min(runs), 0.0)


def _regions(call: Callable[[], object]) -> list[Call]:
    """Return the regions that ``call`` runs, in order, with what they are given."""
    found: list[Call] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Region):
            found.append((module, inputs))

    hook = register_module_forward_pre_hook(note)  # compiled code holds regions out of sight
    try:
        with torch.no_grad():
            call()
    finally:
        hook.remove()
    return found
