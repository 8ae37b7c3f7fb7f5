"""Graphs of one form of inputs are compiled without Dynamo; every other call goes through it."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.backends.inductor.compile import CompiledModule
from quantfx.backends.inductor.static_graph import form_of, static_forms
from quantfx.tools.models.seeded import seeded
from tests.export_cases import Net
from tests.models.small import mlp

IMAGE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def compiled(
    model: nn.Module, *inputs: Any, **options: Any
) -> tuple[quantfx.Result, CompiledModule]:
    result = quantfx.quantize(model.eval(), inputs, calibration=[inputs], **options)
    made = result.compile()
    assert isinstance(made, CompiledModule)
    return result, made


def dynamo_calls(module: CompiledModule, *args: Any, **kwargs: Any) -> int:
    with mock.patch.object(module, "_call_dynamo", wraps=module._call_dynamo) as spy:
        module(*args, **kwargs)
    return spy.call_count


def test_the_captured_form_needs_no_dynamo_and_others_do() -> None:
    result, module = compiled(seeded(lambda: nn.Conv2d(4, 4, 3)), IMAGE)
    assert dynamo_calls(module, IMAGE) == 0
    strange = IMAGE.contiguous(memory_format=torch.channels_last)
    for other in (IMAGE[:1], strange, torch.cat([IMAGE, IMAGE])):
        assert dynamo_calls(module, other) == 1
        torch.testing.assert_close(module(other), result.module(other), rtol=1e-4, atol=1e-5)
    assert dynamo_calls(module, IMAGE) == 0
    assert dynamo_calls(module, nn.Parameter(IMAGE)) == 0
    with torch.inference_mode():
        torch.testing.assert_close(module(IMAGE), result.module(IMAGE), rtol=1e-4, atol=1e-5)


def test_strides_of_single_elements_do_not_count() -> None:
    one = torch.zeros(1, 3, 4)
    assert form_of(one) == form_of(one.as_strided((1, 3, 4), (77, 4, 1)))
    assert form_of(one) != form_of(torch.zeros(1, 4, 3).transpose(1, 2))
    assert form_of(one) != form_of(one.double())


def test_outputs_keep_their_structure() -> None:
    model = Net(lambda f, x: {"a": f(x), "b": [x, f(x).relu()]}, nn.Linear(8, 8))
    result, module = compiled(model, ROWS)
    assert dynamo_calls(module, ROWS) == 0
    given, expected = module(ROWS), result.module(ROWS)
    assert given.keys() == {"a", "b"}
    torch.testing.assert_close(given["b"][1], expected["b"][1], rtol=1e-5, atol=1e-6)
    assert torch.equal(given["b"][0], ROWS)


@pytest.mark.parametrize("why", ["a free size", "a keyword", "a dict"])
def test_what_one_form_does_not_describe(why: str) -> None:
    torch.manual_seed(0)
    if why == "a free size":
        batch = torch.export.Dim("batch", min=1, max=64)
        result, module = compiled(nn.Linear(8, 8), ROWS, dynamic_shapes=({0: batch},))
        assert static_forms(result.quantized) is None
        assert dynamo_calls(module, ROWS) == 1
    elif why == "a keyword":
        result, module = compiled(nn.Linear(8, 8), ROWS)
        assert dynamo_calls(module, input=ROWS) == 1
        torch.testing.assert_close(module(input=ROWS), module(ROWS))
    else:
        model = Net(lambda f, x: f(x["rows"]), nn.Linear(8, 8))
        result, module = compiled(model, {"rows": ROWS})
        assert dynamo_calls(module, {"rows": ROWS}) == 1


def test_a_graph_with_state_is_not_of_its_inputs_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("n", torch.zeros(()))
            self.n: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.n.add_(1)
            return self.linear(x) * self.n

    torch.manual_seed(0)
    _, module = compiled(Counting(), ROWS)
    first, second = module(ROWS), module(ROWS)
    torch.testing.assert_close(second, 2 * first, rtol=1e-4, atol=1e-5)


def test_threads_compile_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    result = quantfx.quantize(mlp(), (ROWS,), calibration=[ROWS])
    module = CompiledModule(result.backend.lower(result.quantized))
    notes: list[object] = []
    with mock.patch.object(module, "_note_kernels", notes.append), ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: module(ROWS), range(8)))
    assert len(notes) == 1
    expected = result.compile()(ROWS)
    assert all(torch.equal(output, expected) for output in outputs)
