"""Small models around the edges of what a matcher must and must not see.

The summand of a fusible add is computed (`x.tanh()`), never an input of the graph, which a kernel
that accumulates in place may not overwrite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.models.seeded import seeded

Output: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Body: TypeAlias = Callable[..., Output]

_GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(2, 4, 8, 8, generator=_GENERATOR)
ROWS = torch.randn(3, 8, generator=_GENERATOR)


@dataclass(frozen=True)
class ExportCase:
    """A model in eval mode, inputs for it, and what the x86 backend must find.

    Attributes:
        name: Identifies the case.
        make: Builds the model; equal weights every time.
        inputs: Positional example inputs.
        matches: Labels of the matches, in graph order of their conv, linear or mul, after
            canonicalization and conv-bn folding; propagated templates (pools, cat) do not occur.
        kwargs: Keyword example inputs.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    matches: tuple[str, ...]
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)


class Net(nn.Module):
    """`body(*layers, x, **named)` as a module."""

    def __init__(self, body: Body, *layers: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, **named: Tensor) -> Output:
        return self.body(*self.layers, x, **named)


class SamePaddingConv2d(nn.Conv2d):
    """Pads by itself, as the convolutions of EfficientNet's PyTorch ports do."""

    def forward(self, input: Tensor) -> Tensor:
        padded = F.pad(input, (1, 1, 1, 1))
        out: Tensor = self._conv_forward(padded, self.weight, self.bias)
        return out


class ScaledLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input * 2.0, self.weight, self.bias)


class FunctionalConv(nn.Module):
    """A convolution written with parameters and the function, without nn.Conv2d."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3) * 0.2)
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1)


class WithoutGrad(nn.Module):
    """Its part of the graph is exported as a nested graph, under set_grad_enabled(False)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x))


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1)


def linear() -> nn.Linear:
    return nn.Linear(8, 8)


def case(
    name: str,
    body: Body,
    *matches: str,
    layers: tuple[Callable[[], nn.Module], ...] = (conv,),
    x: Tensor = IMAGE,
    **named: Tensor,
) -> ExportCase:
    """A case whose model is one function of its layers, its input and its keyword inputs."""

    def make() -> nn.Module:
        return seeded(lambda: Net(body, *(layer() for layer in layers)))

    return ExportCase(name, make, (x,), matches, named)


def residual(
    stem: nn.Module, first: nn.Module, relu: nn.Module, last: nn.Module, x: Tensor
) -> Tensor:
    identity = stem(x)
    out = last(relu(first(identity)))
    out += identity
    activated: Tensor = relu(out)
    return activated


def add_to_view(conv: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = conv(x)
    y[:, 0] += 1
    return F.relu(y)


def choose(yes: nn.Module, no: nn.Module, x: Tensor) -> Tensor:
    chosen: Tensor = torch.cond(x.sum() > 0, lambda x: F.relu(yes(x)), lambda x: no(x), (x,))
    return chosen


_CASES = (
    # One meaning, many spellings.
    case("conv", lambda c, x: c(x), "conv2d"),
    case("conv_relu_module", lambda c, relu, x: relu(c(x)), "conv2d_unary", layers=(conv, nn.ReLU)),
    case("conv_relu_function", lambda c, x: F.relu(c(x)), "conv2d_unary"),
    case("conv_relu_in_place", lambda c, x: F.relu_(c(x)), "conv2d_unary"),
    case("conv_relu6", lambda c, x: F.relu6(c(x)), "conv2d_unary"),
    case("conv_hardswish_in_place", lambda c, x: F.hardswish(c(x), inplace=True), "conv2d_unary"),
    case(
        "conv_without_bias",
        lambda c, x: F.relu(c(x)),
        "conv2d_unary",
        layers=(lambda: nn.Conv2d(4, 4, 1, bias=False),),
    ),
    case(
        "conv_padding_same",
        lambda c, x: F.relu(c(x)),
        "conv2d_unary",
        layers=(lambda: nn.Conv2d(4, 4, 3, padding="same"),),
    ),
    case("conv_functional", lambda c, x: F.relu(c(x)), "conv2d_unary", layers=(FunctionalConv,)),
    case(
        "conv_subclass",
        lambda c, x: F.relu(c(x)),
        "conv2d_unary",
        layers=(lambda: SamePaddingConv2d(4, 4, 3),),
    ),
    case(
        "linear_subclass",
        lambda fc, x: F.relu(fc(x)),
        "linear_unary",
        layers=(lambda: ScaledLinear(8, 8),),
        x=ROWS,
    ),
    case("linear_gelu", lambda fc, x: F.gelu(fc(x)), "linear_unary", layers=(linear,), x=ROWS),
    # The summand of a linear may be its own input: it stays float.
    case(
        "linear_add_relu",
        lambda fc, x: F.relu(fc(x) + x),
        "linear_add_relu",
        layers=(linear,),
        x=ROWS,
    ),
    # Dropout in eval mode is nothing: linear and relu are neighbours.
    case(
        "dropout",
        lambda fc, drop, x: F.relu(drop(fc(x))),
        "linear_unary",
        layers=(linear, lambda: nn.Dropout(0.3)),
        x=ROWS,
    ),
    # One module, several calls.
    case(
        "conv_called_twice_relu",
        lambda c, x: F.relu(c(F.relu(c(x)))),
        "conv2d_unary",
        "conv2d_unary",
    ),
    case("conv_called_twice_added", lambda c, x: c(x) + c(x.tanh()), "conv2d_add", "conv2d"),
    case(
        "shared_relu_residual",
        residual,
        "conv2d",
        "conv2d_unary",
        "conv2d_add_relu",
        layers=(conv, conv, nn.ReLU, conv),
    ),
    # Adds that fuse, whichever side the convolution is on; the first of two convolutions takes it.
    case("conv_add", lambda c, x: c(x) + x.tanh(), "conv2d_add"),
    case("add_conv", lambda c, x: x.tanh() + c(x), "conv2d_add"),
    case("conv_add_in_place", lambda c, x: c(x).add_(x.tanh()), "conv2d_add"),
    case("conv_add_conv", lambda a, b, x: a(x) + b(x), "conv2d_add", "conv2d", layers=(conv, conv)),
    case(
        "conv_add_conv_relu",
        lambda a, b, x: F.relu(a(x) + b(x)),
        "conv2d_add_relu",
        "conv2d",
        layers=(conv, conv),
    ),
    # Adds that do not: the summand is the input of the convolution, has another shape, is needed
    # later, is no tensor, is scaled, or is the convolution itself.
    case("conv_add_input", lambda c, x: c(x) + x, "conv2d"),
    case("input_add_conv", lambda c, x: x + c(x), "conv2d"),
    case("conv_add_broadcast", lambda c, x: c(x) + x.mean((2, 3), keepdim=True), "conv2d"),
    case("conv_add_needed_later", lambda c, x: (c(x) + (y := x.tanh()), y.exp()), "conv2d"),
    case("conv_add_scalar", lambda c, x: c(x) + 1.0, "conv2d"),
    case("conv_add_alpha", lambda c, x: torch.add(c(x), x.tanh(), alpha=2), "conv2d"),
    case("conv_add_itself", lambda c, x: (y := c(x)) + y, "conv2d"),
    # A convolution that something else reads as well keeps its own output.
    case("conv_two_users_relu", lambda c, x: (F.relu(y := c(x)), y.exp()), "conv2d"),
    case("conv_two_users_add", lambda c, x: ((y := c(x)) + x.tanh(), y.exp()), "conv2d"),
    # relu reads what the in-place add left, not what the convolution yielded.
    case("in_place_on_view", add_to_view, "conv2d"),
    # Matrix products are quantized on request only.
    case("matmul_itself", lambda x: x @ x, layers=()),
    case("mul", lambda c, x: c(x) * x, "conv2d", "mul"),
    # Folding. A weight that two batch norms scale needs two copies.
    case(
        "batch_norm_eps",
        lambda c, bn, x: F.relu(bn(c(x))),
        "conv2d_unary",
        layers=(conv, lambda: nn.BatchNorm2d(4, eps=1e-3)),
    ),
    case(
        "conv_shared_by_batch_norms",
        lambda c, a, b, x: (a(c(x)), b(c(x.tanh()))),
        "conv2d",
        "conv2d",
        layers=(conv, lambda: nn.BatchNorm2d(4), lambda: nn.BatchNorm2d(4)),
    ),
    # What export makes of the program around the operators.
    case("dead_code", lambda c, dead, x: (c(x), dead(x))[0], "conv2d", layers=(conv, conv)),
    case(
        "no_grad_forward", lambda c, x: c(x), "conv2d_unary", layers=(lambda: WithoutGrad(conv()),)
    ),
    case(
        "no_grad_region",
        lambda a, b, x: F.relu(b(a(x))),
        "conv2d_unary",
        "conv2d_unary",
        layers=(lambda: WithoutGrad(conv()), conv),
    ),
    # The branches in order: true, false.
    case("cond", choose, "linear_unary", "linear", layers=(linear, linear), x=ROWS),
    case("dict_output", lambda c, x: {"relu": F.relu(c(x)), "mean": x.mean()}, "conv2d_unary"),
    case("keyword_input", lambda c, x, *, gate: c(x) * gate, "conv2d", "mul", gate=IMAGE.sigmoid()),
)

CASES = {case.name: case for case in _CASES}
