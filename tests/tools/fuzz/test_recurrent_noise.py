"""Recurrent layers, step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx.tools.fuzz.expected_noise import is_recurrent, run_rounded
from tests import unchecked


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(8, 5, 2, bidirectional=True, proj_size=3),
        nn.GRU(8, 5, 2, bidirectional=True, batch_first=True),
        nn.RNN(8, 5, bias=False),
        nn.GRUCell(8, 5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_without_rounding_it_is_the_layer(layer: nn.Module) -> None:
    x = torch.randn(3, 8) if isinstance(layer, nn.RNNCellBase) else torch.randn(4, 3, 8)
    graph = unchecked.capture(layer.eval(), (x,))
    [node] = filter(is_recurrent, graph.graph.nodes)
    kept: list[Any] = []

    class Kept(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            if n is node:
                kept.extend(self.fetch_args_kwargs_from_env(n))
            return super().run_node(n)

    with torch.no_grad():
        Kept(graph).run(x, enable_io_processing=False)
        args, kwargs = kept
        made = run_rounded(node, args, kwargs, lambda rows: rows)
        expected = layer(x)
    first, wanted = (each if isinstance(each, Tensor) else each[0] for each in (made, expected))
    assert torch.allclose(first, wanted, atol=1e-6)
