"""Networks of a few operators, whose graphs fit in a snapshot that a person reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.models.resnet import BasicBlock
from quantfx.tools.models.seeded import seeded


class CatPoolNet(nn.Module):
    """Two convolution branches -> max and average pool -> cat -> convolution -> classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.right = nn.Conv2d(3, 4, 1)
        self.join = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        left = F.max_pool2d(self.left(x), 2)
        right = F.avg_pool2d(self.right(x), 2)
        joined = self.join(torch.cat([left, right], dim=1))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(joined, 1).flatten(1))
        return logits


def mlp() -> nn.Sequential:
    """Linear, ReLU, linear; reads N x 8."""
    return seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))


def residual_block() -> BasicBlock:
    """One block of a ResNet with the identity as its shortcut; reads N x 4 x 8 x 8."""
    return seeded(lambda: BasicBlock(4, 4, stride=1))


def cat_pool_net() -> CatPoolNet:
    """See `CatPoolNet`; reads N x 3 x 8 x 8."""
    return seeded(CatPoolNet)
