"""What transformers do between products: averages over tokens, heads, torch's own attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.tools.models.seeded import seeded
from tests import unchecked


class Between(nn.Module):
    """Something between two linears."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(16, 24), nn.Linear(width, 8), between

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.last(self.between(self.first(x)))


class Attending(nn.Module):
    """torch's own attention, and an average over its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        x = self.norm(x)
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


@pytest.mark.parametrize(
    ("between", "width", "shape"),
    [
        (lambda y: y.mean(1), 24, (4, 7, 16)),
        (lambda y: y.mean(0, keepdim=True), 24, (4, 7, 16)),
        (lambda y: y.mean(-1, keepdim=True).expand(4, 7, 24), 24, (4, 7, 16)),
        (lambda y: y.relu().mean((2, 1)), 24, (4, 7, 5, 16)),
        (lambda y: y.mean((0, 2), keepdim=True), 24, (4, 7, 5, 16)),
        (lambda y: y.unflatten(-1, (3, -1)).transpose(-1, -2), 3, (4, 7, 16)),
    ],
    ids=["tokens", "rows", "channels", "places", "rows-and-places", "heads"],
)
def test_averages_and_heads_are_part_of_a_region(
    between: Callable[[Tensor], Tensor], width: int, shape: tuple[int, ...]
) -> None:
    agrees_in_one_region(seeded(lambda: Between(between, width)), torch.randn(shape))


def test_torch_attention_is_part_of_a_region() -> None:
    agrees_in_one_region(seeded(Attending), torch.randn(2, 6, 16))


def agrees_in_one_region(model: nn.Module, x: Tensor) -> None:
    result = unchecked.quantize(model, (x,), calibration=[x], backend=backends.get("x86"))
    assert len(result.module.graph.find_nodes(op="call_module")) == 1
    assert not [node for node in result.module.graph.nodes if "aten" in str(node.target)]
    expected, found = result.quantized(x), result.module(x)
    # One code of the last linear's input may be another, where a rounding is a tie.
    torch.testing.assert_close(found, expected, rtol=0, atol=float(expected.abs().max()) / 100)
    assert all(each.within(1, 1e-5) for each in result.compare_sites(x))
