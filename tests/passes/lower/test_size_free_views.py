"""Views of free sizes keep their values, and compute no sizes where they can do without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.backends.direct.region import Region
from quantfx.passes.lower.size_free_views import SizeFreeViews
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.tools.models.bert import Bert, BertConfig
from tests.export_cases import Net
from tests.unchecked import capture, quantize

X = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
FREE = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
NAMES = ("unflatten", "flatten")
VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "heads": (lambda x: x.view(x.shape[0], x.shape[1], 3, 4), ["unflatten"]),
    "the rest": (lambda x: x.reshape(x.shape[0], -1, 3, 2, 2), ["unflatten"]),
    "heads merged": (
        lambda x: torch.unflatten(x, 2, (3, 4)).reshape(x.shape[0], x.shape[1], 12),
        ["unflatten", "flatten"],
    ),
    "a product of sizes": (lambda x: x.reshape(x.shape[0] * x.shape[1], 12), ["flatten"]),
    "other factors": (
        lambda x: torch.unflatten(x, 2, (3, 4)).reshape(x.shape[0], x.shape[1], 2, 6),
        ["unflatten", "flatten", "unflatten"],
    ),
    "turned": (
        lambda x: torch.unflatten(x, 2, (3, 4)).transpose(1, 2).reshape(x.shape[0], 3, -1),
        ["unflatten", "flatten"],
    ),
    "part of a size": (
        lambda x: x.reshape(x.shape[0], x.shape[2] // 6, x.shape[1], 6),
        ["flatten", "unflatten"],
    ),
    "a number by arithmetic": (
        lambda x: x.reshape(x.shape[0], x.shape[1], x.shape[0] // x.shape[0] * 3, 4),
        ["unflatten"],
    ),
    "no dimension of its own": (lambda x: x.reshape(x.shape[1], x.shape[0], 12), []),
    "one more of 1": (lambda x: x.reshape(x.shape[0], x.shape[1], 12, 1), []),
}


@pytest.mark.parametrize("name", VIEWS)
def test_the_same_values_of_any_size(name: str) -> None:
    view, expected = VIEWS[name]
    model = Net(lambda x: view(x) * 2).eval()
    graph = Pipeline((SizeFreeViews(),)).run(capture(model, (X,), dynamic_shapes=FREE))
    for x in (X, OTHER):
        assert torch.equal(graph(x), model(x))
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    found = [str(each).split(".")[1] for each in targets if str(each).split(".")[1] in NAMES]
    assert found == expected
    sizes = sum("sym_size" in str(each) for each in targets)
    assert (sizes == 0) == bool(expected)


def test_known_sizes_stay() -> None:
    graph = capture(Net(lambda x: x.view(2, 6, 3, 4) * 2).eval(), (X,))
    assert str(Pipeline((SizeFreeViews(),)).run(graph).graph) == str(graph.graph)


def test_a_transformer_of_any_length_is_one_region() -> None:
    config = BertConfig(layers=2, hidden=32, heads=4, vocabulary=64, positions=32)
    tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
    inputs = (tokens, torch.ones_like(tokens))
    model: nn.Module = Bert(config).eval()
    backend = backends.get("x86", kernels="direct")
    result = quantize(model, inputs, backend=backend, dynamic_shapes=FREE * 2)
    assert sum(isinstance(each, Region) for each in result.module.modules()) == 1
    for length in (16, 9):
        given = [each[:1, :length] for each in inputs]
        for found, expected in zip(result.module(*given), result.quantized(*given), strict=True):
            assert (found - expected).abs().max() < 0.1 * expected.abs().max()
