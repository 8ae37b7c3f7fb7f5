"""The smallest model with one match, for every template of a backend.

Optional nodes are left out, and so is everything around the match that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantfx.passes.config.config import Config
from quantfx.tools.models.seeded import seeded


@dataclass(frozen=True)
class Example:
    """A model with one match of a template.

    Attributes:
        make: Makes the model; ``model`` sets its weights.
        shapes: Shapes of its inputs.
        config: Config under which the template matches.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    config: Config = Config()  # noqa: RUF009  a frozen value

    def model(self) -> nn.Module:
        """Return the model in eval mode; its weights are the same each time."""
        return seeded(self.make)

    def inputs(self) -> tuple[Tensor, ...]:
        """Return inputs, to calibrate and to compare on; they are the same each time."""
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)


class Call(nn.Module):
    """A function of the inputs."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return ``function(*inputs)``."""
        return self._function(*inputs)


class Sum(nn.Module):
    """A layer plus a computed value: a sum into an input would overwrite it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Return ``layer(x) + abs(other)``."""
        computed = other.abs()
        result: Tensor = self._layer(x) + computed
        return result


class Cat(nn.Module):
    """Two layers side by side, their channels one after another."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self._left, self._right = left, right

    def forward(self, x: Tensor) -> Tensor:
        """Return ``cat(left(x), right(x))``."""
        return torch.cat([self._left(x), self._right(x)], dim=1)


class First(nn.Module):
    """A recurrent layer; only its first result is read."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the first result."""
        results: tuple[Tensor, ...] = self._layer(x)
        return results[0]


class Lookup(nn.Module):
    """An embedding or embedding bag, with indices computed from floats."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self._table = table

    def forward(self, x: Tensor) -> Tensor:
        """Return ``table(|x| * 4)``, with indices in 0..19."""
        indices = (x.abs() * 4).clamp(max=19).to(torch.int64)
        found: Tensor = self._table(indices)
        return found


_IMAGE, _PRODUCT = (2, 4, 8, 8), (2, 16, 8, 8)
_ROWS, _SUMS, _STEPS = (4, 8), (4, 16), (3, 2, 8)
_HEADS = (2, 2, 4, 8)
_TABLE_4BIT = Config("weight-only-4bit")


def _conv2d() -> nn.Module:
    return nn.Conv2d(4, 16, 3, padding=1)


def _linear() -> nn.Module:
    return nn.Linear(8, 16)


def _table() -> nn.Module:
    return Lookup(nn.Embedding(20, 8))


def _bag() -> nn.Module:
    return Lookup(nn.EmbeddingBag(20, 8, mode="sum"))


def _behind_conv2d(*layers: nn.Module) -> nn.Module:
    """Put an operator behind a conv2d: it passes int8 on only if it reads int8."""
    return nn.Sequential(_conv2d(), *layers)


EXAMPLES: dict[str, Example] = {
    # A convolution, alone and with a sum behind it.
    "conv1d": Example(lambda: nn.Conv1d(4, 16, 3), ((2, 4, 8),)),
    "conv2d": Example(_conv2d, (_IMAGE,)),
    "conv2d_add": Example(lambda: Sum(_conv2d()), (_IMAGE, _PRODUCT)),
    "conv3d": Example(lambda: nn.Conv3d(4, 16, 3), ((2, 4, 4, 4, 4),)),
    "conv_transpose": Example(lambda: nn.ConvTranspose2d(4, 16, 4, 2, 1), (_IMAGE,)),
    # A linear: static, dynamic, with fp16 weights, with int8 or int4 weights only.
    "linear": Example(_linear, (_ROWS,)),
    "linear_wide": Example(lambda: nn.Sequential(_linear(), nn.Hardswish()), (_ROWS,)),
    "linear_add": Example(lambda: Sum(_linear()), (_ROWS, _SUMS)),
    "linear_dynamic": Example(_linear, (_ROWS,), Config("dynamic")),
    "linear_add_dynamic": Example(lambda: Sum(_linear()), (_ROWS, _SUMS), Config("dynamic")),
    "linear_fp16": Example(_linear, (_ROWS,), Config("fp16")),
    "linear_relu_fp16": Example(
        lambda: nn.Sequential(_linear(), nn.ReLU()), (_ROWS,), Config("fp16")
    ),
    "linear_weight_only": Example(_linear, (_ROWS,), Config("weight-only")),
    "linear_weight_only_4bit": Example(
        lambda: nn.Linear(32, 16), ((4, 32),), Config("weight-only-4bit")
    ),
    # Recurrent layers.
    "lstm_dynamic": Example(lambda: First(nn.LSTM(8, 16)), (_STEPS,), Config("dynamic")),
    "gru_dynamic": Example(lambda: First(nn.GRU(8, 16)), (_STEPS,), Config("dynamic")),
    "rnn_dynamic": Example(lambda: First(nn.RNN(8, 16)), (_STEPS,), Config("dynamic")),
    "lstm_cell_dynamic": Example(lambda: First(nn.LSTMCell(8, 16)), (_ROWS,), Config("dynamic")),
    "rnn_cell_dynamic": Example(lambda: nn.GRUCell(8, 16), (_ROWS,), Config("dynamic")),
    # A table, in every mode but half precision.
    "embedding_weight_only": Example(_table, (_ROWS,)),
    "embedding_weight_only_4bit": Example(_table, (_ROWS,), _TABLE_4BIT),
    "embedding_bag_weight_only": Example(_bag, (_ROWS,)),
    "embedding_bag_weight_only_4bit": Example(_bag, (_ROWS,), _TABLE_4BIT),
    # Two tensors.
    "matmul": Example(lambda: Call(torch.matmul), (_ROWS, (8, 4)), Config().op("matmul", "static")),
    "attention": Example(
        lambda: Call(nn.functional.scaled_dot_product_attention),
        (_HEADS, _HEADS, _HEADS),
        Config().op("scaled_dot_product_attention", "static"),
    ),
    "mul": Example(lambda: Call(torch.mul), (_ROWS, _ROWS)),
    # Operators that pass int8 on.
    "max_pool2d": Example(lambda: _behind_conv2d(nn.MaxPool2d(2)), (_IMAGE,)),
    "avg_pool2d": Example(lambda: _behind_conv2d(nn.AvgPool2d(2)), (_IMAGE,)),
    "cat": Example(lambda: Cat(_conv2d(), _conv2d()), (_IMAGE,)),
    "flatten": Example(lambda: _behind_conv2d(nn.Flatten(), nn.Linear(16 * 8 * 8, 4)), (_IMAGE,)),
}
