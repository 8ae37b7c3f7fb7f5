"""With the ``pt2e`` set, x86 annotates and converts exactly what torchao's X86InductorQuantizer does.

torchao sees dropout as an operator, so our side keeps it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from quantfx.backends.x86 import x86
from quantfx.passes.capture.canonicalize import CANONICALIZE
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.loader import load
from quantfx.patterns.schema import arguments, is_operator_call, overload
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18, resnet50
from tests.models.densenet import densenet121
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.models.vit import vit_b_16
from tests.torchao_reference import (
    EdgeKey,
    EdgeSpec,
    annotated_edges,
    converted,
    converted_counts,
    edge_keys,
)
from tests.unchecked import capture

BACKEND = x86(patterns=load("pt2e"), observer="histogram", weight_observer="min_max")
Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]


def image(channels: int, side: int) -> tuple[Tensor]:
    return (torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0)),)


TINY_BERT = BertConfig(layers=2, hidden=32, heads=2, vocabulary=50, positions=16)
SMALL: dict[str, Case] = {
    "mlp": (mlp, (image(1, 8)[0][0, 0],)),
    "residual_block": (residual_block, image(4, 8)),
    "cat_pool_net": (cat_pool_net, image(3, 16)),
    "resnet18": (lambda: resnet18((1, 1), width=8, classes=10), image(3, 32)),
    "resnet50": (lambda: resnet50(depths=(1, 1, 1, 1), width=8, classes=10), image(3, 32)),
    "mobilenet_v2": (lambda: mobilenet_v2(STAGES[:3], last=32, classes=10), image(3, 32)),
    "densenet": (lambda: densenet121(depths=(2, 2), growth=4, classes=10), image(3, 32)),
    "vit": (lambda: vit_b_16(2, 32, 2, image=32, patch=16, classes=10), image(3, 32)),
    "bert": (lambda: bert(TINY_BERT), bert_inputs(TINY_BERT, 1, 8)),
}
LARGE: dict[str, Case] = {
    "resnet50": (resnet50, image(3, 224)),
    "mobilenet_v2": (mobilenet_v2, image(3, 224)),
    "densenet121": (densenet121, image(3, 224)),
    "vit_b_16": (vit_b_16, image(3, 224)),
    "bert_base": (bert, bert_inputs(BertConfig(), 1, 32)),
}


def captured(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule:
    return capture(model, inputs, pipeline=CANONICALIZE.without("remove-dropout"))


def our_edges(graph: GraphModule) -> dict[EdgeKey, EdgeSpec]:
    prepared = BACKEND.prepare_pipeline.upto("share").run(graph, BACKEND.context)
    keys = edge_keys(prepared.graph)
    edges: dict[EdgeKey, EdgeSpec] = {}
    for node in prepared.graph.nodes:
        annotation = annotation_of(node)
        for slot, spec in annotation.inputs if annotation else ():
            assert isinstance(spec, QuantSpec)
            name, dot, index = slot.partition(".")
            position = f"{arguments(overload(node))[name].position}{dot}{index}"
            scheme = torch.per_channel_symmetric if spec.symmetric else torch.per_tensor_affine
            edges[keys[node.name, position]] = EdgeSpec(
                spec.dtype, spec.quant_min, spec.quant_max, scheme, spec.axis
            )
    return edges


def our_counts(graph: GraphModule, inputs: tuple[Tensor, ...]) -> Counter[str]:
    prepared = BACKEND.prepare(graph)
    calibrate(prepared, [inputs])
    nodes: Any = BACKEND.convert(prepared).graph.nodes
    names = (str(node.target).split(".")[1] for node in nodes if is_operator_call(node))
    return Counter(name for name in names if "quantize_per" in name)


# The full ones are swept as well; the residual block has all that a small resnet18 has.
SWEPT = ("resnet18", "resnet50", "mobilenet_v2", "densenet", "vit")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.sweep] if name in SWEPT else [])
        for name, case in SMALL.items()
    ],
)
def test_edges_and_counts(case: Case) -> None:
    check_edges_and_counts(*case)


def check_edges_and_counts(make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> None:
    graph, theirs = captured(make(), inputs), make()
    assert our_edges(graph) == annotated_edges(theirs, inputs)
    assert our_counts(graph, inputs) == converted_counts(theirs, inputs, [inputs])


def our_linears(model: nn.Module, inputs: tuple[Tensor, ...], mode: str) -> GraphModule:
    modes = load("linear_modes").without("linear_weight_only")
    backend = x86(
        patterns=load("pt2e") | modes, observer="histogram", weight_observer="min_max"
    ).with_config(mode)
    return backend.convert(backend.prepare(captured(model, inputs)))


def linear_ops(module: GraphModule) -> Counter[str]:
    names = (str(n.target).split(".")[1] for n in module.graph.nodes if is_operator_call(n))
    return Counter(name for name in names if "quantize_per" in name or "choose" in name)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("bert", "dynamic"),
        ("mlp", "fp16"),
        pytest.param("mlp", "dynamic", marks=pytest.mark.sweep),
        pytest.param("bert", "fp16", marks=pytest.mark.sweep),
    ],
)
def test_linears_of_other_modes(name: str, mode: Literal["dynamic", "fp16"]) -> None:
    """Of models whose only matches are linears: torchao's dynamic mode takes convolutions too."""
    make, inputs = SMALL[name]
    model = make()
    ours = our_linears(model, inputs, mode)
    theirs = converted(model, inputs, [inputs], mode)  # a call, by which it observes weights
    assert linear_ops(ours) == linear_ops(theirs)
    first, second = (leaves(module(*inputs)) for module in (ours, theirs))
    for mine, reference in zip(first, second, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def leaves(outputs: Any) -> list[Tensor]:
    return [each for each in tree_leaves(outputs) if isinstance(each, Tensor)]


@pytest.mark.sweep
@pytest.mark.parametrize("case", LARGE.values(), ids=list(LARGE))
def test_edges_and_counts_of_large_networks(case: Case) -> None:
    check_edges_and_counts(*case)
