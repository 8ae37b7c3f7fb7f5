"""The smallest model with one match, for every template of the native backend."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantfx.passes.config.config import Config
from quantfx.tools.doctor.template_examples import Call, Example, First, Lookup

_IMAGE, _LINE, _VOLUME = (2, 8, 8, 8), (2, 8, 9), (2, 8, 4, 4, 4)
_ROWS, _STEPS = (4, 8), (3, 2, 8)
_DYNAMIC, _HALF = Config("dynamic"), Config("fp16")
_TABLE, _TABLE_4BIT = Config("weight-only"), Config("weight-only-4bit")


def _call(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Example:
    return Example(lambda: Call(function), shapes or (_IMAGE,))


def _layer(make: Callable[[], nn.Module], shape: tuple[int, ...] = _IMAGE) -> Example:
    return Example(make, (shape,))


def _recurrent(make: Callable[[], nn.Module], shape: tuple[int, ...], config: Config) -> Example:
    return Example(lambda: First(make()), (shape,), config)


def _lstm() -> nn.Module:
    return nn.LSTM(8, 16)


def _gru() -> nn.Module:
    return nn.GRU(8, 16)


def _lstm_cell() -> nn.Module:
    return nn.LSTMCell(8, 16)


def _table() -> nn.Module:
    return Lookup(nn.Embedding(20, 8))


def _bag() -> nn.Module:
    return Lookup(nn.EmbeddingBag(20, 8, mode="sum"))


NATIVE_EXAMPLES: dict[str, Example] = {
    # Layers with weights.
    "conv_transpose1d": _layer(lambda: nn.ConvTranspose1d(8, 8, 3), _LINE),
    "conv_transpose2d": _layer(lambda: nn.ConvTranspose2d(8, 16, 2, 2)),
    "conv_transpose3d": _layer(lambda: nn.ConvTranspose3d(8, 8, 3), _VOLUME),
    "lstm_dynamic": _recurrent(_lstm, _STEPS, _DYNAMIC),
    "lstm_fp16": _recurrent(_lstm, _STEPS, _HALF),
    "gru_dynamic": _recurrent(_gru, _STEPS, _DYNAMIC),
    "gru_fp16": _recurrent(_gru, _STEPS, _HALF),
    "lstm_cell_dynamic": _recurrent(_lstm_cell, _ROWS, _DYNAMIC),
    "lstm_cell_fp16": _recurrent(_lstm_cell, _ROWS, _HALF),
    "rnn_cell_dynamic": Example(lambda: nn.GRUCell(8, 16), (_ROWS,), _DYNAMIC),
    "rnn_cell_fp16": Example(lambda: nn.RNNCell(8, 16), (_ROWS,), _HALF),
    "embedding_weight_only": Example(_table, (_ROWS,), _TABLE),
    "embedding_weight_only_4bit": Example(_table, (_ROWS,), _TABLE_4BIT),
    "embedding_bag_weight_only": Example(_bag, (_ROWS,), _TABLE),
    "embedding_bag_weight_only_4bit": Example(_bag, (_ROWS,), _TABLE_4BIT),
    # Sums and products, of two tensors or of one and a number.
    "add": _call(torch.add, _ROWS, _ROWS),
    "add_scalar": _call(lambda x: x + 0.5),
    "mul_scalar": _call(lambda x: x * -2),
    # Operators with their own ranges.
    "elu": _layer(nn.ELU),
    "leaky_relu": _layer(nn.LeakyReLU),
    "hardswish": _layer(nn.Hardswish),
    "prelu": _layer(nn.PReLU),
    "instance_norm": _layer(lambda: nn.InstanceNorm2d(8)),
    "group_norm": _layer(lambda: nn.GroupNorm(2, 8)),
    "layer_norm": _layer(lambda: nn.LayerNorm(8), _ROWS),
    "batch_norm": _layer(lambda: nn.BatchNorm2d(8)),
    # Operators with a fixed range.
    "sigmoid": _layer(nn.Sigmoid),
    "tanh": _layer(nn.Tanh),
    "softmax": _layer(lambda: nn.Softmax(1)),
    # Operators with the range of their input.
    "average": _layer(lambda: nn.AvgPool2d(2)),
    "max_pool": _layer(lambda: nn.MaxPool2d(2)),
    "clamp": _layer(nn.ReLU6),
    "interpolate": _call(lambda x: functional.interpolate(x, scale_factor=2)),
    "layout": _call(lambda x: x.flatten(1)),
}
