"""The reference sees what it is known to see, under keys that survive a rewrite of the graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18, resnet50
from tests.export_cases import CASES
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.models.vit import vit_b_16
from tests.torchao_reference import (
    EdgeKey,
    EdgeSpec,
    annotate,
    annotated_edges,
    converted_counts,
    edge_keys,
)

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(1, 3, 32, 32, generator=GENERATOR)
ACTIVATION = EdgeSpec(torch.uint8, 0, 255, torch.per_tensor_affine, None)
WEIGHT = EdgeSpec(torch.int8, -128, 127, torch.per_channel_symmetric, 0)

Make = Callable[[], nn.Module]
# Annotated edges, then nodes of the q/dq graph: quantize, dequantize, dequantize per channel.
KNOWN: dict[str, tuple[Make, tuple[Tensor, ...], tuple[int, int, int, int]]] = {
    "mlp": (mlp, (torch.randn(2, 8, generator=GENERATOR),), (4, 2, 2, 2)),
    "residual": (residual_block, (IMAGE.view(3, 4, 16, 16),), (5, 2, 3, 2)),
    "cat_pool": (cat_pool_net, (IMAGE,), (14, 9, 10, 4)),
    "resnet18": (lambda: resnet18((1, 1), width=8), (IMAGE,), (19, 10, 12, 7)),
    "resnet50": (lambda: resnet50((1, 1), width=8), (IMAGE,), (25, 13, 15, 10)),
    "mobilenet_v2": (lambda: mobilenet_v2(STAGES[:3], last=64), (IMAGE,), (44, 22, 25, 20)),
    "vit": (lambda: vit_b_16(2, 64, 4, image=32), (IMAGE,), (20, 10, 10, 10)),
    "bert": (lambda: bert(BERT_TINY), bert_inputs(BERT_TINY), (26, 9, 13, 13)),
}


SWEPT = ("resnet50", "mobilenet_v2", "vit")  # whose operators the others have


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.sweep) if name in SWEPT else name for name in KNOWN],
)
def test_counts(name: str) -> None:
    make, inputs, expected = KNOWN[name]
    model = make()
    edges = annotated_edges(model, inputs)
    counts = converted_counts(model, inputs, [inputs])
    assert set(edges.values()) == {ACTIVATION, WEIGHT}
    assert expected == (
        len(edges),
        counts["quantize_per_tensor"],
        counts["dequantize_per_tensor"],
        counts["dequantize_per_channel"],
    )


def test_edges_and_sharing_of_a_residual_network() -> None:
    annotations = annotate(resnet18((1,), width=8), (IMAGE,))
    assert annotations.edges == {
        ("conv2d", 0, "0"): ACTIVATION,
        ("conv2d", 0, "1"): WEIGHT,
        ("max_pool2d", 0, "0"): ACTIVATION,
        ("conv2d", 1, "0"): ACTIVATION,
        ("conv2d", 1, "1"): WEIGHT,
        ("conv2d", 2, "0"): ACTIVATION,
        ("conv2d", 2, "1"): WEIGHT,
        ("add", 0, "1"): ACTIVATION,
        ("adaptive_avg_pool2d", 0, "0"): ACTIVATION,
        ("flatten", 0, "0"): ACTIVATION,
        ("linear", 0, "0"): ACTIVATION,
        ("linear", 0, "1"): WEIGHT,
    }
    pools = ("max_pool2d", "adaptive_avg_pool2d", "flatten")
    assert annotations.shared == {(pool, 0, "out"): (pool, 0, "0") for pool in pools}


def test_keys_survive_renaming_folding_and_functionalization() -> None:
    model, inputs = residual_block(), (IMAGE.view(3, 4, 16, 16),)
    as_exported = set(edge_keys(_export(model, inputs).graph).values())
    rewritten = _export(model, inputs)
    for node in list(rewritten.graph.nodes):
        node.name = f"renamed_{node.name}"
        if node.target is torch.ops.aten.batch_norm.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is torch.ops.aten.add_.Tensor:
            node.target = torch.ops.aten.add.Tensor
    rewritten.graph.eliminate_dead_code()
    folded = {key for key in as_exported if key.kind == "batch_norm"}
    assert set(edge_keys(rewritten.graph).values()) == as_exported - folded
    assert EdgeKey("add", 0, "1") in as_exported


def test_keys_reach_into_lists_and_leave_dead_code_out() -> None:
    cat = edge_keys(_export(cat_pool_net(), (IMAGE,)).graph).values()
    assert {("cat", 0, "0.0"), ("cat", 0, "0.1")} <= set(cat)
    dead = CASES["dead_code"]
    convs = {key.nth for key in edge_keys(_export(dead.make(), dead.inputs).graph).values()}
    assert convs == {0}


def test_reference_leaves_inductor_as_it_was() -> None:
    before = torch._inductor.config.pre_grad_custom_pass
    annotated_edges(mlp(), KNOWN["mlp"][1])
    assert torch._inductor.config.pre_grad_custom_pass is before


def _export(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule:
    module = torch.export.export(model, inputs).module(check_guards=False)
    assert isinstance(module, GraphModule)
    return module
