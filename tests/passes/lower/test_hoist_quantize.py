from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx import backends
from quantfx.passes.lower.hoist_quantize import HoistQuantize
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR
from tests import unchecked
from tests.export_cases import Net

X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
HOIST = Pipeline((HoistQuantize(),))


def qdq(forward: Callable[..., Tensor], *layers: nn.Module) -> GraphModule:
    torch.manual_seed(0)
    return unchecked.convert(Net(forward, *layers).eval(), (X,), backends.get("x86"))


def quantized(module: GraphModule) -> list[str]:
    """What each quantize reads, in graph order."""
    nodes = module.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
    return [str(node.all_input_nodes[0].target) for node in nodes]


@pytest.mark.parametrize("moved", [
    lambda y: y.reshape(2, 32),
    lambda y: y.permute(2, 0, 1).reshape(8, 8),
    lambda y: y.transpose(1, 2).unsqueeze(0).squeeze(0).reshape(2, 32),
    lambda y: y.roll(1, 1).flip(2),
    lambda y: nn.functional.channel_shuffle(y, 2),
    lambda y: nn.functional.pixel_shuffle(y.unsqueeze(1).reshape(2, 4, 2, 4), 2).flatten(1),
    lambda y: nn.functional.pixel_unshuffle(y.unsqueeze(1), 2).flatten(1),
    lambda y: nn.functional.interpolate(y, scale_factor=2),
])  # fmt: skip
def test_a_quantize_moves_up_to_the_kernel_and_nothing_changes(
    moved: Callable[[Tensor], Tensor],
) -> None:
    width = moved(torch.zeros(2, 4, 8)).shape[-1]
    module = qdq(lambda f, g, x: g(moved(f(x).relu())), nn.Linear(6, 8), nn.Linear(width, 3))
    assert quantized(module)[1] != "aten.relu.default"
    hoisted = HOIST.run(module)
    assert quantized(hoisted) == ["x", "aten.relu.default"]
    assert torch.equal(hoisted(X), module(X))
    assert all("val" in node.meta for node in hoisted.graph.nodes if node.op == "call_function")


def test_both_layers_then_lower_with_their_result_quantized() -> None:
    module = qdq(lambda f, g, x: g(f(x).reshape(2, 32)), nn.Linear(6, 8), nn.Linear(32, 3))
    lowered = backends.get("x86").lower(module)
    kernels = [node for node in lowered.graph.nodes if "qlinear_pointwise" in str(node.target)]
    assert [node.args[9] for node in kernels] == [torch.uint8, torch.float32]


@pytest.mark.parametrize("forward", [
    lambda f, g, x: (y := f(x).reshape(2, 32)).sum() + g(y),  # the moved tensor has readers
    lambda f, g, x: (y := f(x)).sum() + g(y.reshape(2, 32)),  # so has the one that is moved
    lambda f, g, x: g(f(x).reshape(2, 32).sin()),  # nothing moves
])  # fmt: skip
def test_float_readers_keep_a_quantize_where_it_is(forward: Callable[..., Tensor]) -> None:
    module = qdq(forward, nn.Linear(6, 8), nn.Linear(32, 3))
    assert quantized(HOIST.run(module)) == quantized(module)


def test_annotated_moves_are_left_to_their_template() -> None:
    """``flatten`` between quantized patterns is planned, and its site lowers as int8."""
    module = qdq(lambda f, g, x: g(f(x).flatten(1)), nn.Conv1d(4, 4, 1), nn.Linear(24, 3))
    assert quantized(HOIST.run(module)) == quantized(module)


def test_a_dequantize_of_the_same_qparams_is_undone() -> None:
    """Graphs from elsewhere have ``q(view(dq(i)))``; no template of ours annotates a view."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    qparams = (0.1, 3, 0, 255, torch.uint8)
    q = graph.call_function(QUANTIZE_PER_TENSOR, (x, *qparams))
    dq = graph.call_function(
        torch.ops.quantized_decomposed.dequantize_per_tensor.default, (q, *qparams)
    )
    view = graph.call_function(torch.ops.aten.view.default, (dq, [24, 2]))
    graph.output(graph.call_function(QUANTIZE_PER_TENSOR, (view, *qparams)))
    module = GraphModule(nn.Module(), graph)
    module.meta["quantfx_facts"] = ("qdq",)
    hoisted = HOIST.run(module)
    assert [str(node.target) for node in hoisted.graph.nodes if node.op == "call_function"] == [
        "quantized_decomposed.quantize_per_tensor.default",
        "aten.view.default",
    ]
    assert torch.equal(hoisted(X), module(X))
