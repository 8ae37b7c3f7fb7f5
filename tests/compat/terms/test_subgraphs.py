"""Loop bodies, branches and regions are quantized like the graph around them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.fx import GraphModule

from quantfx import compat
from quantfx.passes.graph.graphs import all_graphs
from tests.compat.sample import DQ_CHANNEL, Q, count, export, sqnr, x86

GENERATOR = torch.Generator().manual_seed(0)


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        def step(carry: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            out = self.linear(row)
            return carry + out, out

        outputs: Tensor = scan(step, init=x[0] * 0, xs=x, dim=0)[1]
        return outputs


class While(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        def more(count: Tensor, _: Tensor) -> Tensor:
            return count < 3

        def step(count: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return count + 1, self.linear(x)

        run: Any = while_loop
        result: Tensor = run(more, step, (torch.tensor(0), x))[1]
        return result


class Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 8)
        self.right = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.cond(x.sum() > 0, lambda x: self.left(x), lambda x: self.right(x), (x,))
        return y


@pytest.mark.parametrize("make", [Scan, While, Cond])
@torch.no_grad()
def test_nested_graphs_are_quantized(make: type[nn.Module]) -> None:
    x = torch.randn(3, 8, generator=GENERATOR).abs()
    model = make()
    prepared = compat.prepare_pt2e(export(model, x), x86())
    inner = [graph for path, graph in all_graphs(prepared) if path]
    observed = [any(n.op == "call_module" for n in graph.graph.nodes) for graph in inner]
    assert any(observed)
    for batch in (x, -x):
        prepared(batch)
    module = compat.convert_pt2e(prepared)
    assert isinstance(module, GraphModule)
    graphs = [graph for path, graph in all_graphs(module) if path]
    assert sum(count(graph, Q) for graph in graphs) > 0
    assert sum(count(graph, DQ_CHANNEL) for graph in graphs) == (2 if make is Cond else 1)
    assert sqnr(model(x), module(x)) > 30


@torch.no_grad()
def test_a_branch_that_never_ran_has_weights_all_the_same() -> None:
    x = torch.randn(3, 8, generator=GENERATOR).abs()
    prepared = compat.prepare_pt2e(export(Cond(), x), x86())
    prepared(x)
    module = compat.convert_pt2e(prepared)
    assert module(-x).shape == (3, 8)


@torch.no_grad()
def test_regions_of_autocast_are_entered() -> None:
    class Region(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.linear(x) + 1

    x = torch.randn(3, 8, generator=GENERATOR)
    model = Region()
    prepared = compat.prepare_pt2e(export(model, x), x86())
    prepared(x)
    module = compat.convert_pt2e(prepared)
    assert sum(count(graph, DQ_CHANNEL) for _, graph in all_graphs(module)) == 1
    assert sqnr(model(x).float(), module(x).float()) > 30
