"""Weight-only linears become torch's int8-weight kernel, whatever their shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.onednn.int8pack import Int8Pack
from quantfx.backends.x86 import x86
from quantfx.passes.lower.lower import Lower
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked
from tests.export_cases import Net

GENERATOR = torch.Generator().manual_seed(0)
BACKEND = x86().with_config("weight-only")


def lower(module: GraphModule) -> GraphModule:
    return Pipeline((Lower(),)).run(module, Context(BACKEND.recipe, (Int8Pack(),)))


def quantized(model: nn.Module, x: Tensor, **options: object) -> GraphModule:
    graph = unchecked.capture(model.eval(), (x,), **options)  # type: ignore[arg-type]
    return BACKEND.convert(BACKEND.prepare(graph))


def calls(module: GraphModule) -> Counter[str]:
    return Counter(str(n.target) for n in module.graph.nodes if n.op == "call_function")


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8), (2, 1, 3, 8)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 8, 9, 40])
def test_the_kernel_computes_what_the_qdq_graph_does(
    shape: tuple[int, ...], bias: bool, channels: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, generator=GENERATOR)
    module = quantized(nn.Linear(8, channels, bias=bias), x)
    lowered = lower(module)
    found = calls(lowered)
    assert found["aten._weight_int8pack_mm.default"] == 1
    assert not any("linear" in name or "quantize" in name for name in found)
    torch.testing.assert_close(lowered(x), module(x), rtol=1e-5, atol=1e-6)
    assert all(node.meta["val"].shape for node in lowered.graph.nodes if "val" in node.meta)


def test_a_free_batch_stays_free() -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    x = torch.randn(4, 3, 8, generator=GENERATOR)
    module = quantized(nn.Linear(8, 16), x, dynamic_shapes=({0: batch},))
    lowered = lower(module)
    for size in (2, 7):
        y = torch.randn(size, 3, 8, generator=GENERATOR)
        torch.testing.assert_close(lowered(y), module(y), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("free", [pytest.param(1, marks=pytest.mark.sweep), 2])
def test_no_free_size_is_read(free: int) -> None:
    """torch 2.13: Dynamo stumbles over a second read of one, at the next new size."""
    x = torch.randn(4, 5, 8, generator=GENERATOR)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 16)).eval()
    shapes = (dict.fromkeys(range(free), torch.export.Dim.DYNAMIC),)
    result = unchecked.quantize(model, (x,), config="weight-only", dynamic_shapes=shapes)
    assert calls(lower(result.quantized))["aten.sym_size.int"] == 0
    compiled = result.compile()
    for size in (4, 2, 7):
        y = torch.randn(size, size + 1 if free == 2 else 5, 8, generator=GENERATOR)
        torch.testing.assert_close(compiled(y), result.quantized(y), rtol=1e-4, atol=1e-5)


def test_other_linears_are_left_alone() -> None:
    x = torch.randn(2, 8, generator=GENERATOR)
    graph = unchecked.capture(nn.Linear(8, 8).eval(), (x,))
    backend = x86().with_config("dynamic")
    module = backend.convert(backend.prepare(graph))
    assert calls(lower(module)) == calls(module)


@pytest.mark.parametrize("turned", [lambda x: x.t(), lambda x: x.t().sin()])
def test_rows_that_are_not_contiguous(turned: Callable[[Tensor], Tensor]) -> None:
    """The kernel raises for them, and Inductor lays a copy out like what it copies."""
    torch.manual_seed(0)
    x = torch.randn(8, 5, generator=GENERATOR)
    model = Net(lambda f, x: f(turned(x)), nn.Linear(8, 16)).eval()
    result = unchecked.quantize(model, (x,), config="weight-only")
    for run in (result.module, result.compile()):
        torch.testing.assert_close(run(x), result.quantized(x), rtol=1e-5, atol=1e-6)
