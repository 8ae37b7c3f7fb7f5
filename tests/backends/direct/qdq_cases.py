"""Random q/dq graphs of one kernel each, made without capturing a model."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx import GraphModule

from quantfx.backends.checks import targets

A = torch.ops.aten
Q = torch.ops.quantized_decomposed


class QParams(NamedTuple):
    """Scale, zero point and range of a tensor."""

    scale: float
    zero_point: int
    low: int
    high: int
    dtype: torch.dtype


@dataclass
class Draw:
    """What one seed decides."""

    seed: int
    rng: random.Random = field(init=False)
    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)

    def qparams(self, span: float = 4.0) -> QParams:
        """Return those of a tensor with values between about -span and span."""
        dtype = self.rng.choice([torch.uint8, torch.uint8, torch.int8])
        low, high = (0, 255) if dtype == torch.uint8 else (-128, 127)
        if self.rng.random() < 0.2:
            low, high = (0, 127) if dtype == torch.uint8 else (-127, 127)
        scale = span * self.rng.uniform(0.5, 2.0) / (high - low)
        return QParams(scale, self.rng.randint(low, high), low, high, dtype)

    def normal(self, *shape: int) -> Tensor:
        """Return a random tensor; of a dimension turned now and then, so not in order."""
        return torch.randn(*shape, generator=self.generator)

    def constant(self, name: str, value: Tensor) -> str:
        """Keep a constant of the graph under construction."""
        self.tensors[name] = value
        return name

    def weight(self, *shape: int, axis: int = 0) -> tuple[Tensor, Tensor]:
        """Return an int8 weight no sum of whose pairs can saturate here, and its scales."""
        most = 64 if targets.host().saturates else 127
        weight = torch.randint(-most, most + 1, shape, generator=self.generator, dtype=torch.int8)
        if self.rng.random() < 0.2:
            return weight, torch.tensor([self.rng.uniform(0.005, 0.02)])
        scales = torch.rand(shape[axis], generator=self.generator) * 0.02 + 0.002
        return weight, scales


def quantize(x: Any, q: QParams) -> Any:
    """``q(x)`` in a graph under construction."""
    return Q.quantize_per_tensor.default(x, *q)


def dequantize(x: Any, q: QParams) -> Any:
    """``dq(x)`` in a graph under construction."""
    return Q.dequantize_per_tensor.default(x, *q)


def round_trip(x: Any, q: QParams) -> Any:
    """``dq(q(x))``."""
    return dequantize(quantize(x, q), q)


class _Model(nn.Module):
    def __init__(self, draw: Draw, build: Callable[[_Model, tuple[Any, ...]], Any]) -> None:
        super().__init__()
        self._build, self._held = build, draw.tensors
        for name, tensor in draw.tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, *inputs: Any) -> Any:
        return self._build(self, inputs)

    def weight(self, name: str, axis: int = 0) -> Any:
        """The dequantized weight of that name."""
        weight, held = getattr(self, name), self._held[f"{name}_scales"]
        if held.numel() == 1:
            number = float(held)
            return Q.dequantize_per_tensor.default(weight, number, 0, -128, 127, torch.int8)
        scales, zeros = getattr(self, f"{name}_scales"), getattr(self, f"{name}_zeros")
        return Q.dequantize_per_channel.default(weight, scales, zeros, axis, -128, 127, torch.int8)


class _Tracer(fx.Tracer):
    # What is computed from constants alone belongs into the graph as well.
    proxy_buffer_attributes = True


def make_graph(
    draw: Draw, inputs: int, build: Callable[[Any, tuple[Any, ...]], Any]
) -> GraphModule:
    """Return the graph of ``build(model, inputs)``, a list of results."""
    model = _Model(draw, build)
    tracer = _Tracer()
    names = ", ".join(f"x{index}" for index in range(inputs))
    scope: dict[str, Any] = {}
    exec(f"def forward(self, {names}):\n    return list(self._build(self, ({names},)))", scope)
    model.__class__ = type("_Traced", (_Model,), {"forward": scope["forward"]})
    graph = tracer.trace(model)
    module = GraphModule(model, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def add_weight(draw: Draw, name: str, *shape: int, axis: int = 0) -> None:
    """Keep a weight with its scales and zero points."""
    weight, scales = draw.weight(*shape, axis=axis)
    draw.constant(name, weight)
    draw.constant(f"{name}_scales", scales)
    draw.constant(f"{name}_zeros", torch.zeros(scales.numel(), dtype=torch.int64))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "relu": A.relu.default,
    "relu6": lambda x: A.hardtanh.default(x, 0.0, 6.0),
    "clamp": lambda x: A.clamp.default(x, -1.5, 1.25),
    "hardswish": A.hardswish.default,
    "hardsigmoid": A.hardsigmoid.default,
    "silu": A.silu.default,
    "sigmoid": A.sigmoid.default,
    "tanh": A.tanh.default,
    "gelu": A.gelu.default,
    "gelu_tanh": lambda x: A.gelu.default(x, approximate="tanh"),
    "leaky_relu": lambda x: A.leaky_relu.default(x, 0.1),
    "elu": lambda x: A.elu.default(x, 0.7),
    "scaled": lambda x: A.add.Tensor(A.mul.Tensor(x, 0.5), 0.25),
    "abs": A.abs.default,
    "mish": A.mish.default,
    "softplus": A.softplus.default,
    "softplus_2": lambda x: A.softplus.default(x, 2.0, 30.0),
    "squared": lambda x: A.pow.Tensor_Scalar(x, 2),
    "square": A.square.default,
    "cubed": lambda x: A.pow.Tensor_Scalar(x, 3),
    "inverse": lambda x: A.rsqrt.default(A.add.Tensor(A.abs.default(x), 0.5)),
}


class Case(NamedTuple):
    """A graph and what it is called with."""

    graph: GraphModule
    inputs: tuple[Tensor, ...]
    kind: str


def _behind(draw: Draw, add: str, shape: torch.Size, others: list[Tensor]) -> Callable[..., Any]:
    """Return what is behind a product: a sum, an activation, and a quantize or none."""
    activation = ACTIVATIONS[draw.rng.choice(list(ACTIVATIONS))]
    first = draw.rng.random() < 0.3
    out, summand = draw.qparams(6.0), draw.qparams()
    integer = draw.rng.random() < 0.7
    if add != "none":
        others.append(draw.normal(*shape))

    def behind(y: Any, other: Any) -> list[Any]:
        if add != "none":
            y = A.relu.default(y) if first else y
            other = round_trip(other, summand) if add == "integer" else other
            y = A.add.Tensor(y, other) if draw.seed % 2 else A.add.Tensor(other, y)
        y = activation(y)
        return [quantize(y, out) if integer else y]

    return behind


def convolution(seed: int) -> Case:
    """A convolution of one to three dimensions, grouped, depthwise or transposed."""
    draw = Draw(seed)
    rng = draw.rng
    n = rng.choice([1, 2, 2, 2, 3])
    transposed = rng.random() < 0.2
    groups = rng.choice([1, 1, 2, 0])  # 0 is one for each channel
    width = rng.choice([3, 4, 8, 12, 16, 20])
    width += width % 2 if groups == 2 else 0
    groups = groups or width
    out = width if groups == width else groups * rng.choice([1, 4, 8, 9])
    kernel = [rng.choice([1, 3, 3, 2, 5]) for _ in range(n)]
    stride = [rng.choice([1, 1, 2, 3]) for _ in range(n)]
    dilation = [rng.choice([1, 1, 2]) for _ in range(n)]
    padding = [
        rng.randint(0, (size - 1) * gap // 2 + 1)
        for size, gap in zip(kernel, dilation, strict=True)
    ]
    if transposed:
        padding = [
            min(p, (size - 1) * gap) for p, size, gap in zip(padding, kernel, dilation, strict=True)
        ]
    sizes = [
        rng.randint((k - 1) * d + 1, (k - 1) * d + 9) for k, d in zip(kernel, dilation, strict=True)
    ]
    extra = [rng.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
    x = draw.normal(rng.choice([1, 2, 3]), width, *sizes)
    shape = (width, out // groups) if transposed else (out, width // groups)
    axis = 1 if transposed else 0
    add_weight(draw, "w", *shape, *kernel, axis=axis)
    draw.constant("b", draw.normal(out) * 0.5)
    has_bias = rng.random() < 0.7
    source = draw.qparams()
    op = getattr(A, f"conv_transpose{n}d" if transposed else f"conv{n}d")

    def product(model: Any, value: Any) -> Any:
        weight, bias = model.weight("w", axis), model.b if has_bias else None
        if transposed:
            call = op.input if n > 1 else op.default
            return call(value, weight, bias, stride, padding, extra, groups, dilation)
        return op.default(value, weight, bias, stride, padding, dilation, groups)

    return _finished(draw, x, source, product, f"conv{n}d")


def linear(seed: int) -> Case:
    """A linear on two to four dimensions."""
    draw = Draw(seed)
    rng = draw.rng
    width, out = rng.choice([1, 3, 8, 17, 64, 100]), rng.choice([1, 2, 8, 30, 64])
    x = draw.normal(*[rng.randint(1, 6) for _ in range(rng.randint(1, 3))], width)
    add_weight(draw, "w", out, width)
    draw.constant("b", draw.normal(out))
    has_bias = rng.random() < 0.7

    def product(model: Any, value: Any) -> Any:
        return A.linear.default(value, model.weight("w"), model.b if has_bias else None)

    return _finished(draw, x, draw.qparams(), product, "linear")


def _finished(
    draw: Draw, x: Tensor, source: QParams, product: Callable[[Any, Any], Any], kind: str
) -> Case:
    model = _Model(draw, lambda model, inputs: None)
    shape = product(model, x).shape
    others: list[Tensor] = []
    add = draw.rng.choice(["none", "none", "integer", "float"])
    behind = _behind(draw, add, shape, others)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return behind(product(model, round_trip(inputs[0], source)), inputs[-1])

    inputs = (x, *others)
    return Case(make_graph(draw, len(inputs), build), inputs, kind)


def pointwise(seed: int) -> Case:
    """One or two tensors element by element, broadcast, integer or float."""
    draw = Draw(seed)
    rng = draw.rng
    shape = [rng.randint(1, 9) for _ in range(rng.randint(2, 5))]
    other = [1 if rng.random() < 0.3 else size for size in shape]
    combine = rng.choice(["none", "add", "sub", "mul", "div"])
    activation = ACTIVATIONS[rng.choice(list(ACTIVATIONS))]
    first, second, out = draw.qparams(), draw.qparams(), draw.qparams(6.0)
    integer = [rng.random() < 0.7 for _ in range(3)]
    a, b = draw.normal(*shape), draw.normal(*other)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(inputs[0], first) if integer[0] else inputs[0]
        y = inputs[1]
        if combine == "div":
            y = A.add.Tensor(A.abs.default(y), 1.0)
        y = round_trip(y, second) if integer[1] and combine != "div" else y
        if combine != "none":
            x = getattr(A, combine).Tensor(x, y)
        x = activation(x)
        if combine == "none" and not integer[0]:
            x = A.relu.default(x)
        return [quantize(x, out) if integer[2] else x]

    return Case(make_graph(draw, 2, build), (a, b), combine)


def pool(seed: int) -> Case:
    """Largest and average values of windows, of integers and floats."""
    draw = Draw(seed)
    rng = draw.rng
    n = rng.choice([1, 2, 2, 3])
    kernel = [rng.randint(1, 3) for _ in range(n)]
    stride = [rng.randint(1, 3) for _ in range(n)]
    padding = [rng.randint(0, size // 2) for size in kernel]
    x = draw.normal(rng.randint(1, 3), rng.choice([1, 5, 16, 300]), *[rng.randint(4, 8)] * n)
    ceil, counts = rng.random() < 0.3, rng.random() < 0.5
    kind = rng.choice(["max", "avg", "adaptive", "mean"])
    source, out = draw.qparams(), draw.qparams()
    integer = [rng.random() < 0.7 for _ in range(2)]

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        y = round_trip(inputs[0], source) if integer[0] else inputs[0]
        if kind == "max":
            y = getattr(A, f"max_pool{n}d").default(y, kernel, stride, padding, [1] * n, ceil)
        elif kind == "avg":
            y = getattr(A, f"avg_pool{n}d").default(y, kernel, stride, padding, ceil, counts)
        elif kind == "adaptive":
            y = getattr(A, f"adaptive_avg_pool{n}d").default(y, [1] * n)
        else:
            y = A.mean.dim(y, list(range(2, 2 + n)), seed % 2 == 0)
        return [quantize(y, out) if integer[1] else A.relu.default(y)]

    return Case(make_graph(draw, 1, build), (x,), kind)


def rows(seed: int) -> Case:
    """Layer norm, softmax, matrix products of activations, concatenation and views."""
    draw = Draw(seed)
    rng = draw.rng
    batch, heads, length, width = (rng.randint(1, 5) for _ in range(4))
    width *= 4
    kind = rng.choice(["layer_norm", "softmax", "matmul", "cat", "turn"])
    draw.constant("g", draw.normal(width))
    draw.constant("b", draw.normal(width))
    first, second, out = draw.qparams(), draw.qparams(), draw.qparams(6.0)
    integer = [rng.random() < 0.6 for _ in range(3)]
    x, y = draw.normal(batch, heads, length, width), draw.normal(batch, heads, length, width)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        a = round_trip(inputs[0], first) if integer[0] else inputs[0]
        b = round_trip(inputs[1], second) if integer[1] else inputs[1]
        if kind == "layer_norm":
            z = A.layer_norm.default(A.add.Tensor(a, b), [width], model.g, model.b, 1e-5)
        elif kind == "softmax":
            z = A.softmax.int(A.mul.Tensor(a, b), -1)
        elif kind == "matmul":
            z = A.div.Tensor(A.matmul.default(a, A.transpose.int(b, -1, -2)), 2.0)
        elif kind == "cat":
            z = A.cat.default([a, b], rng.choice([1, 2, 3]))
        else:
            z = A.flatten.using_ints(A.permute.default(A.add.Tensor(a, b), [0, 2, 1, 3]), 2)
        return [quantize(z, out) if integer[2] else A.mul.Tensor(z, 1.5)]

    return Case(make_graph(draw, 2, build), (x, y), kind)


MAKERS = (convolution, linear, pointwise, pool, rows)
