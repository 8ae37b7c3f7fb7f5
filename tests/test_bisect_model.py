"""``quantfx.bisect``: faults seeded into passes of ours are named in one call each."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.bisection.bisect_result import BisectResult
from quantfx.checks import Check, close_to_float, runs
from quantfx.passes.errors import BisectError, ContractError, PassError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.permits import Permit, Permits, permitting
from quantfx.patterns.match import Match
from quantfx.result import Result
from tests import seeded_faults as faults
from tests.refusals import refused

# Without faults the networks reach 28 and 47 dB.
CLOSE = {faults.conv_net: close_to_float(20), faults.attention: close_to_float(35)}
Network = Callable[[], tuple[nn.Module, Tensor]]


def bisect(network: Network, check: Check | None = None, *, scale: float = 1.0) -> BisectResult:
    model, x = network()
    x = x * scale
    return quantfx.bisect(model, x, check=check or CLOSE[network], batches=[x])


FAULTS: dict[str, tuple[Network, Callable[[pytest.MonkeyPatch], None], Permit]] = {
    "a lost eps": (
        faults.conv_net,
        faults.lose_eps,
        Permit("fold-batch-norm", "conv_batch_norm", "conv2d_2"),
    ),
    "swapped scales": (
        faults.conv_net,
        lambda patch: faults.swap_scales(patch, "linear"),
        Permit("annotate-linear", "linear", "linear"),
    ),
    "a wrong kernel": (
        faults.conv_net,
        lambda patch: faults.break_kernel(patch, "conv2d_1"),
        Permit("lower", "conv2d_unary", "conv2d_1"),
    ),
    "a wrong kernel in a transformer": (
        faults.attention,
        lambda patch: faults.break_kernel(patch, "linear_3"),
        Permit("lower", "linear_add", "linear_3"),
    ),
}


# Found by test_its_config_keeps_the_site_float, test_two_culprits_are_both_named and
# test_a_site_that_misses_its_kernel_is_named as well.
@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_result_is_traced_to_the_one_decision(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seed, expected = FAULTS[fault]
    seed(monkeypatch)
    result = bisect(network)
    assert [each.permit for each in result.culprits] == [expected]
    assert result.complete
    assert result.culprit.verdict.kind == "check"
    assert result.evaluations <= 14
    if network is faults.attention:  # no trial observes what the first did not
        assert result.calibrations == 1 < result.evaluations


def test_what_a_pass_raises_counts_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.raise_for_site(monkeypatch, "linear_7")
    result = bisect(faults.attention, runs())
    assert [each.permit for each in result.culprits] == [Permit("lower", "linear", "linear_7")]
    error = result.culprit.verdict.error
    assert isinstance(error, PassError)
    assert isinstance(error.__cause__, KeyError)
    assert "raises PassError: lower failed" in str(result)


def test_a_pass_that_raises_for_anything_is_named_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults.raise_in_pass(monkeypatch)
    result = bisect(faults.attention, runs())
    assert [each.permit for each in result.culprits] == [Permit("fold-constants")]
    assert ".without('fold-constants')" in result.culprit.remedy
    assert result.config == ""


def test_what_an_exception_kept_from_being_asked_is_searched_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults.raise_in_pass(monkeypatch)
    faults.lose_eps(monkeypatch)
    result = bisect(faults.conv_net)
    assert [each.permit for each in result.culprits] == [
        Permit("fold-constants"),
        Permit("fold-batch-norm", "conv_batch_norm", "conv2d_2"),
    ]
    assert result.complete
    model, x = faults.conv_net()
    with permitting(Permits(refused=[each.permit for each in result.culprits])):
        cured = quantfx.quantize(model, x, calibration=[x])
        assert CLOSE[faults.conv_net].holds(cured, model, x)


def test_a_site_that_misses_its_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.refuse_kernel(monkeypatch, "linear_3")
    result = bisect(faults.attention)
    assert [each.permit for each in result.culprits] == [Permit("lower", "linear_add", "linear_3")]
    assert isinstance(result.culprit.verdict.error, ContractError)
    assert result.complete
    assert result.evaluations <= 14
    assert result.calibrations == 1 < result.evaluations  # none observes what the first did not


def test_tensors_that_share_an_observer_by_mistake_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # x is hundreds of times as large as what the layer norms leave of it.
    check = close_to_float(15)
    assert_nothing_wrong(lambda: bisect(faults.attention, check, scale=200.0))
    faults.share_wrongly(monkeypatch, Site("", "linear_4", "input"), Site("", "x"))
    result = bisect(faults.attention, check, scale=200.0)
    assert [each.permit for each in result.culprits] == [Permit("share", site="linear_4.input")]


def test_two_culprits_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.lose_eps(monkeypatch)
    faults.break_kernel(monkeypatch, "conv2d_3")
    result = bisect(faults.conv_net)
    assert [each.permit for each in result.culprits] == [
        Permit("fold-batch-norm", "conv_batch_norm", "conv2d_2"),
        Permit("lower", "conv2d_unary", "conv2d_3"),
    ]
    assert result.complete


def test_what_does_harm_only_together_is_named_together() -> None:
    """A check that fails where two sites are int8, and not where one of them is."""

    def check(result: Result) -> bool:
        sites = {each.site.node for each in result.report.sites}
        return not {"linear_1", "linear_8"} <= sites

    model, x = faults.attention()
    result = quantfx.bisect(model, x, check=check, batches=[x])
    assert result.culprit.permit == Permit("annotate-linear", "linear", "linear_8")
    assert result.culprit.needs == (Permit("annotate-linear", "linear", "linear_1"),)
    assert "only with annotate-linear: linear at linear_1" in str(result)


@pytest.mark.sweep
def test_more_culprits_than_were_asked_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.lose_eps(monkeypatch)
    faults.break_kernel(monkeypatch, "conv2d_3")
    model, x = faults.conv_net()
    result = quantfx.bisect(model, x, check=CLOSE[faults.conv_net], batches=[x], most=1)
    assert not result.complete
    assert "there are more" in str(result)


def assert_nothing_wrong(call: Callable[[], object]) -> None:
    with refused("nothing-wrong", BisectError):
        call()


def test_nothing_wrong_is_told() -> None:
    assert_nothing_wrong(lambda: bisect(faults.conv_net))


def test_a_check_that_nothing_passes_is_told() -> None:
    with refused("fails-without", BisectError):
        model, x = faults.conv_net()
        quantfx.bisect(model, x, check=lambda _: False, batches=[x])


def test_a_check_that_does_not_repeat_itself_is_told() -> None:
    answers = iter((False, True, True))
    model, x = faults.conv_net()
    with refused("not-repeated", BisectError):
        quantfx.bisect(model, x, check=lambda _: next(answers), batches=[x])


def test_its_config_keeps_the_site_float(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.swap_scales(monkeypatch, "linear")
    model, x = faults.conv_net()
    result = bisect(faults.conv_net)
    assert tomllib.loads(result.config)["rule"] == [{"call": "linear", "mode": "float"}]
    config = quantfx.Config.from_toml(result.config)
    cured = quantfx.quantize(model, x, calibration=[x], config=config)
    assert CLOSE[faults.conv_net].holds(cured, model, x)


@pytest.mark.sweep
def test_equal_calls_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.lose_eps(monkeypatch)
    assert str(bisect(faults.conv_net)) == str(bisect(faults.conv_net))


@pytest.mark.sweep
def test_sums_that_are_fused_inside_of_inductor_are_decisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quantfx.backends.inductor import fuse_sums

    exact = fuse_sums._fuse

    def wrong(match: Match, editor: Editor) -> None:
        kernel = match.nodes["kernel"]
        scale: Any = kernel.args[1]
        kernel.args = (kernel.args[0], 4 * scale, *kernel.args[2:])
        exact(match, editor)

    monkeypatch.setattr(fuse_sums, "_fuse", wrong)
    torch._dynamo.reset()
    result = bisect(faults.conv_net, close_to_float(20, compiled=True))
    assert result.culprit.permit.by == "fuse-sums"
    assert result.culprit.permit.site == "conv2d_2"
    assert "disabled_passes='fuse-sums'" in result.culprit.remedy
