"""Layouts of a graph's values, which are those of the kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule, Interpreter

from quantfx.backends.direct.rules import shapes
from quantfx.backends.direct.rules.shapes import shapes_of
from quantfx.patterns.schema import resolve_op

X = torch.randn(2, 6, 8, 8)
LAYOUTS = {
    "contiguous": X,
    "channels-last": X.contiguous(memory_format=torch.channels_last),
    "one": X[:1],
    "part": X[:, 1:3],
    "behind": X[1:],
    "turned": X.permute(0, 2, 1, 3),
    "places of one": torch.randn(2, 6, 1, 1).contiguous(memory_format=torch.channels_last),
    "expanded": torch.randn(1, 6, 1, 1).expand(2, 6, 4, 4),
    "row": torch.randn(7),
    "number": torch.tensor(1.0),
    "empty": torch.randn(0, 4),
}


def graph_of(name: str) -> GraphModule:
    graph = Graph()
    made = graph.call_function(resolve_op(f"aten.{name}.default"), (graph.placeholder("x"),))
    graph.output(made)
    return GraphModule(nn.Module(), graph)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["relu", "hardtanh", "gelu"])
def test_what_is_not_run_is_laid_out_as_if_it_were(name: str, layout: str) -> None:
    x = LAYOUTS[layout]
    module = graph_of(name)
    empty = torch.empty_strided(x.shape, x.stride(), device="meta")
    source, found, _ = shapes_of(module, [empty]).values()
    expected = Interpreter(module).run(empty)
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())
    assert (found.dtype, found.storage_offset()) == (torch.float32, 0)
    assert found is not source


def test_the_last_layouts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = graph_of("relu")
    small, large = (torch.empty(1, side, side, device="meta") for side in (3, 4))
    assert [x.shape[-1] for x in shapes_of(module, [small]).values()] == [3, 3, 3]
    assert [x.shape[-1] for x in shapes_of(module, [large]).values()] == [4, 4, 4]
    nodes = list(module.graph.nodes)
    with monkeypatch.context() as patched:
        patched.delattr(shapes, "_Shapes")
        assert list(shapes_of(module, [large])) == nodes
    assert [x.shape[-1] for x in shapes_of(module, [small]).values()] == [3, 3, 3]
