"""Inside of prepared plans: what each step takes, and what a call costs beside the steps."""

from __future__ import annotations

import pytest
import torch

from quantfx import backends
from quantfx.backends.direct.runtime.library import runtime
from quantfx.tools.bench.breakdown import Breakdown, SiteTime
from quantfx.tools.bench.plan_steps import OPERATOR, with_steps
from tests import unchecked
from tests.models.small import residual_block
from tests.refusals import refused


@pytest.fixture(autouse=True)
def plans() -> None:
    if runtime().reason:
        pytest.skip(runtime().reason)


def test_the_steps_of_a_plan_stand_in_front_of_its_call() -> None:
    x = torch.randn(1, 4, 8, 8)
    backend = backends.get("x86", kernels="direct")
    result = unchecked.quantize(
        residual_block(), (x,), calibration=[x], backend=backend, progress=False
    )
    others = SiteTime("linear", "qlinear", 0.5, 0.25)
    profiled = Breakdown((others, SiteTime("#1", OPERATOR, 0.0, 1000.0)), whole_ms=1001.0)
    found = with_steps(profiled, lambda: result.module(x), 3)
    assert found.sites[0] == others
    *steps, call = found.sites[1:]
    assert [each.site for each in steps if each.kernel_ms > 0] == ["conv2d", "conv2d_1"]
    assert sum(each.loop_ms > 0 for each in steps) == len(steps) - 2 > 0  # the first quantize
    assert all(each.overhead_ms == 0 for each in steps)
    assert (call.site, call.kernel) == ("call of plan 0", OPERATOR)
    assert 900 < call.overhead_ms < 1000  # what the profiler saw, but for the steps
    assert (found.kernel_ms, found.loop_ms) > (0.5, 0.0)
    parts = found.kernel_ms + found.loop_ms + found.overhead_ms + found.rest_ms
    assert parts == pytest.approx(found.whole_ms)


def test_other_plans_than_were_profiled_are_refused() -> None:
    profiled = Breakdown((SiteTime("#0", OPERATOR, 0.0, 1.0),), whole_ms=1.0)
    with refused("other-operators", says="1 plans were profiled"):
        with_steps(profiled, lambda: None, 3)


def test_without_plans_nothing_runs() -> None:
    def call() -> object:
        raise AssertionError("ran")

    profiled = Breakdown((SiteTime("linear", "qlinear", 0.5, 0.25),), whole_ms=1.0)
    assert with_steps(profiled, call, 3) is profiled
