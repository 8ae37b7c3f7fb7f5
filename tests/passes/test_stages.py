"""Snapshots of small models after the stages that change their drawing, with counts and numerics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.graph.graphs import referent
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.quant.qdq import dequantizes, quantizes
from quantfx.passes.report.contract import planned_matches
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.unchecked import capture

GENERATOR = torch.Generator().manual_seed(0)
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, torch.randn(4, 8, generator=GENERATOR)),
    "residual_block": (residual_block, torch.randn(2, 4, 8, 8, generator=GENERATOR)),
    "cat_pool_net": (cat_pool_net, torch.randn(2, 3, 16, 16, generator=GENERATOR)),
}
# model -> matches, q, dq
COUNTS = {"mlp": (2, 2, 4), "residual_block": (2, 2, 5), "cat_pool_net": (9, 9, 14)}
BACKEND = x86()  # machine-independent: the same drawing on every CPU


def stages(name: str) -> tuple[GraphModule, GraphModule, GraphModule]:
    make, x = MODELS[name]
    graph = capture(make(), (x,))
    prepared = BACKEND.prepare(graph)
    calibrate(prepared, [x])
    return graph, prepared, BACKEND.convert(prepared)


@pytest.mark.parametrize("name", MODELS)
def test_drawings(name: str, graph_snapshot: SnapshotAssertion) -> None:
    graph, prepared, quantized = stages(name)
    assert graph == graph_snapshot(name="captured")
    assert prepared == graph_snapshot(name="prepared")
    assert quantized == graph_snapshot(name="quantized")


@pytest.mark.parametrize("name", MODELS)
def test_counts(name: str) -> None:
    _, _, quantized = stages(name)
    nodes = list(quantized.graph.nodes)
    found = (
        len(planned_matches(quantized)),
        sum(map(quantizes, nodes)),
        sum(map(dequantizes, nodes)),
    )
    assert found == COUNTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_numerics(name: str) -> None:
    make, x = MODELS[name]
    model = make()
    graph, prepared, quantized = stages(name)
    with torch.no_grad():
        expected = model(x)
        scale = float(expected.abs().max())
        assert float((graph(x) - expected).abs().max()) <= 1e-5 * scale
        assert float((prepared(x) - expected).abs().max()) <= 1e-5 * scale
        error = (quantized(x) - expected).square().sum()
    assert 10 * torch.log10(expected.square().sum() / error) > 25


@pytest.mark.parametrize("name", MODELS)
def test_every_dequantize_has_one_reader_and_weights_are_int8(name: str) -> None:
    _, _, quantized = stages(name)
    for node in quantized.graph.nodes:
        if dequantizes(node):
            assert len(node.users) == 1
    weights = [
        referent(quantized, node)
        for node in quantized.graph.find_nodes(op="get_attr")
        if str(node.target).endswith("_s8")
    ]
    assert len(weights) == {"mlp": 2, "residual_block": 2, "cat_pool_net": 4}[name]
    assert all(isinstance(weight, Tensor) and weight.dtype == torch.int8 for weight in weights)
    kept = [name for name in quantized.state_dict() if name.endswith("weight")]
    assert kept == [], "the float originals are gone"


@pytest.mark.parametrize("name", MODELS)
def test_dropping_any_edge_changes_the_drawing(name: str) -> None:
    """A snapshot that could not fail would prove nothing."""
    from quantfx.passes.draw.dot import to_dot

    _, _, quantized = stages(name)
    drawing = to_dot(quantized)
    placeholder = quantized.graph.find_nodes(op="placeholder")[0]
    for node in list(quantized.graph.nodes):
        for producer in node.all_input_nodes:
            if producer is placeholder or producer.op == "get_attr":
                continue
            node.replace_input_with(producer, placeholder)
            assert to_dot(quantized) != drawing, f"{producer} -> {node}"
            node.replace_input_with(placeholder, producer)
    assert to_dot(quantized) == drawing
