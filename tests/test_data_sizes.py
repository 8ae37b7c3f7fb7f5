"""Models in which sizes depend on data: planned whole, and right in every form of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Result
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.tools.models.seeded import seeded
from tests.models import data_sized
from tests.refusals import refused


def close(result: object, expected: object) -> None:
    """Fail unless values are those of the float model, as near as int8 gets."""
    mine, theirs = leaves_in(result), leaves_in(expected)
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        if not isinstance(other, Tensor):
            assert type(one) is type(other)
            assert one == other
            continue
        assert one.shape == other.shape
        bound = 0.06 * float(other.abs().max()) if other.numel() else 0.0
        assert float((one - other).abs().sum()) <= bound * max(other.numel(), 1)


def rows(count: int, sign: float = 0.0) -> Tensor:
    values = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    return values.abs() * sign if sign else values


@pytest.fixture(scope="module", params=data_sized.ROWS, ids=lambda kind: kind.__name__)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Result]:
    model = seeded(request.param)
    data = [rows(12), rows(12, 1.0), torch.randn(12, 8) * 2]
    return model, quantfx.quantize(model, (rows(12),), calibration=data, backend=x86())


def x86() -> Any:
    return quantfx.backends.get("x86", target="avx2")


LINEARS = {
    "SelectedRows": 2,
    "SelectedSum": 2,
    "SelectedAtEnd": 1,
    "Counted": 1,
}  # the other is of no data


def test_every_linear_is_planned_and_lowered(case: tuple[nn.Module, Result]) -> None:
    model, result = case
    (row,) = [row for row in result.report.rows if row.kind == "linear"]
    assert row.planned == row.lowered == LINEARS[type(model).__name__]


def test_kernels_take_any_number_of_rows(case: tuple[nn.Module, Result]) -> None:
    model, result = case
    for inputs in (rows(12), rows(12, 1.0)):
        close(result.module(inputs), model(inputs))


# Of the others test_more_rows_... compiles one in CI.
COMPILED = {data_sized.Counted}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(kind, marks=[] if kind in COMPILED else pytest.mark.sweep, id=kind.__name__)
        for kind in data_sized.ROWS
    ],
    indirect=True,
)
def test_a_loaded_result_compiled_for_all_rows(
    case: tuple[nn.Module, Result], tmp_path: Path
) -> None:
    model, result = case
    result.save(tmp_path / "model.quantfx")
    loaded = quantfx.load(tmp_path / "model.quantfx")
    close(loaded.module(rows(12)), model(rows(12)))
    compiled = loaded.compile()
    assert loaded.report.rows[0].compiled == result.report.rows[0].lowered
    for inputs in (rows(12), rows(12, 1.0)):
        close(compiled(inputs), model(inputs))


def test_more_rows_than_the_example_has() -> None:
    model = seeded(data_sized.SelectedRows)
    data = [rows(12, 1.0), rows(12), rows(12, -1.0)]
    result = quantfx.quantize(model, (rows(12),), calibration=data, backend=x86())
    compiled = result.compile()
    for inputs in (rows(30, 1.0).clamp(max=1), rows(12, -1.0)):  # all of them, and none
        close(result.module(inputs), model(inputs))
        close(compiled(inputs), model(inputs))
    # What torch cannot compile is said.
    empty = torch.zeros(0, 8)
    assert result.module(empty).shape == (0, 4)
    with refused("compiler-failed", fix="result.module"):
        compiled(empty)


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_an_output_as_long_as_data_says_beside_a_float_convolution(compiles: bool) -> None:
    model = seeded(data_sized.SelectedFrames)
    data = [torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    result = quantfx.quantize(model, (data[0],), calibration=data, backend=x86())
    assert {row.kind: row.lowered for row in result.report.rows} == {"conv1d": 1}
    run = result.compile() if compiles else result.quantized
    for x in data:
        for given, expected in zip(run(x), result.module(x), strict=True):
            torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_detections(compiles: bool) -> None:
    model = seeded(data_sized.Detections)
    images = torch.rand(4, 3, 8, 8) - torch.tensor([0.2, 0.8, 0.3, 0.9])[:, None, None, None]
    result = quantfx.quantize(model, (images,), calibration=[images], backend=x86())
    assert {row.kind: row.lowered for row in result.report.rows} == {"conv2d": 1, "linear": 1}
    close(result.module(images), model(images))
    if compiles:
        close(result.compile()(images), model(images))
    twice = torch.cat([images, images])
    close(result.module(twice), model(twice))
