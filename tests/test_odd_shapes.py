"""Every template's operators on shapes, layouts and ranks that are rare: right, or refused by us."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

import quantfx
from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.errors import PassError
from quantfx.passes.quant.lowered import lowered_nodes
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.schema import argument_value
from tests import unchecked
from tests.odd_shapes import KINDS, OddCase, odd_case

BACKENDS = {
    "x86": lambda: backends.get("x86"),
    "native": lambda: backends.get("native"),
    "xpu": lambda: backends.get("xpu", target="any"),
    "qnnpack": lambda: backends.get("native", variant="qnnpack"),
    "onednn": lambda: backends.get("native", variant="onednn"),
    "legacy": lambda: backends.get("native", variant="legacy"),
}
FEW = 1  # seeds of each kind and backend in CI
MANY = 60


# xpu has the templates of x86, and no kernels here to be wrong.
@pytest.mark.parametrize("name", ["x86", "native", pytest.param("xpu", marks=pytest.mark.sweep)])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_shapes_are_right_or_refused(kind: str, name: str) -> None:
    for seed in range(FEW):
        check(kind, seed, name)


@pytest.mark.sweep
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_shapes_are_right_or_refused_everywhere(kind: str, name: str) -> None:
    for seed in range(FEW, MANY):
        check(kind, seed, name)


def test_most_cases_are_models_that_run() -> None:
    """What is drawn is not mostly thrown away, and sizes are free in some."""
    cases = [odd_case(kind, seed) for kind in KINDS for seed in range(4)]
    made = [case for case in cases if case is not None]
    assert len(made) > 0.8 * len(cases)
    assert sum(bool(case.calls) for case in made) > 0.1 * len(made)


def check(kind: str, seed: int, name: str) -> None:
    """Hold the results of one case against each other; a refusal of ours is as good."""
    case = odd_case(kind, seed)
    if case is None:
        return
    try:
        result = quantized(case, BACKENDS[name]())
    except PassError:  # something that no pass expected
        raise
    except QuantfxError:
        return
    with torch.no_grad():
        for inputs in (case.inputs, *case.calls):
            _hold(result, case, inputs, runs=name != "xpu")
    _reports(result, case, runs=name != "xpu")


def quantized(case: OddCase, backend: Backend) -> quantfx.Result:
    """Quantize a case; with the checks of calls where a size is free, since 0 is refused there."""
    free = tuple({0: torch.export.Dim.AUTO} for _ in case.inputs)
    options: dict[str, Any] = {
        "calibration": [case.inputs, *(call for call in case.calls if call[0].numel())],
        "backend": backend,
        "input_fn": lambda batch: batch,
        "config": case.config,
        "dynamic_shapes": (free,) if case.calls else None,
    }
    quantize = quantfx.quantize if case.calls else unchecked.quantize
    return quantize(case.model, case.inputs, **options)


def _hold(result: quantfx.Result, case: OddCase, inputs: tuple[Tensor, ...], runs: bool) -> None:
    expected = case.model(*inputs)
    try:
        rounded = result.quantized(*inputs)
    except QuantfxError:  # a size that the contract of the graph does not let in
        return
    assert rounded.shape == expected.shape, case.label
    assert rounded.dtype == expected.dtype, case.label
    assert _near(expected, rounded, _largest_step(result.quantized)), case.label
    if not runs:
        return
    try:
        computed = result.module(*inputs)
    except QuantfxError:  # kernels that take no empty inputs say so
        assert not all(each.numel() for each in inputs), case.label
        return
    assert computed.shape == rounded.shape, case.label
    assert computed.dtype == rounded.dtype, case.label
    wrong = [each for each in result.compare_sites(*inputs) if not each.within(1, 1e-4)]
    assert not wrong, f"{case.label}: {wrong}"


def _reports(result: quantfx.Result, case: OddCase, runs: bool) -> None:
    """Every kernel has a row of the report, and every row a kernel."""
    assert all(site.kernel or not runs for site in result.report.sites), case.label
    if runs:
        rows = {site.site for site in result.report.sites}
        assert {call.site for _, call in lowered_nodes(result.module)} <= rows, case.label


def _near(expected: Tensor, rounded: Tensor, step: float) -> bool:
    """Whether there are 20 dB between signal and noise, or the noise is a step or two."""
    if not expected.numel():
        return True
    noise = (expected - rounded).double()
    if float(noise.abs().max()) <= 2 * step:
        return True
    power = float(expected.double().square().sum())
    return power > 0 and 10 * math.log10(power / float(noise.square().sum())) > 20


def _largest_step(module: GraphModule) -> float:
    quantizes = module.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
    scales = [argument_value(node, "scale") for node in quantizes]
    return max((scale for scale in scales if isinstance(scale, float)), default=0.0)
