"""Two layers with something between them: models that can be equalized, and models that cannot."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded

IMAGE = (16, 3, 8, 8)
MANY = (256, 3, 8, 8)  # where each is one row of a linear
TOKENS = (16, 5, 8)


class Between(nn.Module):
    """A first layer, a function and a second layer."""

    def __init__(
        self, first: nn.Module, second: nn.Module, between: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.first, self.second, self.between = first, second, between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.between(self.first(x)))
        return out


def conv(out: int = 8, inputs: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, out, 3, padding=1, groups=groups)


def images(
    between: Callable[[Tensor], Tensor] = F.relu,
    second: Callable[[], nn.Module] = lambda: conv(4, 8),
    first: Callable[[], nn.Module] = conv,
) -> nn.Module:
    return built(lambda: Between(first(), second(), between))


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a model in eval mode whose first layer computes channels of very uneven size."""
    model = seeded(make)
    for name, module in model.named_modules():
        if name.partition(".")[0] in ("first", "norm", "between") and hasattr(module, "weight"):
            _spread(module)
    return model


def _spread(module: nn.Module) -> None:
    axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    for tensor in module.parameters():
        place = axis if tensor.dim() > 1 else 0
        factor = 2.0 ** torch.linspace(-3, 3, tensor.shape[place])
        tensor.data.add_(0.1)  # the biases of a new norm are zeros
        tensor.data.mul_(factor.reshape(-1, *[1] * (tensor.dim() - 1 - place)))


def data(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Attention(nn.Module):
    """A layer norm that linears for query, key and value read."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = x + self.second(F.relu(x))
        return out


class Repeated(nn.Module):
    """The second layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.second(F.relu(self.first(x))))
        return out


class Tied(nn.Module):
    """The second weight is read under another name as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.third.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.third(F.gelu(self.second(F.relu(self.first(x)))))
        return out


def linears(first: nn.Module, between: Callable[[Tensor], Tensor] = F.relu) -> nn.Module:
    return Between(first, nn.Linear(8, 4), between)


def shuffled(x: Tensor) -> Tensor:
    rows, channels, height, width = x.shape
    x = x.reshape(rows, 2, channels // 2, height, width).transpose(1, 2)
    return x.reshape(rows, channels, height, width)


def to_linear(inputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, 4)


PAIRS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "nothing": (lambda: images(nn.Identity()), IMAGE),
    "relu": (images, IMAGE),
    "leaky_relu": (lambda: images(F.leaky_relu), IMAGE),
    "prelu": (lambda: images(nn.PReLU()), IMAGE),
    "prelu by channel": (lambda: images(nn.PReLU(8)), IMAGE),
    "max_pool": (lambda: images(lambda x: F.max_pool2d(F.relu(x), 3, 2, 1)), IMAGE),
    "avg_pool": (lambda: images(lambda x: F.avg_pool2d(x, 2, padding=1)), IMAGE),
    "adaptive_avg_pool": (lambda: images(lambda x: F.adaptive_avg_pool2d(x, 4)), IMAGE),
    "adaptive_max_pool": (lambda: images(lambda x: F.adaptive_max_pool2d(x, 4)), IMAGE),
    "upsample": (lambda: images(lambda x: F.interpolate(x, scale_factor=2)), IMAGE),
    "bilinear": (
        lambda: images(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        IMAGE,
    ),
    "pad": (lambda: images(lambda x: F.pad(x, (1, 2, 0, 1))), IMAGE),
    "reflect": (lambda: images(lambda x: F.pad(x, (1, 1, 1, 1), "reflect")), IMAGE),
    "mean": (lambda: images(lambda x: x.mean((2, 3)), to_linear(8)), MANY),
    "flatten": (lambda: images(lambda x: F.relu(x).flatten(1), to_linear(8 * 64)), IMAGE),
    "permuted": (
        lambda: images(lambda x: x.permute(0, 3, 2, 1).reshape(len(x), -1), to_linear(8 * 64)),
        IMAGE,
    ),
    "tokens": (lambda: images(lambda x: x.flatten(2).transpose(1, 2), to_linear(8)), IMAGE),
    "shuffle": (lambda: images(shuffled), IMAGE),
    "squeeze": (
        lambda: images(
            lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1).unsqueeze(1),
            to_linear(8),
        ),
        MANY,
    ),
    "grouped": (lambda: images(second=lambda: conv(4, 8, 2)), IMAGE),
    "depthwise": (lambda: images(second=lambda: conv(8, 8, 8)), IMAGE),
    "depthwise first": (
        lambda: images(first=lambda: conv(6, 3, 3), second=lambda: conv(4, 6)),
        IMAGE,
    ),
    "transposed": (
        lambda: images(
            first=lambda: nn.ConvTranspose2d(3, 8, 3, groups=1, stride=2), second=lambda: conv(4, 8)
        ),
        IMAGE,
    ),
    "batch norm": (
        lambda: images(nn.BatchNorm2d(8), first=lambda: nn.Sequential(conv(), nn.ReLU())),
        IMAGE,
    ),
    "group norm": (lambda: images(first=lambda: nn.GroupNorm(1, 3), second=conv), IMAGE),
    "conv1d": (
        lambda: built(lambda: Between(nn.Conv1d(5, 8, 3), nn.Conv1d(8, 4, 3), F.relu)),
        TOKENS,
    ),
    "conv3d": (
        lambda: built(lambda: Between(nn.Conv3d(2, 8, 3), nn.Conv3d(8, 4, 3), F.relu)),
        (9, 2, 6, 6, 6),
    ),
    "linear": (lambda: built(lambda: linears(nn.Linear(8, 8))), TOKENS),
    "matrix": (lambda: built(lambda: linears(nn.Linear(8, 8, bias=False))), (64, 8)),
    "layer norm": (lambda: built(lambda: linears(nn.LayerNorm(8))), TOKENS),
    "rms norm": (lambda: built(lambda: linears(nn.RMSNorm(8))), TOKENS),
    "first token": (lambda: built(lambda: linears(nn.LayerNorm(8), lambda x: x[:, 0])), TOKENS),
    "some tokens": (lambda: built(lambda: linears(nn.LayerNorm(8), lambda x: x[:, 1:])), TOKENS),
    "attention": (lambda: built(lambda: Attention(nn.LayerNorm(8))), TOKENS),
}

# What is not equalized, with a part of the reason.
OBSTACLES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "relu6": (lambda: images(F.relu6), IMAGE, "relu6|hardtanh"),
    "gelu": (lambda: images(F.gelu), IMAGE, "gelu .gelu. does not pass on a factor"),
    "silu": (lambda: images(F.silu), IMAGE, "silu"),
    "ones around": (lambda: images(lambda x: F.pad(x, (1, 1), value=1.0)), IMAGE, "pad .pad."),
    "residual": (lambda: built(Residual), IMAGE, "add also reads conv2d"),
    "called twice": (lambda: built(Repeated), IMAGE, "conv2d_2 also reads the weight of conv2d_1"),
    "tied": (lambda: built(Tied), TOKENS, "linear_2 also reads the weight of linear_1"),
    "no scale": (
        lambda: built(lambda: linears(nn.LayerNorm(8, elementwise_affine=False))),
        TOKENS,
        "layer_norm has no stored weight",
    ),
    "two dimensions": (
        lambda: built(lambda: linears(nn.LayerNorm((5, 8)))),
        TOKENS,
        "several dimensions",
    ),
    "mean of channels": (
        lambda: images(lambda x: x.mean((1, 2)), to_linear(8)),
        IMAGE,
        "mean .mean. mixes channels",
    ),
    "pool over channels": (
        lambda: images(lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 2), to_linear(4)),
        IMAGE,
        "avg_pool1d .avg_pool1d. mixes channels",
    ),
    "another dimension": (
        lambda: images(nn.Identity(), to_linear(8)),
        IMAGE,
        "along another dimension",
    ),
    "two readers": (
        lambda: images(lambda x: F.relu(x) * x.mean(), lambda: conv(4, 8)),
        IMAGE,
        "mul",
    ),
    "an input": (
        lambda: built(lambda: Between(nn.ReLU(), conv(), nn.Identity())),
        IMAGE,
        "x is an input",
    ),
}
