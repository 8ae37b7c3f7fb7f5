"""Kernels of every mode at numbers of rows that the example did not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import InputError
from tests.refusals import refused


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


SHAPES = [(4, 8), (4, 5, 8), (4, 4, 3, 8)]
MODES = {
    "x86": ("static", "dynamic", "fp16", "weight-only"),
    "native": ("static", "dynamic", "fp16"),
}


def agrees(run: Any, result: quantfx.Result, x: Tensor) -> None:
    with torch.no_grad():
        ours, wanted = run(x), result.quantized(x)
    torch.testing.assert_close(ours, wanted, atol=0.02, rtol=0)  # a step


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("backend", "mode"), [(backend, mode) for backend, modes in MODES.items() for mode in modes]
)
def test_rows_of_another_number(backend: str, mode: str, shape: tuple[int, ...]) -> None:
    x = rows(*shape)
    result = quantfx.quantize(mlp(), (x,), calibration=[x], backend=backend, config=mode)
    for count in (1, 2, 7):
        agrees(result.module, result, rows(count, *shape[1:]))
    empty = torch.zeros(0, *shape[1:])
    try:
        agrees(result.module, result, empty)
    except InputError as error:
        assert "leave out calls with empty inputs" in str(error)  # noqa: PT017  either is right


# In CI tests/backends/onednn/test_int8pack.py compiles calls of several sizes.
@pytest.mark.sweep
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_rows_of_another_number(shape: tuple[int, ...]) -> None:
    x = rows(*shape)
    result = quantfx.quantize(mlp(), (x,), config="weight-only")
    run = result.compile()
    for count in (4, 2, 7):
        agrees(run, result, rows(count, *shape[1:]))


def test_ranges_found_in_each_call_need_rows() -> None:
    result = quantfx.quantize(mlp(), (rows(4, 8),), config="dynamic")
    for run in (result.quantized, result.module):
        with refused("input-shape", InputError, site="input"):
            run(torch.zeros(0, 8))


def test_a_linear_of_three_dimensions_needs_rows() -> None:
    x = rows(4, 5, 8)
    result = quantfx.quantize(mlp(), (x,), calibration=[x])
    assert result.quantized(torch.zeros(0, 5, 8)).shape == (0, 5, 5)
    with refused("input-shape", InputError, site="input"):
        result.module(torch.zeros(0, 5, 8))
    of_rows = quantfx.quantize(mlp(), (x[0],), calibration=[x[0]])
    assert of_rows.module(torch.zeros(0, 8)).shape == (0, 5)


@pytest.mark.parametrize("mode", ["weight-only", "weight-only-4bit"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3), (7,), ()], ids=str)
def test_indices_of_another_number(shape: tuple[int, ...], mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 9)).eval()
    result = quantfx.quantize(model, (torch.randint(50, shape),), backend="native", config=mode)
    for sizes in (shape, (9, *shape[1:])) if shape else (shape,):
        indices = torch.randint(50, sizes)
        with torch.no_grad():
            ours, wanted = result.module(indices), model(indices)
        torch.testing.assert_close(ours, wanted, atol=0.3 if "4" in mode else 0.02, rtol=0)
