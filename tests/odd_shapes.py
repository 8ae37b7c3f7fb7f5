"""Small models of every template's operators, on shapes, layouts and ranks that are rare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.config.config import Config
from quantfx.tools.doctor.template_examples import Call
from tests.odd_layers import bag, cell, conv, conv_transpose, layer_sum, linear, rnn, table
from tests.odd_operators import (
    activation,
    adaptive,
    avg_pool,
    binary,
    cat,
    group_norm,
    instance_norm,
    interpolate,
    large_pool,
    layer_norm,
    layout,
    matmul,
    max_pool,
    mean,
    norm,
    on_images,
    scalar,
)
from tests.odd_tensors import Draw, Made


@dataclass(frozen=True)
class OddCase:
    """A model and its inputs.

    Attributes:
        label: What it is, for messages.
        model: In eval mode.
        inputs: To calibrate and to compare on.
        config: How it is quantized.
        calls: Further inputs of other sizes; the first size of each input is free then.
    """

    label: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    config: Config
    calls: tuple[tuple[Tensor, ...], ...] = field(default=())


class Between(nn.Module):
    """An operator that reads what linears make, and whose result a linear reads."""

    def __init__(self, inner: nn.Module, *inputs: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.before = nn.ModuleList(nn.Linear(each.shape[-1], each.shape[-1]) for each in inputs)
        made = inner(*inputs)
        self.behind = nn.Linear(made.shape[-1], 4) if made.dim() else nn.Identity()

    def forward(self, *inputs: Tensor) -> Tensor:
        made = [layer(each) for layer, each in zip(self.before, inputs, strict=True)]
        result: Tensor = self.behind(self.inner(*made))
        return result


class Layers(nn.Module):
    """A convolution, an operator on images of its channels, and a convolution."""

    def __init__(self, inner: nn.Module, x: Tensor) -> None:
        super().__init__()
        conv: Any = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[x.dim()]
        self.first, self.inner = conv(x.shape[1], x.shape[1], 1), inner
        made = inner(x)
        fits = made.dim() == x.dim() and made.shape[1] > 0
        self.last = conv(made.shape[1], 3, 1) if fits else nn.Identity()

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.last(self.inner(self.first(*inputs)))
        return result


def odd_case(kind: str, seed: int) -> OddCase | None:
    """Return case number ``seed`` of a kind of ``KINDS``; None if such a model does not run."""
    draw = Draw(f"{kind} {seed}")
    torch.manual_seed(draw.randrange(2**31))
    try:
        with torch.no_grad():
            return _case(kind, seed, draw)
    except (RuntimeError, ValueError, IndexError, NotImplementedError):
        return None  # an operator without such a form, e.g. a window wider than what it is on


def _case(kind: str, seed: int, draw: Draw) -> OddCase:
    make, modes = KINDS[kind]
    inner, inputs = make(draw)
    inner.eval()
    model = _around(draw, inner, inputs) if inputs[0].is_floating_point() else Call(inner)
    if not bool(model.eval()(*inputs).isfinite().all()):  # a window with nothing but padding in it
        raise ValueError("no finite result")
    calls = _calls(draw, model, inputs)
    config = draw.choice(modes)
    given = [f"{list(each.shape)}:{each.stride()}" for each in inputs]
    label = f"{kind} {seed} {config}: {model} on {given}"
    return OddCase(f"{label}, {len(calls)} calls", model, inputs, config, calls)


def _around(draw: Draw, inner: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    way = draw.choice(("alone", "linears", "linears", "convolutions"))
    if way == "convolutions" and len(inputs) == 1 and inputs[0].dim() in (3, 4, 5):
        return Layers(inner, inputs[0])
    if way != "alone" and all(each.dim() for each in inputs):
        return Between(inner, *inputs)
    return Call(inner)


def _calls(
    draw: Draw, model: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], ...]:
    """Return the inputs with other numbers of rows, if the model takes them."""
    rows = {each.shape[0] if each.dim() else 0 for each in inputs}
    if draw.random() < 0.6 or len(rows) != 1 or rows & {0, 1}:
        return ()
    found: list[tuple[Tensor, ...]] = []
    for count in (0, 1, 5):
        given = tuple(each[:1].repeat(count, *[1] * (each.dim() - 1)) for each in inputs)
        given = tuple(_rescaled(each) for each in given)
        try:
            finite = bool(model(*given).isfinite().all())
        except (RuntimeError, ValueError, IndexError):
            continue
        if finite:  # a mean of nothing is no number
            found.append(given)
    return tuple(found)


def _rescaled(x: Tensor) -> Tensor:
    return x * torch.rand(x.shape) if x.is_floating_point() else x


_STATIC = (Config("static"),)
_LINEAR_MODES = (*_STATIC * 2, Config("dynamic"), Config("fp16"), Config("weight-only"))
_RNN_MODES = (Config("dynamic"), Config("fp16"))
_TABLE_MODES = (Config("weight-only"), Config("weight-only-4bit"))
_MATMUL = (Config().op("matmul", "static"),)
Modes = tuple[Config, ...]
KINDS: dict[str, tuple[Callable[[Draw], Made], Modes]] = {
    "conv1d": (conv(1), _STATIC),
    "conv2d": (conv(2), _STATIC),
    "conv3d": (conv(3), _STATIC),
    "conv_transpose1d": (conv_transpose(1), _STATIC),
    "conv_transpose2d": (conv_transpose(2), _STATIC),
    "conv_transpose3d": (conv_transpose(3), _STATIC),
    "conv_sum": (layer_sum(conv(2)), _STATIC),
    "linear": (linear, _LINEAR_MODES),
    "linear_sum": (layer_sum(linear), _LINEAR_MODES),
    "matmul": (matmul, _MATMUL),
    "binary": (binary, _STATIC),
    "scalar": (scalar, _STATIC),
    "cat": (cat, _STATIC),
    "max_pool": (on_images(max_pool), _STATIC),
    "avg_pool": (on_images(avg_pool), _STATIC),
    "adaptive_pool": (on_images(adaptive), _STATIC),
    "large_pool": (large_pool, _STATIC),
    "batch_norm": (norm, _STATIC),
    "layer_norm": (layer_norm, _STATIC),
    "group_norm": (on_images(group_norm), _STATIC),
    "instance_norm": (on_images(instance_norm), _STATIC),
    "activation": (activation, _STATIC),
    "mean": (mean, _STATIC),
    "layout": (layout, _STATIC),
    "interpolate": (interpolate, _STATIC),
    "lstm": (rnn(nn.LSTM), _RNN_MODES),
    "gru": (rnn(nn.GRU), _RNN_MODES),
    "cell": (cell, _RNN_MODES),
    "embedding": (table, _TABLE_MODES),
    "embedding_bag": (bag, _TABLE_MODES),
}
