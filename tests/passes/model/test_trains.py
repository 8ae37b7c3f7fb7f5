from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.passes.model.trains import trains

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Standardized(nn.Conv2d):
    """A convolution whose weight a batch norm standardizes, as timm writes it."""

    def forward(self, input: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
        return F.conv2d(input, weight, self.bias)


def found(model: nn.Module) -> list[str]:
    graph = torch.export.export(model, (IMAGE,)).module().graph
    return [what for node in graph.nodes if (what := trains(node))]


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.BatchNorm2d(3), "a batch norm"),
        (nn.Dropout(0.5), "a dropout"),
        (nn.Dropout2d(0.5), "a dropout"),
    ],
)
def test_a_layer_of_training_is_told(layer: nn.Module, what: str) -> None:
    assert found(nn.Sequential(layer).train()) == [what]
    assert found(nn.Sequential(layer).eval()) == []


def test_a_batch_norm_without_running_statistics_has_one_mode() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    for training in (True, False):
        assert found(nn.Sequential(Standardized(3, 4, 3), norm).train(training)) == []
