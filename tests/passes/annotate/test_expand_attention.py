"""Attention spelled out for int8: the same function, and which of its tensors are rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx import Config
from quantfx.backends import Backend
from quantfx.backends.x86 import pattern_set, x86
from quantfx.passes.annotate.expand_attention import ATTENTION
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.report.contract import find_skipped
from tests.refusals import refused
from tests.unchecked import capture, convert

ATTENTION_NAME = "scaled_dot_product_attention"
ASKED = Config().op(ATTENTION_NAME, "static")
QUERY, KEY = (2, 4, 5, 8), (2, 4, 7, 8)
GROUPED, ONE_HEAD, WIDE = (2, 2, 7, 8), (2, 1, 7, 8), (2, 4, 7, 12)


def backend(config: Config = ASKED) -> Backend:
    """Return x86 with the templates of plans, also where plans cannot run."""
    return x86(patterns=pattern_set(plans=True)).with_config(config)


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, mask, **self.options)


def heads(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def expanded(model: nn.Module, inputs: tuple[Tensor, ...], **how: Any) -> GraphModule:
    """Return the annotated float graph of a model whose attention is spelled out."""
    chosen = backend()
    graph = capture(model.eval(), inputs, **how)
    prepared = chosen.prepare_pipeline.upto("share").run(graph, chosen.context)
    assert not prepared.graph.find_nodes(op="call_function", target=ATTENTION)
    planned = [node.name for node in prepared.graph.nodes if annotation_of(node)]
    assert [name.rpartition("_")[2] for name in planned] == ["scores", "result"]
    return prepared


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((QUERY, KEY, KEY), {}),
    ((QUERY, KEY, WIDE), {"scale": 0.3}),
    ((QUERY, KEY, KEY), {"is_causal": True}),
    ((KEY, QUERY, QUERY), {"is_causal": True}),
    ((QUERY, GROUPED, GROUPED), {"enable_gqa": True}),
    ((QUERY, GROUPED, GROUPED), {"enable_gqa": True, "is_causal": True}),
    ((QUERY, ONE_HEAD, ONE_HEAD), {"enable_gqa": True}),
    ((QUERY, KEY, KEY), {"enable_gqa": True}),
    (((3, 5, 8), (3, 7, 8), (3, 7, 8)), {}),
    (((5, 8), (7, 8), (7, 8)), {}),
    ((QUERY, (1, 1, 7, 8), (1, 1, 7, 8)), {}),
]


@pytest.mark.parametrize(("shapes", "options"), CALLS, ids=str)
def test_it_keeps_the_float_function(shapes: Any, options: dict[str, Any]) -> None:
    model, inputs = Attention(**options), heads(*shapes)
    found = expanded(model, inputs)(*inputs)
    torch.testing.assert_close(found, model(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("key", [KEY, GROUPED], ids=["", "grouped"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 1, 1, 7), (2, 4, 5, 7)])
def test_masks(shape: tuple[int, ...], key: tuple[int, ...], kind: str) -> None:
    keeps = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    keeps.view(-1, shape[-1])[0] = False  # a row of nothing yields zeros
    mask = keeps if kind == "bool" else torch.zeros(shape).masked_fill(~keeps, -torch.inf)
    model, inputs = Attention(enable_gqa=key != KEY), (*heads(QUERY, key, key), mask)
    found = expanded(model, inputs)(*inputs)
    torch.testing.assert_close(found, model(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}], ids=str)
def test_a_free_length(options: dict[str, Any]) -> None:
    model = Attention(**options)
    length = torch.export.Dim("length", min=2, max=64)
    graph = expanded(model, heads(KEY, KEY, KEY), dynamic_shapes=({2: length},) * 3)
    for shape in (KEY, (2, 4, 19, 8)):
        inputs = heads(shape, shape, shape)
        torch.testing.assert_close(graph(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)


def test_a_free_width_needs_a_scale() -> None:
    width = torch.export.Dim("width", min=2, max=64)
    free = ({3: width},) * 3
    graph = capture(Attention().eval(), heads(KEY, KEY, KEY), dynamic_shapes=free)
    with refused("nothing-to-quantize", says="the width of its heads is free"):
        backend().prepare(graph)
    expanded(Attention(scale=0.5), heads(KEY, KEY, KEY), dynamic_shapes=free)


def test_keys_and_values_need_as_many_heads() -> None:
    graph = capture(Attention(enable_gqa=True).eval(), heads(QUERY, ONE_HEAD, GROUPED))
    with refused("nothing-to-quantize", says="its numbers of heads are 4, 1, 2"):
        backend().prepare(graph)


def test_it_is_left_alone_unless_asked_for() -> None:
    model = OfItself().eval()
    chosen = backend(Config())
    graph = chosen.prepare(capture(model, heads(KEY)))
    assert graph.graph.find_nodes(op="call_function", target=ATTENTION)
    reasons = {each.node: each.message for each in find_skipped(graph, chosen.recipe)}
    assert "config.op('scaled_dot_product_attention', 'static')" in reasons[ATTENTION_NAME]


def test_without_plans_it_is_refused_by_name() -> None:
    graph = capture(OfItself().eval(), heads(KEY))
    with refused("no-template", says="prepared plans compute its two products, on request"):
        x86(kernels="onednn").with_config(ASKED).prepare(graph)


def test_dropout_is_left_alone() -> None:
    model = OfItself(dropout_p=0.1).eval()
    chosen = backend()
    graph = chosen.prepare(capture(model, heads(KEY)))
    assert graph.graph.find_nodes(op="call_function", target=ATTENTION)
    reasons = {each.node: each.message for each in find_skipped(graph, chosen.recipe)}
    assert "0.1" in reasons[ATTENTION_NAME]


class OfItself(nn.Module):
    """A linear, so that there is something to quantize, and attention."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.linear, self.attention = nn.Linear(8, 8), Attention(**options)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        attended: Tensor = self.attention(y, y, y)
        return attended


def test_specs_come_from_the_annotation() -> None:
    """Changes of one operand reach that operand; those of the query the weights as well."""
    config = ASKED.tensor(f"{ATTENTION_NAME}.query", quant_max=200).tensor(
        f"{ATTENTION_NAME}.value", quant_max=127
    )
    chosen = backend(config)
    graph = chosen.prepare_pipeline.upto("share").run(
        capture(Attention().eval(), heads(QUERY, KEY, KEY)), chosen.context
    )
    high = {
        (node.name.rpartition("_")[2], slot): spec.quant_max
        for node in graph.graph.nodes
        for slot, spec in getattr(annotation_of(node), "inputs", ())
    }
    assert high == {
        ("scores", "self"): 200,
        ("scores", "other"): 255,
        ("result", "self"): 200,
        ("result", "other"): 127,
    }


def test_the_graph_is_drawn(graph_snapshot: SnapshotAssertion) -> None:
    inputs = (*heads(QUERY, GROUPED, GROUPED), torch.ones(5, 7, dtype=torch.bool))
    assert convert(Attention(enable_gqa=True).eval(), inputs, backend()) == graph_snapshot
