"""A graph with numbers in the place of free sizes is the one that an export for them gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from quantfx.passes.capture.capture import capture
from quantfx.passes.export.concrete_sizes import NotConcreteError, make_concrete
from quantfx.passes.export.export_graph import export_graph
from tests.export_cases import Net


def attention(x: Tensor) -> Tensor:
    heads = x.view(x.size(0), 3, 2, 4).transpose(1, 2)
    y = F.scaled_dot_product_attention(heads, heads, heads)
    return y.transpose(1, 2).reshape(x.shape[0], -1)


def positions(x: Tensor) -> Tensor:
    return x + torch.arange(x.shape[0]).view(-1, 1, 1) * x.shape[0]


def sliced(x: Tensor) -> Tensor:
    return torch.cat([x[:, 0], x[:, 1:, 2][:, :1], x[-1:].expand(x.shape[0], -1, -1)[:, 2]], 1)


def strided(x: Tensor) -> Tensor:
    return x[1:].transpose(1, 2).as_strided((2, 3), (2, 1), x.stride(0)) + x.mean()


def asserted(x: Tensor) -> Tensor:
    check: Any = torch._check  # which has no types
    check(x.shape[0] < 100)
    return x.flatten().reshape(x.shape[0] * 3, 8)


def images(x: Tensor) -> Tensor:
    y = F.conv2d(x.unsqueeze(1), torch.ones(4, 1, 2, 3), padding=1)
    y = y.to(memory_format=torch.channels_last)
    return F.adaptive_avg_pool2d(F.interpolate(y, scale_factor=2), 1).flatten(1)


FUNCTIONS: list[Callable[[Tensor], Any]] = [attention, positions, sliced, strided, asserted, images]


def described(module: GraphModule) -> list[tuple[Any, ...]]:
    """Return what each node computes, of which, and in what form."""
    places = {node: place for place, node in enumerate(module.graph.nodes)}

    def known(value: Any) -> Any:
        return torch.fx.node.map_arg(value, lambda node: places[node])

    def form(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape), value.stride(), value.storage_offset(), value.dtype
        return value

    return [
        (node.op, str(node.target), known(node.args), known(node.kwargs), form(node.meta["val"]))
        if "val" in node.meta
        else (node.op, str(node.target), known(node.args))
        for node in module.graph.nodes
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rows", [4, 3])
def test_the_graph_is_that_of_an_export_for_the_example(
    function: Callable[[Tensor], Any], rows: int
) -> None:
    model = Net(function).eval()
    x, other = torch.randn(rows, 3, 8), torch.randn(4, 3, 8)
    symbolic = export_graph(model, (other,), None, ({0: Dim.AUTO},))
    name = str(symbolic.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0])
    used = make_concrete(symbolic, {name: rows})
    assert used == (frozenset() if function in (strided, images) else frozenset({name}))
    expected = export_graph(model, (x,), None, None)
    assert described(symbolic) == described(expected)
    symbolic.recompile()
    with torch.no_grad():
        torch.testing.assert_close(symbolic(x), model(x))


def test_sizes_that_depend_on_data_are_no_numbers() -> None:
    model, x = Net(lambda x: x[x > 0]).eval(), torch.randn(4, 3)
    symbolic = export_graph(model, (x,), None, ({0: Dim.AUTO},))
    name = str(symbolic.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0])
    with pytest.raises(NotConcreteError):
        make_concrete(symbolic, {name: 4})


def test_sizes_that_would_be_negative_for_the_example_are_no_numbers() -> None:
    model, x = Net(lambda x: x[-2:]).eval(), torch.randn(4, 3)
    graph = capture(model, (x[:1],))
    with torch.no_grad():
        for rows in (1, 2, 4):
            torch.testing.assert_close(graph(x[:rows]), model(x[:rows]))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_capture_exports_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantfx.passes.capture import capture as capturing

    count: list[Any] = []

    def counted(*args: Any) -> GraphModule:
        count.append(args)
        return export_graph(*args)

    monkeypatch.setattr(capturing, "export_graph", counted)
    graph = capturing.capture(nn.Linear(8, 8).eval(), (torch.randn(rows, 8),))
    assert len(count) == 1
    assert graph(torch.randn(1, 8)).shape == (1, 8)
    assert graph(torch.randn(7, 8)).shape == (7, 8)
