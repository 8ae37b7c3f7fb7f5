"""Patches are what the operator multiplies its weight with: their product is its result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.observe.statistics.patches import LEAST_ROWS, Patches
from quantfx.tools.models.seeded import seeded
from tests.unchecked import capture


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def layer(graph: GraphModule) -> tuple[Node, Patches]:
    found = [(node, Patches.of(graph, node)) for node in graph.graph.nodes]
    [(node, patches)] = [(node, patches) for node, patches in found if patches is not None]
    return node, patches


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(5, 3), randn(4, 6, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), randn(2, 4, 9)),
    "conv2d": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        randn(2, 4, 7, 8),
    ),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2), randn(2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), randn(2, 4, 5, 5)),
    "same": (lambda: nn.Conv2d(3, 4, (2, 3), padding="same"), randn(2, 3, 5, 4)),
    "without a batch": (lambda: nn.Conv2d(3, 4, 3, padding=1), randn(3, 5, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1), randn(2, 2, 4, 5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weight_is_the_result(name: str) -> None:
    make, x = LAYERS[name]
    module = seeded(make)
    _, patches = layer(capture(module, (x,)))
    weight, bias = (value.detach() for value in module.parameters())
    rows = patches.cut(x, offset=7)
    assert rows.shape[0] == patches.groups
    assert rows.shape[2] == patches.length == weight[0].numel()
    product = rows @ weight.reshape(patches.groups, -1, patches.length).transpose(1, 2)
    got = product.transpose(0, 1).flatten(1) + bias
    with torch.no_grad():
        out = module(x)
    out = out if name == "linear" else out.movedim(1 if out.dim() == x.dim() > 3 else 0, -1)
    if name == "conv1d":
        out = module(x).detach().movedim(1, -1)
    torch.testing.assert_close(got, out.reshape(got.shape))


def test_more_patches_are_taken_of_longer_ones() -> None:
    largest = [Patches(length).largest for length in (9, 300, 1100, 5000)]
    assert largest == [LEAST_ROWS, 1200, 2200, 4000]


def test_transposed_convolutions_and_computed_weights_have_none() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 2, 2)

        def forward(self, x: Tensor, w: Tensor) -> Tensor:
            return F.conv2d(self.up(x), w)

    graph = capture(seeded(Net), (randn(1, 2, 4, 4), randn(2, 2, 1, 1)))
    assert all(Patches.of(graph, node) is None for node in graph.graph.nodes)


def test_of_many_patches_some_are_taken_from_all_columns() -> None:
    # Of 8 * 128 * 128 patches every 512th would be of the same column.
    x = torch.arange(128.0).expand(8, 1, 128, 128)
    _, patches = layer(capture(nn.Conv2d(1, 1, 1).eval(), (x,)))
    first, second = patches.cut(x, 0).flatten(), patches.cut(x, 1).flatten()
    assert LEAST_ROWS * 0.9 < len(first) <= LEAST_ROWS
    assert len(set(first.tolist())) > 100
    assert not torch.equal(first, second[: len(first)])
    torch.testing.assert_close(first.mean(), x.mean(), rtol=0.1, atol=0)
