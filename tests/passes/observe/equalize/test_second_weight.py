"""The weight of a grouped convolution, seen by its input channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.passes.observe.equalize.second_weight import SecondWeight
from quantfx.tools.models.seeded import seeded
from tests import unchecked

X = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0.5, 2, 6, dtype=torch.float64)


def test_channels_of_each_group_are_its_own() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(6, 9, 3, groups=3)))
    graph = unchecked.capture(model, (X,))
    (node,) = (each for each in graph.graph.nodes if each.name == "conv2d")
    weight = SecondWeight.of(graph, node)
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    for channel in range(6):
        group, place = divmod(channel, 2)
        read: Tensor = conv.weight[3 * group : 3 * group + 3, place].detach().double()
        assert torch.equal(weight.squares[channel], read.square().flatten())
    with torch.no_grad():
        exact = conv(X)
        conv.weight.copy_(weight.times(SCALE))
        torch.testing.assert_close(conv(X / SCALE.float().reshape(1, -1, 1, 1)), exact)
