"""Calibration data in the options: int8 from the first call on, for models that are one graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.utils.data import DataLoader, TensorDataset

import quantfx
from tests import unchecked
from tests.dynamo.models import WIDTH, Branch, Mlp, batches, close, compiled, phases
from tests.refusals import refused


class Nested(nn.Module):
    """Takes a dictionary, an optional argument and a default."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(
        self, batch: dict[str, Tensor], scale: Tensor | None = None, factor: int = 1
    ) -> Tensor:
        y = self.linear(batch["x"]) * factor
        return y if scale is None else y * scale


def test_the_first_call_is_int8_with_the_bits_of_the_export_flow() -> None:
    model, data = Mlp().eval(), batches(4)
    fast, state = compiled(model, calibration=quantfx.Batches(data))
    result = unchecked.quantize(model, (data[0],), calibration=data, backend="native")
    assert torch.equal(fast(data[0]), result.module(data[0]))
    assert phases(state) == [("int8", 4)]


def test_a_loader_of_pairs_and_builtin_modules() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 8)).eval()
    rows = torch.cat(batches(3))
    loader: Any = DataLoader(TensorDataset(rows, torch.zeros(len(rows))), batch_size=8)
    fast, state = compiled(model, calibration=loader, input_fn=lambda batch: batch[0])
    assert close(fast(rows[:8]), model(rows[:8]))
    assert phases(state) == [("int8", 3)]


def test_a_function_of_a_model() -> None:
    model = Mlp().eval()

    def call(network: nn.Module, x: Tensor) -> Any:
        return network(x) + 1

    data = batches(2)
    fast, _ = compiled(call, calibration=quantfx.Batches(data))
    assert close(fast(model, data[0]), model(data[0]) + 1)


@pytest.mark.parametrize("keywords", [False, True])
def test_nested_and_keyword_batches(keywords: bool) -> None:
    model = Nested().eval()
    scale = torch.rand(WIDTH)
    given: list[Any] = [({"x": x}, scale) for x in batches(2)]
    if keywords:
        given = [{"batch": {"x": x}, "scale": scale} for x in batches(2)]
    fast, _ = compiled(model, calibration=quantfx.Batches(given))
    inputs = {"x": batches(1)[0]}
    assert close(fast(inputs, scale), model(inputs, scale))


def test_what_a_batch_leaves_out_is_not_taken_from_the_call() -> None:
    model = Nested().eval()
    data = quantfx.Batches([({"x": x},) for x in batches(2)])
    fast, _ = compiled(model, calibration=data)
    with refused("batch-names", BackendCompilerFailed, site="scale", says="0 has"):
        fast({"x": batches(1)[0]}, torch.rand(WIDTH))


def test_other_sizes_with_free_dimensions() -> None:
    model = Mlp().eval()
    data = [x[:rows] for rows, x in zip((8, 3, 5), batches(3), strict=True)]
    fast, _ = compiled(model, "quantfx_x86", dynamic=True, calibration=quantfx.Batches(data))
    for rows in (8, 2, 6):
        x = data[0][:rows]
        assert close(fast(x), model(x))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no-batches: calibration"),
        ([(torch.ones(8, WIDTH), torch.ones(1))], "batch-names: batch 0"),
        (
            [torch.ones(3, WIDTH)],
            "input-shape: x",
        ),
        ([torch.ones(8, WIDTH, dtype=torch.float64)], "input-dtype: x"),
        ([torch.full((8, WIDTH), float("nan"))], "not-finite: x"),
        ([({"x": 1},)], "input-type: x"),
        ([3], "batch-form: batch 0"),
    ],
)
def test_wrong_data_is_refused_by_name(data: list[Any], message: str) -> None:
    fast, state = compiled(Mlp().eval(), calibration=quantfx.Batches(data))
    with refused(message, BackendCompilerFailed):
        fast(batches(1)[0])
    assert phases(state) == [("observing", 0)]


def test_half_of_the_data_is_no_calibration() -> None:
    model, x = Mlp().eval(), batches(1)[0]
    fast, state = compiled(model, calibration=quantfx.Batches([x, x * float("nan")]))
    for _ in range(2):  # a second call must not go on with what the first one saw
        with refused("not-finite", BackendCompilerFailed, site="x", says="1: input"):
            fast(x)
    assert not state.calibrations


def test_a_model_of_several_graphs_is_refused_with_the_ways_out() -> None:
    x = batches(1)[0]
    fast, _ = compiled(Branch().eval(), calibration=quantfx.Batches([x]))
    with refused("graph-break", BackendCompilerFailed):
        fast(x)


def test_an_inner_function_does_not_get_the_models_data() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Mlp()

        def forward(self, x: Tensor) -> Any:
            return self.inner(x * 100)

    # Dynamo leaves such a frame to Python and compiles what it calls.
    disable: Any = torch.compiler.disable
    model, x = Outer().eval(), batches(1)[0]
    model.forward = disable(model.forward, recursive=False)  # type: ignore[method-assign]
    fast, _ = compiled(model, calibration=quantfx.Batches([x]))
    with refused("graph-break", BackendCompilerFailed):
        fast(x)
