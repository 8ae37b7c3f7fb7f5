"""ResNet: He et al., "Deep Residual Learning for Image Recognition" (2015), tables 1 and 6.

Bottlenecks stride in their 3x3 convolution (ResNet v1.5). As in torchvision, a block owns one
in-place ReLU which it calls several times, and adds its shortcut in place.
"""

from __future__ import annotations

from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded


def conv_bn(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the size at stride 1, and its batch norm."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, width, 3, stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv_bn(width, width, 3)
        self.downsample = shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map features to features, of half the size at stride 2."""
        identity = x
        out: Tensor = self.relu(self.conv1(x))
        out = self.conv2(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        activated: Tensor = self.relu(out)
        return activated


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the last one widens four times."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, width, 1)
        self.conv2 = conv_bn(width, width, 3, stride)
        self.conv3 = conv_bn(width, width * self.expansion, 1)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map features to features, of half the size at stride 2."""
        identity = x
        out: Tensor = self.relu(self.conv1(x))
        out = self.relu(self.conv2(out))
        out = self.conv3(out)
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        activated: Tensor = self.relu(out)
        return activated


def shortcut(channels: int, out: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes the shape, else None: the identity."""
    return conv_bn(channels, out, 1, stride) if stride != 1 or channels != out else None


class ResNet(nn.Module):
    """Stages of ``depths`` blocks, each stage of twice the width and half the size of the last."""

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        width: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width << stage, stride))
                channels = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(n, 3, height, width)`` to logits ``(n, classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.blocks(x)).flatten(1))
        return logits


def resnet18(
    depths: tuple[int, ...] = (2, 2, 2, 2), width: int = 64, classes: int = 1000
) -> ResNet:
    """ResNet-18 in eval mode; fewer stages or a smaller width make a small one of the same kind."""
    return seeded(lambda: ResNet(BasicBlock, depths, width, classes))


def resnet50(
    depths: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, classes: int = 1000
) -> ResNet:
    """ResNet-50 in eval mode; fewer stages or a smaller width make a small one of the same kind."""
    return seeded(lambda: ResNet(Bottleneck, depths, width, classes))
