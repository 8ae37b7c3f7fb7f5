"""Models that change their own buffers: nobody else's copy changes with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.graph.state import own_state, preserved_state

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Multiplies by how often it was called."""

    n: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.n.add_(1)
        return self.linear(x) * self.n


def count(module: nn.Module) -> float:
    return float(dict(module.named_buffers())["n"])


def test_calibration_and_compiling_leave_the_state_as_it_was() -> None:
    model = Counting().eval()
    graph = quantfx.capture(model, (X,))
    backend = quantfx.backends.get("x86", target="any")
    prepared = backend.prepare(graph)
    quantfx.calibrate(prepared, [X, X, X])
    quantized = backend.convert(prepared)
    assert [count(m) for m in (model, graph, prepared, quantized)] == [0, 0, 0, 0]
    quantized(X)
    assert [count(m) for m in (model, graph, prepared, quantized)] == [0, 0, 0, 1]
    result = quantfx.quantize(model, (X,), calibration=[X])
    compiled = result.compile()
    assert count(result.quantized) == 0
    torch.testing.assert_close(compiled(X), model.linear(X), atol=0.1, rtol=0.1)


def test_state_is_put_back_even_after_an_error() -> None:
    graph = quantfx.capture(Counting().eval(), (X,))
    try:
        with preserved_state(graph):
            graph(X)
            raise ValueError
    except ValueError:
        assert count(graph) == 0


def test_only_what_is_written_to_is_copied() -> None:
    graph = quantfx.capture(Counting().eval(), (X,))
    before = {name: id(tensor) for name, tensor in graph.named_buffers()}
    weights = {name: id(tensor) for name, tensor in graph.named_parameters()}
    own_state(graph)
    assert {name: id(tensor) for name, tensor in graph.named_parameters()} == weights
    assert [name for name, tensor in graph.named_buffers() if id(tensor) != before[name]] == ["n"]
