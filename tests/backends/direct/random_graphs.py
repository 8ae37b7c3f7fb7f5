"""Random q/dq graphs of many operators, for regions as strangers' models have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.backends.direct.qdq_cases import (
    ACTIVATIONS,
    A,
    Case,
    Draw,
    QParams,
    _Model,
    add_weight,
    dequantize,
    make_graph,
    quantize,
)

# Values of a tensor at most, so that many graphs take seconds.
_LARGEST = 6000


class Net:
    """A graph under construction: each value is there as a tensor too, which decides what fits.

    Args:
        seed: Decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.draw = Draw(seed)
        self.rng = self.draw.rng
        self.inputs: list[Tensor] = []
        self.values: list[Tensor] = []
        self.floats: list[int] = []
        self._nodes: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
        self._quantized: dict[int, int] = {}
        self._weights = 0

    def read(self, value: Tensor) -> int:
        """Add an input."""
        self.inputs.append(value)
        self.values.append(value)
        self._nodes.append((lambda model, *args: None, ()))
        return len(self.values) - 1

    def call(self, function: Callable[..., Any], *operands: int) -> int:
        """Add ``function(model, *operands)``."""
        model = _Model(self.draw, lambda model, inputs: None)
        self.values.append(function(model, *[self.values[each] for each in operands]))
        self._nodes.append((function, operands))
        return len(self.values) - 1

    def shape(self, value: int) -> tuple[int, ...]:
        return tuple(self.values[value].shape)

    def weight(self, *shape: int, axis: int = 0) -> str:
        """Add a weight; return its name."""
        self._weights += 1
        add_weight(self.draw, f"w{self._weights}", *shape, axis=axis)
        return f"w{self._weights}"

    def bias(self, size: int) -> str | None:
        """Add a bias, or none."""
        if self.rng.random() < 0.3:
            return None
        return self.draw.constant(f"b{self._weights}", self.draw.normal(size) * 0.5)

    def qparams(self, value: int) -> QParams:
        """Return those that a calibration would find, or nearly."""
        x = self.values[value]
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        # Differences of equals are rounding noise, which is nothing to take the range of.
        span = max(high - low, 0.05) * self.rng.uniform(0.7, 1.2)
        dtype = self.rng.choice([torch.uint8, torch.uint8, torch.int8])
        first, last = (0, 255) if dtype == torch.uint8 else (-128, 127)
        if self.rng.random() < 0.3:
            first, last = (0, 127) if dtype == torch.uint8 else (-127, 127)
        scale = span / (last - first)
        return QParams(scale, round(max(first, min(last, first - low / scale))), first, last, dtype)

    def edge(self, value: int) -> int:
        """Return the value behind a quantize and a dequantize, those of another reader if any."""
        if value not in self._quantized or self.rng.random() < 0.1:
            q = self.qparams(value)
            integers = self.call(lambda model, x: quantize(x, q), value)
            self._quantized[value] = self.call(lambda model, x: dequantize(x, q), integers)
        return self._quantized[value]

    def either(self, value: int) -> int:
        """Return the value in float, or behind a quantize and a dequantize."""
        return self.edge(value) if self.rng.random() < 0.7 else value

    def finished(self, kind: str) -> Case:
        """Return the graph; its results are what nothing reads, and some that something does."""
        read = {each for _, operands in self._nodes for each in operands}
        results = [each for each in self.floats if each not in read]
        results += [each for each in self.floats if each in read and self.rng.random() < 0.15]
        results = [
            self._nodes[self.edge(each)][1][0] if self.rng.random() < 0.6 else each
            for each in results
        ]

        def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
            given = iter(inputs)
            made: list[Any] = []
            for function, operands in self._nodes:
                if operands:
                    made.append(function(model, *[made[each] for each in operands]))
                else:
                    made.append(next(given))
            return [made[each] for each in results]

        return Case(make_graph(self.draw, len(self.inputs), build), tuple(self.inputs), kind)


Grow = Callable[[Net, int], int | None]


def _convolution(net: Net, x: int) -> int | None:
    shape, rng = net.shape(x), net.rng
    n = len(shape) - 2
    if n not in (1, 2, 3) or max(shape[1:2]) > 64:
        return None
    width = shape[1]
    transposed = rng.random() < 0.15
    groups = rng.choice([each for each in (1, 1, 2, width) if width % each == 0])
    out = width if groups == width > 1 else groups * rng.choice([1, 3, 4, 8, 17, 24])
    kernel = [rng.choice([k for k in (1, 2, 3) if k <= size]) for size in shape[2:]]
    gap = [
        rng.choice([1, 1, 2]) if size > 2 * k else 1
        for k, size in zip(kernel, shape[2:], strict=True)
    ]
    padding = [rng.randint(0, k // 2) for k in kernel]
    stride = [rng.choice([1, 1, 1, 2]) for _ in kernel]
    weight = (width, out // groups) if transposed else (out, width // groups)
    axis = int(transposed)
    name, bias = net.weight(*weight, *kernel, axis=axis), net.bias(out)
    none = [0] * n

    def product(model: Any, value: Any) -> Any:
        w, b = model.weight(name, axis), None if bias is None else getattr(model, bias)
        if transposed:
            op = getattr(A, f"conv_transpose{n}d")
            call = op.input if n > 1 else op.default
            return call(value, w, b, stride, padding, none, groups, gap)
        return getattr(A, f"conv{n}d").default(value, w, b, stride, padding, gap, groups)

    return net.call(product, net.edge(x))


def _linear(net: Net, x: int) -> int | None:
    out = net.rng.choice([1, 4, 8, 12, 30])
    name, bias = net.weight(out, net.shape(x)[-1]), net.bias(out)

    def product(model: Any, value: Any) -> Any:
        b = None if bias is None else getattr(model, bias)
        return A.linear.default(value, model.weight(name), b)

    return net.call(product, net.edge(x))


def _matmul(net: Net, x: int) -> int | None:
    if len(net.shape(x)) < 2:
        return None
    partners = [each for each in net.floats if net.shape(each) == net.shape(x)]
    other = net.either(net.rng.choice(partners))
    turned = net.call(lambda model, y: A.transpose.int(y, -1, -2), other)
    return net.call(lambda model, a, b: A.matmul.default(a, b), net.either(x), turned)


def _attention(net: Net, x: int) -> int | None:
    """Attention of rows to themselves or to others of their shape."""
    if len(net.shape(x)) not in (3, 4):
        return None
    same = [each for each in net.floats if net.shape(each) == net.shape(x)]
    key, value = (net.either(net.rng.choice(same)) for _ in range(2))
    causal = net.rng.random() < 0.3

    def attend(model: Any, *parts: Any) -> Any:
        return A.scaled_dot_product_attention.default(*parts, is_causal=causal)

    return net.call(attend, net.either(x), key, value)


def _two(net: Net, x: int) -> int | None:
    shape = net.shape(x)

    def fits(other: int) -> bool:
        sizes = net.shape(other)
        pairs = zip(reversed(sizes), reversed(shape), strict=False)
        return len(sizes) <= len(shape) and all(one in (1, two) for one, two in pairs)

    other = net.either(net.rng.choice([each for each in net.floats if fits(each)]))
    kind = net.rng.choice(["add", "add", "add", "sub", "mul", "div"])
    if kind == "div":
        other = net.call(lambda model, y: A.add.Tensor(A.abs.default(y), 1.0), other)
    operands = (net.either(x), other)
    if shape == net.shape(other) and kind != "div" and net.rng.random() < 0.5:
        operands = operands[::-1]
    return net.call(lambda model, a, b: getattr(A, kind).Tensor(a, b), *operands)


def _residual(net: Net, x: int) -> int | None:
    """A product added to what it reads, which others may read behind it."""
    width, rank = net.shape(x)[-1], len(net.shape(x))
    if rank == 4:
        width = net.shape(x)[1]
    first = net.edge(x)
    behind = net.edge(net.call(lambda model, y: A.relu.default(y), first))
    name = net.weight(width, width, *([1, 1] if rank == 4 else []))
    product = A.conv2d if rank == 4 else A.linear
    y = net.call(lambda model, y: product.default(y, model.weight(name), None), behind)
    total = net.call(lambda model, y, z: A.add.Tensor(y, z), y, first)
    if net.rng.random() < 0.5:
        total = net.call(lambda model, y, z: A.add.Tensor(y, z), net.edge(total), first)
    return total


def _outside(net: Net, x: int) -> int | None:
    """An operator that no step computes."""
    return net.call(lambda model, y: A.sin.default(y), net.either(x))


def _constant(net: Net, x: int) -> int | None:
    shape = [size if net.rng.random() < 0.5 else 1 for size in net.shape(x)]
    net.weight(1, 1)
    name = net.draw.constant(f"c{net._weights}", net.draw.normal(*shape))
    kind = net.rng.choice(["add", "sub", "mul"])

    def with_constant(model: Any, value: Any) -> Any:
        return getattr(A, kind).Tensor(value, getattr(model, name))

    return net.call(with_constant, net.either(x))


def _pool(net: Net, x: int) -> int | None:
    shape, rng = net.shape(x), net.rng
    n = len(shape) - 2
    if n not in (1, 2, 3) or min(shape[2:]) < 2:
        return None
    kind = rng.choice(["max", "max", "avg", "avg", "adaptive", "mean"])
    kernel, stride = [rng.randint(1, 2) for _ in range(n)], [rng.randint(1, 2) for _ in range(n)]
    padding = [rng.randint(0, k // 2) for k in kernel]
    ceil, counts = rng.random() < 0.3, rng.random() < 0.5

    def pool(model: Any, value: Any) -> Any:
        if kind == "max":
            return getattr(A, f"max_pool{n}d").default(
                value, kernel, stride, padding, [1] * n, ceil
            )
        if kind == "avg":
            return getattr(A, f"avg_pool{n}d").default(value, kernel, stride, padding, ceil, counts)
        if kind == "adaptive":
            return getattr(A, f"adaptive_avg_pool{n}d").default(value, [1] * n)
        return A.mean.dim(value, list(range(2, 2 + n)), bool(net.draw.seed % 2))

    return net.call(pool, net.either(x))


def _cat(net: Net, x: int) -> int | None:
    shape = net.shape(x)
    dim = net.rng.randrange(len(shape))
    same = [each for each in net.floats if net.shape(each) == shape]
    chosen = [net.either(each) for each in [x, *net.rng.choices(same, k=net.rng.randint(1, 2))]]
    return net.call(lambda model, *each: A.cat.default(list(each), dim), *chosen)


def _activation(net: Net, x: int) -> int | None:
    function = ACTIVATIONS[net.rng.choice([name for name in ACTIVATIONS if name != "none"])]
    return net.call(lambda model, value: function(value), net.either(x))


def _view(net: Net, x: int) -> int | None:
    shape, rng = net.shape(x), net.rng
    rank = len(shape)
    one, two = rng.randrange(rank), rng.randrange(rank)
    order = rng.sample(range(rank), rank)
    views: dict[str, Callable[[Any], Any]] = {
        "transpose": lambda y: A.transpose.int(y, one, two),
        "permute": lambda y: A.permute.default(y, order),
        "flatten": lambda y: A.flatten.using_ints(y, min(1, rank - 1)),
        "reshape": lambda y: A.reshape.default(y, [shape[0], -1, shape[-1]]),
        "slice": lambda y: A.slice.Tensor(y, one, 0, max(1, shape[one] - 1)),
        "select": lambda y: A.select.int(y, one, shape[one] // 2),
        "unsqueeze": lambda y: A.unsqueeze.default(y, one),
        "squeeze": lambda y: A.squeeze.dim(y, one),
        "unflatten": lambda y: A.unflatten.int(y, one, [-1, 2 - shape[one] % 2]),
    }
    name = rng.choice(list(views))
    if (name == "select" and rank < 3) or (name in ("unsqueeze", "unflatten") and rank > 4):
        return None
    return net.call(lambda model, value: views[name](value), net.either(x))


def _pad(net: Net, x: int) -> int | None:
    rank = len(net.shape(x)) - 2
    if rank < 1:
        return None
    sizes = [net.rng.randint(0, 2) for _ in range(2 * rank)]
    padded = net.call(lambda model, value: A.pad.default(value, sizes), net.edge(x))
    return net.edge(padded) if net.rng.random() < 0.8 else padded


def _rows(net: Net, x: int) -> int | None:
    width = net.shape(x)[-1]
    if width < 3:
        return None
    if net.rng.random() < 0.5:
        return net.call(lambda model, value: A.softmax.int(value, -1), net.either(x))
    operand = net.either(x)
    if float(net.values[operand].std(-1).min()) < 1e-3:
        return None  # what a norm makes of equal values is rounding noise
    net.weight(1, 1)
    bias = net.bias(width)
    gain = net.draw.constant(f"g{net._weights}", net.draw.normal(width))
    root = net.rng.random() < 0.3

    def norm(model: Any, value: Any) -> Any:
        if root:
            return A.rms_norm.default(value, [width], getattr(model, gain), 1e-5)
        b = None if bias is None else getattr(model, bias)
        return A.layer_norm.default(value, [width], getattr(model, gain), b, 1e-5)

    return net.call(norm, operand)


def _rounded(net: Net, x: int) -> int | None:
    """To bfloat16 and back."""
    half = net.call(lambda model, y: A.to.dtype(y, torch.bfloat16), x)
    return net.call(lambda model, y: A.to.dtype(y, torch.float32), half)


def _requantize(net: Net, x: int) -> int | None:
    q = net.qparams(x)
    return net.call(lambda model, value: dequantize(quantize(value, q), q), net.edge(x))


_GROWS: tuple[Grow, ...] = (
    *[_convolution] * 4,
    *[_linear] * 2,
    _matmul,
    _attention,
    *[_two] * 4,
    *[_pool] * 2,
    *[_cat] * 2,
    *[_activation] * 3,
    *[_view] * 3,
    *[_residual] * 3,
    _outside,
    _constant,
    _pad,
    _rows,
    _rounded,
    _requantize,
)


def random_graph(seed: int) -> Case:
    """Return a graph of 8 to 30 operators on one to three inputs, and what it is called with."""
    net = Net(seed)
    rng = net.rng
    shapes = [(2, 8, 9, 7), (1, 3, 12, 12), (2, 5, 12), (1, 16, 8), (3, 12), (1, 4, 4, 5, 6)]
    shape = rng.choice(shapes)
    for index in range(rng.randint(1, 3)):
        given = rng.choice([shape, shape, rng.choice(shapes)]) if index else shape
        x = net.draw.normal(*given)
        if rng.random() < 0.3:  # not in order
            x = net.draw.normal(*given[::-1]).permute(*reversed(range(len(given))))
        elif rng.random() < 0.3:  # not dense
            x = net.draw.normal(*given[:-1], given[-1] + 3)[..., 2:-1]
        if rng.random() < 0.2:
            q = QParams(0.03, 100, 0, 255, torch.uint8)
            q = rng.choice([q, QParams(0.03, -5, -128, 127, torch.int8)])
            value = net.call(lambda model, y, q=q: dequantize(y, q), net.read(quantize(x, q)))
            net.floats.append(value)
        else:
            net.floats.append(net.read(x))
    wanted, tries = rng.randint(8, 30), 0
    while wanted and tries < 200:
        tries += 1
        latest = rng.random() < 0.7  # most values are read soon, some late or several times
        made = rng.choice(_GROWS)(net, rng.choice(net.floats[-3:] if latest else net.floats))
        if made is not None and net.values[made].numel() <= _LARGEST:
            net.floats.append(made)
            wanted -= 1
    return net.finished("graph")
