"""Break down the time of prepared plans by step, as profilers cannot see inside."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from quantfx.backends.direct.region import region_calls
from quantfx.backends.direct.runtime.plan import Plan
from quantfx.backends.direct.runtime.steps import Accumulate
from quantfx.backends.direct.taken import is_int8_product
from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.breakdown import Breakdown, SiteTime

# The profiler's name of the call of a plan.
OPERATOR = "direct_region"


def with_steps(breakdown: Breakdown, call: Callable[[], object], repeats: int) -> Breakdown:
    """Return the breakdown with the steps of each prepared plan before the plan's own line.

    That line keeps the operator's cost beside its steps: finding region and plan, allocating
    results.

    Args:
        breakdown: As profiled; a plan is one operator there, all of it overhead.
        call: The profiled call.
        repeats: Times of a step are medians over so many.

    Raises:
        QuantfxError: ``call`` runs other plans than were profiled.
    """
    profiled = sum(site.kernel == OPERATOR for site in breakdown.sites)
    if not profiled:
        return breakdown
    found = region_calls(call)
    if len(found) != profiled:
        raise QuantfxError(
            f"{profiled} plans were profiled, and another call runs {len(found)}; does the model "
            "branch at random?",
            rule="other-operators",
        )
    calls = iter(enumerate(found))
    sites: list[SiteTime] = []
    for site in breakdown.sites:
        if site.kernel != OPERATOR:
            sites.append(site)
            continue
        number, (region, inputs) = next(calls)
        plan = region.plan(inputs)
        whole = statistics.median(plan.whole_time(inputs) for _ in range(repeats)) / 1e3
        overhead = max(site.overhead_ms - whole, 0.0)
        sites += step_times(plan, inputs, repeats)
        sites.append(replace(site, site=f"call of plan {number}", overhead_ms=overhead))
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
