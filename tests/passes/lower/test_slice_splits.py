"""Splits become slices, of the same values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from quantfx import capture
from quantfx.passes.lower.slice_splits import SliceSplits
from quantfx.passes.pipeline.pipeline import Pipeline

X = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
SPLITS: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
    "chunk": lambda x: x.chunk(3, 1),
    "split": lambda x: torch.split(x, 2, dim=-2),
    "sizes": lambda x: torch.split(x, [3, 4], 1),
    "unbind": lambda x: x.unbind(1),
}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_are_looks_at_the_same_values(name: str) -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        first, *others = SPLITS[name](x)
        return (first * 2, others[-1] + 1, first)

    graph = capture(model, (X,))
    sliced = Pipeline((SliceSplits(),)).run(graph)
    names = {str(node.target) for node in sliced.graph.nodes if node.op == "call_function"}
    look = "aten.select.int" if name == "unbind" else "aten.slice.Tensor"
    assert names == {look, "aten.mul.Tensor", "aten.add.Tensor"}
    for found, expected in zip(sliced(X), model(X), strict=True):
        assert torch.equal(found, expected)


def test_a_list_that_is_read_as_such_and_free_sizes_stay() -> None:
    free = {"x": {1: torch.export.Dim.AUTO}}
    graph = capture(lambda x: x.chunk(3, 1)[0], (X,), dynamic_shapes=free)
    assert str(Pipeline((SliceSplits(),)).run(graph).graph) == str(graph.graph)
    rows = capture(
        lambda x: torch.split(x, [3, 4], 1)[1] + 1, (X,), dynamic_shapes={"x": {0: free["x"][1]}}
    )
    sliced = Pipeline((SliceSplits(),)).run(rows)
    assert torch.equal(sliced(X[:1]), X[:1, 3:] + 1)
    assert "slice" in str(sliced.graph)
