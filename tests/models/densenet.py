"""DenseNet-BC: Huang et al., "Densely Connected Convolutional Networks" (2017), table 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded


class DenseLayer(nn.Module):
    """Batch norm and ReLU before each convolution; reads every feature map of its block so far."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        out: Tensor = self.conv2(self.relu2(self.norm2(x)))
        return out


class DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int, depth: int) -> None:
        super().__init__()
        layers = [DenseLayer(channels + index * growth, growth) for index in range(depth)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


def transition(channels: int) -> nn.Sequential:
    """Halve the channels and the size between two dense blocks."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2),
    )


class DenseNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], growth: int, classes: int) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for index, depth in enumerate(depths):
            if index > 0:
                layers.append(transition(channels))
                channels //= 2
            layers.append(DenseBlock(channels, growth, depth))
            channels += depth * growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def densenet121(
    depths: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32, classes: int = 1000
) -> DenseNet:
    """DenseNet-121 in eval mode; ``depths=(2, 2), growth=8`` makes a small one."""
    return seeded(lambda: DenseNet(depths, growth, classes))
