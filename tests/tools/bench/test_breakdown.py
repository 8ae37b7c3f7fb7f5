from __future__ import annotations

from dataclasses import replace

import pytest

from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.passes.graph.graphs import Site
from quantfx.tools.bench.breakdown import Breakdown, OperatorCall, Repeat, SiteTime, break_down
from quantfx.tools.bench.onednn_verbose import Execution
from tests.refusals import refused

CALLS = (OperatorCall("qconv2d", 100.0, 3.0), OperatorCall("qlinear", 110.0, 2.0))
# As they run while oneDNN prints: later, and longer.
WATCHED = (OperatorCall("qconv2d", 200.0, 5.0), OperatorCall("qlinear", 210.0, 4.0))
EXECUTIONS = (
    Execution(199.0, "reorder", "jit", "float operator before", 0.5),
    Execution(200.5, "reorder", "jit", "4x4", 0.25),
    Execution(201.0, "convolution", "brg", "mb1_ic3", 1.0),
    Execution(210.0, "matmul", "brg", "1x2:2x3", 0.5),
    Execution(214.0, "eltwise", "jit", "after", 0.5),
)
REPEAT = Repeat(10.0, CALLS, WATCHED, EXECUTIONS)


def test_kernels_overhead_and_rest_sum_up_to_the_whole() -> None:
    found = break_down([REPEAT])
    assert found == Breakdown(
        (
            SiteTime("#0 mb1_ic3", "qconv2d", 1.0, 1.75, 0.25),
            SiteTime("#1 1x2:2x3", "qlinear", 0.5, 1.5),
        ),
        whole_ms=10.0,
    )
    assert (found.kernel_ms, found.loop_ms) == (1.5, 0.25)
    assert (found.overhead_ms, found.rest_ms) == (3.25, 5.0)


def test_figures_are_medians_over_the_repetitions() -> None:
    slow = tuple(replace(execution, milliseconds=90.0) for execution in EXECUTIONS)
    once = Repeat(99.0, (replace(CALLS[0], milliseconds=95.0), CALLS[1]), WATCHED, slow)
    assert break_down([REPEAT, once, REPEAT]) == break_down([REPEAT])


def test_an_operator_without_primitives_is_all_overhead() -> None:
    (site, _) = break_down([replace(REPEAT, executions=())]).sites
    assert site == SiteTime("#0", "qconv2d", 0.0, 3.0)


def test_sites_have_the_names_that_the_module_gives_them() -> None:
    kernels = (
        KernelCall(Site("", "conv"), "qconv2d.binary"),
        KernelCall(Site("", "linear"), "qlinear"),
    )
    named = break_down([REPEAT], kernels).sites
    assert [(site.site, site.kernel) for site in named] == [
        ("conv", "qconv2d.binary"),
        ("linear", "qlinear"),
    ]


@pytest.mark.parametrize("operators", [["qconv2d"], ["qlinear", "qconv2d"]])
def test_names_that_do_not_fit_the_calls_are_not_used(operators: list[str]) -> None:
    kernels = [KernelCall(Site("", "some"), operator) for operator in operators]
    assert break_down([REPEAT], kernels) == break_down([REPEAT])


@pytest.mark.parametrize("calls", [CALLS[:1], CALLS[::-1]])
def test_calls_that_differ_are_an_error(calls: tuple[OperatorCall, ...]) -> None:
    with refused("other-operators"):
        break_down([REPEAT, replace(REPEAT, calls=calls)])
