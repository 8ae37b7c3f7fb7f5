"""Readers of a quantized result take it in the qparams that it comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx import backends
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.qdq import quantizes, tensor_qparams
from quantfx.tools.doctor.template_examples import Call
from tests import unchecked

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
UNIT = (2**-8, 0)


def quantized(function: Callable[[Tensor], Tensor], *, adopts: bool = True) -> GraphModule:
    backend = backends.get("native", target="any", observer="min_max")
    if not adopts:
        pipeline: Pipeline = backend.prepare_pipeline.without("adopt-outputs")
        backend = replace(backend, prepare_pipeline=pipeline)
    return unchecked.convert(Call(function).eval(), (X,), backend)


def qparams(module: GraphModule) -> list[tuple[float, int]]:
    found = [tensor_qparams(node) for node in module.graph.nodes if quantizes(node)]
    return [(each.scale, each.zero_point) for each in found]


def test_a_fixed_result_is_not_quantized_again() -> None:
    def model(x: Tensor) -> Tensor:
        return nn.functional.hardswish(torch.sigmoid(x))

    found = qparams(quantized(model))
    assert len(found) == 3  # the input, the sigmoid, the hardswish
    assert found[1] == UNIT
    again = qparams(quantized(model, adopts=False))
    assert len(again) == 4


def test_what_shares_with_a_fixed_result_is_fixed() -> None:
    found = qparams(quantized(lambda x: torch.sigmoid(x).reshape(8, 4)))
    assert found[1:] == [UNIT, UNIT]


def test_inputs_that_share_adopt_all_or_none() -> None:
    def both(x: Tensor) -> Tensor:
        return torch.cat([torch.sigmoid(x), torch.sigmoid(-x)])

    def one(x: Tensor) -> Tensor:
        return torch.cat([torch.sigmoid(x), x * x])

    assert qparams(quantized(both))[-1] == UNIT
    found = qparams(quantized(one))
    assert found[-1] != UNIT
    assert UNIT in found  # the sigmoid's own, which the cat requantizes


def test_a_number_takes_values_out_of_the_range() -> None:
    module = quantized(lambda x: torch.sigmoid(x) * 3 + 1)
    assert float((module(X) - (torch.sigmoid(X) * 3 + 1)).abs().max()) < 0.03


@pytest.mark.parametrize("function", [torch.sigmoid, lambda x: torch.cat([x, torch.sigmoid(x)])])
def test_values_stay_within_steps(function: Callable[[Tensor], Tensor]) -> None:
    module = quantized(function)
    assert float((module(X) - function(X)).abs().max()) < 0.02


def test_other_backends_do_not_adopt() -> None:
    assert "adopt-outputs" not in backends.get("x86", target="any").prepare_pipeline.names
