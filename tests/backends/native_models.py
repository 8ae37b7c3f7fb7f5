"""For every row of torch's native BackendConfig, the smallest model that is one."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.doctor.template_examples import Call

Inputs = tuple[Any, ...]


class Weighted(nn.Module):
    """A functional layer, with a weight and a bias."""

    def __init__(self, function: Callable[..., Tensor], weight: Tensor, channels: int) -> None:
        super().__init__()
        self._function = function
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of input, weight and bias."""
        return self._function(x, self.weight, self.bias)


def model_of(pattern: str) -> tuple[nn.Module, Inputs]:
    """Return the model of a row and inputs of it, always the same.

    Raises:
        KeyError: there is no model of that row.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, pattern)))
        parts = [each.strip() for each in pattern.strip("()").split(",")]
        module, inputs = _first(parts[0], len(parts) > 1)
        layers = [module, *(_behind(part) for part in parts[1:])]
        model = layers[0] if len(layers) == 1 else _Chain(*layers)
        for each in model.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm):
                _fill(each)
        if "qat." in pattern:  # weights have no range before
            model.train()(*inputs)
        return model.eval(), inputs


class _Chain(nn.Module):
    def __init__(self, first: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.others = nn.ModuleList(others)

    def forward(self, *inputs: Any) -> Any:
        value = self.first(*inputs)
        for other in self.others:
            value = other(value)
        return value


def _fill(norm: nn.modules.batchnorm._BatchNorm) -> None:
    """Give a batch norm statistics that do not happen to be the identity."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.5)
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.5)


_SPATIAL = {1: (9,), 2: (8, 6), 3: (5, 6, 4)}


def _volume(rank: int, channels: int = 8) -> Tensor:
    return torch.randn(2, channels, *_SPATIAL[rank])


def _rank(name: str) -> int:
    found = re.search(r"(\d)d", name)
    return int(found[1]) if found else 2


def _behind(part: str) -> nn.Module:
    if part.startswith("nn.BatchNorm"):
        channels = 8
        return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[_rank(part)](channels)
    return (
        nn.ReLU() if part == "nn.ReLU" else Call({"F.relu": F.relu, "torch.relu": torch.relu}[part])
    )


def _first(name: str, composed: bool) -> tuple[nn.Module, Inputs]:
    if name.startswith(("nni.", "nniqat.", "nnqat.")):
        return _intrinsic(name)
    for make in (_layer, _functional, _shape, _recurrent):
        found = make(name)
        if found is not None:
            return found
    raise KeyError(name)


def _layer(name: str) -> tuple[nn.Module, Inputs] | None:
    rank = _rank(name)
    kind = re.sub(r"\dd$", "", name.removeprefix("nn."))
    if not name.startswith("nn."):
        return None
    cls: Any = getattr(nn, name.removeprefix("nn."))
    volume = (_volume(rank),)
    if kind in ("Conv", "ConvTranspose"):
        return cls(8, 8, 3, padding=1), volume
    if kind == "Linear":
        return cls(8, 8), (torch.randn(6, 8),)
    if kind in ("BatchNorm", "InstanceNorm"):
        return cls(8), volume
    simple: dict[str, tuple[tuple[Any, ...], Inputs]] = {
        "LayerNorm": ((8,), (torch.randn(4, 8),)),
        "AdaptiveAvgPool": ((2,), volume),
        "AvgPool": ((2,), volume),
        "MaxPool": ((2,), volume),
        "PixelShuffle": ((2,), volume),
        "PixelUnshuffle": ((2,), volume),
        "Softmax": ((1,), (torch.randn(4, 8),)),
        "Hardtanh": ((-0.5, 1.0), volume),
    }
    if kind in simple:
        arguments, inputs = simple[kind]
        return cls(*arguments), inputs
    if kind in ("ELU", "LeakyReLU", "Hardswish", "Dropout", "PReLU", "Hardsigmoid", "Sigmoid"):
        return cls(), volume
    return (cls(), volume) if kind in ("Tanh", "Identity", "ReLU", "ReLU6") else None


def _functional(name: str) -> tuple[nn.Module, Inputs] | None:
    rank = _rank(name)
    short = name.rpartition(".")[2]
    volume = (_volume(rank),)
    if re.fullmatch(r"conv(_transpose)?\dd", short):
        function: Any = getattr(F, short)
        return Weighted(function, torch.randn(8, 8, *([3] * rank)), 8), volume
    if short == "linear":
        return Weighted(F.linear, torch.randn(8, 8), 8), (torch.randn(6, 8),)
    pair = (torch.randn(4, 8), torch.randn(4, 8))
    functions: dict[str, tuple[Callable[..., Any], Inputs]] = {
        "add": (operator.add if name.startswith("operator") else torch.add, pair),
        "mul": (operator.mul if name.startswith("operator") else torch.mul, pair),
        "matmul": (torch.matmul, (torch.randn(4, 8), torch.randn(8, 3))),
        "cat": (lambda a, b: torch.cat([a, b], 1), pair),
        "stack": (lambda a, b: torch.stack([a, b], 1), pair),
        "floordiv": (lambda a: a // 2, volume),
        "interpolate": (lambda x: F.interpolate(x, scale_factor=2), volume),
        "group_norm": (lambda x: F.group_norm(x, 2), volume),
        "instance_norm": (F.instance_norm, volume),
        "layer_norm": (lambda x: F.layer_norm(x, (8,)), (torch.randn(4, 8),)),
        "narrow": (lambda x: torch.narrow(x, 1, 2, 3), volume),
        "repeat_interleave": (lambda x: torch.repeat_interleave(x, 2, 1), volume),
        "transpose": (lambda x: torch.transpose(x, 1, 2), volume),
        "squeeze": (torch.squeeze, (torch.randn(2, 1, 8),)),
        "unsqueeze": (lambda x: torch.unsqueeze(x, 1), volume),
        "clamp": (lambda x: torch.clamp(x, -0.5, 1.0), volume),
        "flatten": (lambda x: torch.flatten(x, 1), volume),
        "mean": (lambda x: torch.mean(x, [2, 3]), volume),
        "pixel_shuffle": (lambda x: torch.pixel_shuffle(x, 2), volume),
        "pixel_unshuffle": (lambda x: torch.pixel_unshuffle(x, 2), volume),
        "sigmoid": (torch.sigmoid, volume),
        "tanh": (torch.tanh, volume),
        "hardsigmoid": (F.hardsigmoid, volume),
        "hardtanh": (lambda x: F.hardtanh(x, -0.5, 1.0), volume),
        "hardtanh_": (lambda x: F.hardtanh_(-x, -0.5, 1.0), volume),
    }
    if short in functions and not name.startswith("'"):
        function, inputs = functions[short]
        return Call(function), inputs
    if re.fullmatch(r"(adaptive_)?(avg|max)_pool\dd", short):
        pool: Any = getattr(F, short)
        return Call(lambda x: pool(x, 2)), volume
    activations = ("elu", "hardswish", "leaky_relu", "dropout", "relu", "relu6")
    if short in activations and name.startswith("F."):
        activation: Any = getattr(F, short)
        is_dropout = short == "dropout"
        return Call((lambda x: F.dropout(x, training=False)) if is_dropout else activation), volume
    return None


def _shape(name: str) -> tuple[nn.Module, Inputs] | None:
    """Methods of tensors; those that work in place do so on a tensor of the graph's own."""
    if not name.startswith("'"):
        return None
    method = name.strip("'")
    volume = (_volume(2),)
    arguments: dict[str, tuple[Any, ...]] = {
        "clamp": (-0.5, 1.0),
        "mean": ([2, 3],),
        "permute": (0, 2, 3, 1),
        "repeat": (1, 2, 1, 1),
        "repeat_interleave": (2, 1),
        "reshape": (2, -1),
        "resize_": (2, 8, 48),
        "transpose": (1, 2),
        "unsqueeze": (1,),
        "unsqueeze_": (1,),
        "view": (2, 8, 48),
    }
    given = arguments.get(method, ())
    if method in ("squeeze", "squeeze_"):
        volume = (torch.randn(2, 1, 8, 4),)
    if method in ("shape", "size"):
        return Call(lambda x: x.reshape(x.shape[0], x.size(1), -1)), volume
    if method.endswith("_"):
        return Call(lambda x: getattr(-x, method)(*given)), volume
    return Call(lambda x: getattr(x, method)(*given)), volume


def _recurrent(name: str) -> tuple[nn.Module, Inputs] | None:
    x, table = torch.randn(5, 2, 8), torch.randint(0, 20, (4, 3))
    models: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
        "nn.LSTM": (lambda: nn.LSTM(8, 16, 2), (x,)),
        "nn.GRU": (lambda: nn.GRU(8, 16), (x,)),
        "nn.LSTMCell": (lambda: nn.LSTMCell(8, 16), (torch.randn(4, 8),)),
        "nn.GRUCell": (lambda: nn.GRUCell(8, 16), (torch.randn(4, 8),)),
        "nn.RNNCell": (lambda: nn.RNNCell(8, 16), (torch.randn(4, 8),)),
        "nn.Embedding": (lambda: nn.Embedding(20, 8), (table,)),
        "nn.EmbeddingBag": (lambda: nn.EmbeddingBag(20, 8, mode="sum"), (table,)),
    }
    if name not in models:
        return None
    make, inputs = models[name]
    return make(), inputs


def _intrinsic(name: str) -> tuple[nn.Module, Inputs]:
    """Fused modules of torch.ao, float and for training; imported where one is asked for."""
    from torch.ao.nn import intrinsic as nni
    from torch.ao.nn import qat as nnqat
    from torch.ao.nn.intrinsic import qat as nniqat
    from torch.ao.quantization import get_default_qat_qconfig

    namespace, kind = name.split(".")
    rank = _rank(kind)
    cls: Any = getattr({"nni": nni, "nnqat": nnqat, "nniqat": nniqat}[namespace], kind)
    volume: Inputs = (_volume(rank),)
    rows: Inputs = (torch.randn(6, 8),)
    if namespace == "nni":
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
        conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
        linear = "Linear" in kind
        parts: list[nn.Module] = []
        if linear or "Conv" in kind:
            parts.append(nn.Linear(8, 8) if linear else conv(8, 8, 3, padding=1))
        if "Bn" in kind or "BN" in kind:
            parts.append(nn.BatchNorm1d(8) if linear else norm(8))
        if "ReLU" in kind:
            parts.append(nn.ReLU())
        return cls(*parts), rows if linear else volume
    qconfig: Any = get_default_qat_qconfig("x86")  # type: ignore[no-untyped-call]
    if "Embedding" in kind:
        return cls(20, 8, qconfig=qconfig), (torch.randint(0, 20, (4, 3)),)
    if "Linear" in kind:
        linear = cls(8, 8, qconfig=qconfig)
        nn.init.normal_(linear.bias)  # LinearBn1d leaves it as memory happens to be (2.13)
        return linear, rows
    return cls(8, 8, 3, padding=1, qconfig=qconfig), volume
