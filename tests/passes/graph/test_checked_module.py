from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import quantfx
from quantfx.passes.errors import ModeError
from tests.models.small import mlp
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def result() -> quantfx.Result:
    return quantfx.quantize(mlp(), (X,), calibration=[X])


@pytest.mark.parametrize("form", ["quantized", "module"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_quantized_graph_keeps_its_dtypes(
    result: quantfx.Result, form: str, dtype: torch.dtype
) -> None:
    module = copy.deepcopy(getattr(result, form))
    expected = module(X)
    with refused("fixed-dtype", ModeError, says=str(dtype)):
        module.to(dtype)
    with refused("fixed-dtype", ModeError):
        nn.Sequential(module).to(dtype)
    assert torch.equal(module(X), expected)


def test_what_changes_no_dtype_is_taken(result: quantfx.Result) -> None:
    module = copy.deepcopy(result.quantized)
    assert module.float() is module
    assert module.to("cpu") is module
    assert torch.equal(module.share_memory()(X), result.quantized(X))
    assert next(iter(module.to("meta").buffers())).is_meta


def test_a_captured_graph_is_cast_as_any_module() -> None:
    graph = quantfx.capture(mlp(), (X,), check_inputs=False)
    assert graph.double()(X.double()).dtype == torch.float64
