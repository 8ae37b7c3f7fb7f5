"""Run int8 kernels against integer arithmetic; the parent process limits oneDNN to AVX2.

Not a test module: ``test_qparams.py`` starts it, because oneDNN reads ONEDNN_MAX_CPU_ISA once
per process. Prints one JSON object, case -> what went wrong with each kind of weight.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional

from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.quant.qparams import Pairing, saturates
from quantfx.passes.quant.spec import PairBound, QuantSpec

CONVS = (functional.conv1d, functional.conv2d, functional.conv3d)


@dataclass(frozen=True)
class Outcome:
    """What a kernel made of one weight, against exact integer arithmetic.

    Attributes:
        wrong: Largest error relative to the largest output.
        unforeseen: Wrong output channels that ``saturates`` had called safe.
        unsafe: Whether ``saturates`` calls any channel unsafe.
    """

    wrong: float
    unforeseen: int
    unsafe: bool


Kernel = Callable[[Tensor, Tensor], Tensor]


def quantized(weight: Tensor, pair_bound: PairBound) -> Tensor:
    """Return the int8 weight, of the same shape, of per-channel symmetric quantization."""
    observer = MinMaxObserver(
        QuantSpec(torch.int8, -128, 127, True, axis=0, observer="min_max", pair_bound=pair_bound)
    )
    observer(weight)
    scale = observer.calculate_qparams().scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight / scale).round().clamp(-128, 127).to(torch.int8)


def worst_weight(*shape: int) -> Tensor:
    """Return large weights, mostly of one sign within an output channel."""
    weight = 0.5 + torch.rand(*shape) / 2
    weight *= torch.where(torch.rand(*shape) < 0.9, 1.0, -1.0)
    return weight * (torch.randint(0, 2, (shape[0], *[1] * (len(shape) - 1))) * 2 - 1)


def worst_activation(*shape: int) -> Tensor:
    """Return u8 values of which half are 255."""
    x = torch.randint(0, 256, shape, dtype=torch.uint8)
    return x.masked_fill_(torch.rand(*shape) < 0.5, 255)


def outcome(kernel: Kernel, exact: Kernel, x: Tensor, weight: Tensor, pairing: Pairing) -> Outcome:
    """Compare two functions of ``(x u8, weight s8)``; output channels are on axis 1."""
    expected = exact(x.double(), weight.double())
    error = (kernel(x, weight).double() - expected).abs()
    wrong = error.transpose(0, 1).flatten(1).amax(1) > expected.abs().max() * 1e-6
    unsafe = saturates(weight, int(x.max()), pairing)
    return Outcome(
        wrong=float(error.max() / expected.abs().max()),
        unforeseen=int((wrong & ~unsafe).sum()),
        unsafe=bool(unsafe.any()),
    )


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply by oneDNN's int8 GEMM, all scales 1; float32 result."""
    n = len(weight)
    scales, zeros = torch.ones(n), torch.zeros(n, dtype=torch.int64)
    packed = torch.ops.onednn.qlinear_prepack(weight, list(x.shape))
    result: Tensor = torch.ops.onednn.qlinear_pointwise(
        x, 1.0, 0, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return result


def conv(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve by oneDNN's int8 kernel, all scales 1, padding 1; float32 result."""
    ones = [1] * (x.dim() - 2)
    scales, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64)
    packed = torch.ops.onednn.qconv_prepack(
        weight, scales, 1.0, 0, ones, ones, ones, groups, list(x.shape)
    )
    result: Tensor = torch.ops.onednn.qconv_pointwise(
        x, 1.0, 0, packed, scales, zeros, None, ones, ones, ones, groups,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return result


LINEAR_SHAPES = [
    *((5, k, 16) for k in (2, 3, 4, 5, 31, 64, 65, 66, 67, 256, 257, 258, 259, 514)),
    (1, 257, 1),
    (64, 130, 33),
    (200, 1025, 70),
    (3, 1024, 257),
]  # rows, K, N
CONV_SHAPES = [
    *((2, k, c, 8, 1) for k in (1, 3, 5) for c in (1, 2, 3, 4, 5, 7, 16, 17, 64)),
    *((2, k, c, 16 * g, g) for k in (1, 3, 5) for c, g in ((6, 2), (10, 2), (15, 3), (32, 2))),
    *((2, k, c, c, c) for k in (3, 5) for c in (1, 8, 17)),
    *((1, k, c, 16, 1) for k in (1, 3, 5) for c in (3, 8, 33)),
    (1, 3, 10, 32, 2),
    (1, 3, 16, 16, 16),
    (3, 3, 16, 32, 2),
    *((3, k, c, 8, 1) for k in (1, 3, 5) for c in (3, 8)),
]  # rank, kernel, channels, output channels, groups


def random_shapes(draw: random.Random, count: int) -> None:
    """Put random shapes in the place of the listed ones."""
    LINEAR_SHAPES[:] = [
        (draw.randint(1, 200), draw.randint(1, 1600), draw.randint(1, 257)) for _ in range(count)
    ]
    CONV_SHAPES.clear()
    for _ in range(count):
        groups = draw.choice((1, 1, 1, 2, 3, 8))
        channels, out = groups * draw.randint(1, 40), groups * draw.randint(1, 24)
        CONV_SHAPES.append(
            (draw.choice((1, 2, 2, 3)), draw.choice((1, 3, 5)), channels, out, groups)
        )


def linear_cases() -> Iterator[tuple[str, Outcome, Outcome]]:
    """Yield name, outcome unbounded, outcome bounded of each linear."""
    for rows, k, n in LINEAR_SHAPES:
        x, weight = worst_activation(rows, k), worst_weight(n, k)
        yield (
            f"linear {rows}x{k}x{n}",
            outcome(linear, functional.linear, x, quantized(weight, "none"), "adjacent"),
            outcome(linear, functional.linear, x, quantized(weight, "adjacent"), "adjacent"),
        )


def conv_cases() -> Iterator[tuple[str, Outcome, Outcome]]:
    """Yield name, outcome unbounded, outcome bounded of each convolution."""
    for rank, kernel, channels, out, groups in CONV_SHAPES:
        x = worst_activation(2, channels, *[7] * rank)
        weight = worst_weight(out, channels // groups, *[kernel] * rank)

        def exact(x: Tensor, w: Tensor, rank: int = rank, groups: int = groups) -> Tensor:
            return CONVS[rank - 1](x, w, padding=1, groups=groups)

        def run(x: Tensor, w: Tensor, groups: int = groups) -> Tensor:
            return conv(x, w, groups)

        yield (
            f"conv{rank}d k{kernel} {channels}->{out} g{groups}",
            outcome(run, exact, x, quantized(weight, "none"), "blocks"),
            outcome(run, exact, x, quantized(weight, "blocks"), "blocks"),
        )


def main(count: int = 0) -> None:
    """Print the outcome of every listed case, or of ``count`` random linears and convolutions."""
    torch.manual_seed(0)
    if count:
        random_shapes(random.Random(0), count)
    rows = [*linear_cases(), *conv_cases()]
    print(json.dumps({name: [asdict(plain), asdict(bound)] for name, plain, bound in rows}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
