"""Plain drawings change with the graph, and with nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.draw import style
from quantfx.passes.draw.dot import to_dot
from quantfx.passes.draw.plain import to_plain_dot
from quantfx.passes.graph.clone import clone
from quantfx.passes.quant.annotation import GROUP_KEY, META_KEY
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR
from tests import unchecked
from tests.models.small import residual_block

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def quantized() -> GraphModule:
    return unchecked.convert(residual_block(), (X,), x86())


def mutations(module: GraphModule) -> Iterator[tuple[str, GraphModule]]:
    first = module.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)[0].name

    def changed(name: str = first) -> tuple[GraphModule, torch.fx.Node]:
        copy = clone(module)
        return copy, next(node for node in copy.graph.nodes if node.name == name)

    copy, node = changed()
    node.update_arg(1, float(node.args[1]) * 1.1)  # type: ignore[arg-type]
    yield "scale", copy
    copy, node = changed()
    node.update_arg(2, 7)
    yield "zero point", copy
    copy, add = changed("add")
    add.update_arg(1, add.args[0])
    yield "edge", copy
    copy, relu = changed("relu")
    del relu.meta[META_KEY]
    yield "match", copy


def test_every_change_of_the_graph_shows(quantized: GraphModule) -> None:
    plain = to_plain_dot(quantized)
    for what, mutated in mutations(quantized):
        assert to_plain_dot(mutated) != plain, what


def test_another_group_shows_where_the_numbers_are_the_same(quantized: GraphModule) -> None:
    texts: list[str] = []
    for group in ("one", "another"):
        copy = clone(quantized)
        nodes = copy.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
        for node, name in zip(nodes, ("one", group), strict=True):
            node.args = (node.args[0], 0.5, 3, *node.args[3:])
            node.meta[GROUP_KEY] = name
        texts.append(to_plain_dot(copy))
    assert texts[0] != texts[1]


def test_a_hue_changes_the_drawing_and_not_the_text(quantized: GraphModule) -> None:
    plain, drawn = to_plain_dot(quantized), to_dot(quantized)
    with mock.patch.dict(style.HEADER["node"], color="#000000"):
        assert to_plain_dot(quantized) == plain
        assert to_dot(quantized) != drawn


def test_a_line_a_node_and_a_line_an_edge(quantized: GraphModule) -> None:
    lines = to_plain_dot(quantized).splitlines()
    assert lines[0] == "digraph {"
    assert lines[-1] == "}"
    assert '  "x:q" [label="q u8; scale ' in to_plain_dot(quantized)
    assert '    "x:q" -> "conv1.0/conv2d" [label="dequantize as x"]' in lines
    assert max(map(len, lines)) < 130
