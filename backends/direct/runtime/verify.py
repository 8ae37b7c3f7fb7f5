"""Verify that oneDNN computes correctly on this machine, by small convolutions and products.

Kernels and their faults differ between CPUs. So the first use on a machine compares some of each
kind with float arithmetic; if one is off by more than a step, the runtime reports it and is not
used.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import CDLL
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from quantfx.backends.checks import targets
from quantfx.backends.direct.runtime.plan import Plan, Store
from quantfx.backends.direct.runtime.steps import Convolution, MatMul, PostOp, Program, Step
from quantfx.backends.direct.runtime.values import (
    Buffer,
    Value,
    byte_size,
    channels_last,
    in_order,
    layout_of,
)

_SCALE, _ZERO = 0.05, 100


class _Case(NamedTuple):
    """One convolution, of images of 9 x 9."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    groups: int
    zero_point: int
    adds: bool

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self._asdict().items()]
        return f"a convolution with {', '.join(words)}"


def first_fault(library: CDLL) -> str:
    """Return what the runtime computes wrongly here; empty if nothing is found."""
    generator = torch.Generator().manual_seed(0)
    for case in _cases():
        if not _convolution_is_right(library, case, generator):
            return str(case)
    for rows, width, outputs in product((1, 5), (3, 64, 100), (1, 30, 64)):
        if not _linear_is_right(library, rows, width, outputs, generator):
            return f"a product of {rows} x {width} by {width} x {outputs}"
        if not _product_is_right(library, rows, width, outputs, generator):
            return f"a product of two activations, {rows} x {width} and {width} x {outputs}"
    return ""


def _cases() -> Iterator[_Case]:
    shapes = (
        (3, 16, 1),
        (16, 16, 1),
        (20, 24, 1),
        (24, 8, 1),
        (16, 16, 16),
        (20, 20, 20),
        (16, 32, 2),
    )
    windows = ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2))
    for (inputs, outputs, groups), (kernel, stride, padding) in product(shapes, windows):
        if kernel == 1 and stride > 1 and inputs // groups % 16 == 8:
            continue  # there, plans copy every n-th value beforehand
        for zero_point, adds in ((0, False), (128, False), (37, True)):
            yield _Case(inputs, outputs, kernel, stride, padding, groups, zero_point, adds)


def _bytes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _weight(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    most = 64 if targets.host().saturates else 127
    return torch.randint(-most, most + 1, shape, generator=generator, dtype=torch.int8)


def _value(tensor: Tensor, place: str, index: int, zero_point: int) -> Value:
    layout = layout_of(tensor)
    buffer = Buffer(byte_size(layout), place, index)  # type: ignore[arg-type]
    return Value(buffer, layout, _SCALE, zero_point)


def _convolution_is_right(library: CDLL, case: _Case, generator: torch.Generator) -> bool:
    x = _bytes((2, case.inputs, 9, 9), generator).contiguous(memory_format=torch.channels_last)
    weight = _weight((case.outputs, case.inputs // case.groups, *[case.kernel] * 2), generator)
    scales = torch.rand(case.outputs, generator=generator) * 0.01 + 0.001
    bias = torch.randn(case.outputs, generator=generator)
    exact = F.conv2d(
        (x.float() - case.zero_point) * _SCALE,
        weight.float() * scales.view(-1, 1, 1, 1),
        bias,
        case.stride,
        case.padding,
        groups=case.groups,
    )
    other = _bytes(tuple(exact.shape), generator).contiguous(memory_format=torch.channels_last)
    layout = channels_last(exact.shape, torch.uint8)
    result = Value(Buffer(byte_size(layout), "output", 0), layout, _SCALE, _ZERO)
    both = (case.stride,) * 2, (case.padding,) * 2
    step = Convolution(
        source=_value(x, "input", 0, case.zero_point),
        result=result,
        summand=_value(other, "input", 1, _ZERO) if case.adds else None,
        scales=scales,
        bias=bias,
        post=(PostOp("sum"), PostOp("relu")) if case.adds else (PostOp("relu"),),
        weight=weight,
        stride=both[0],
        dilation=(1, 1),
        padding_low=both[1],
        padding_high=both[1],
        groups=case.groups,
    )
    exact = F.relu(exact + (other.float() - _ZERO) * _SCALE if case.adds else exact)
    return _is_right(library, step, [x, other], exact)


def _linear_is_right(
    library: CDLL, rows: int, width: int, outputs: int, generator: torch.Generator
) -> bool:
    x, weight = _bytes((rows, width), generator), _weight((outputs, width), generator)
    scales = torch.rand(outputs, generator=generator) * 0.01 + 0.001
    exact = F.linear((x.float() - 77) * _SCALE, weight.float() * scales.view(-1, 1))
    layout = in_order(exact.shape, torch.uint8)
    step = MatMul(
        source=_value(x, "input", 0, 77),
        weight=Value(Buffer(0, "constant", constant=weight), layout_of(weight.t())),
        result=Value(Buffer(byte_size(layout), "output", 0), layout, _SCALE, _ZERO),
        scales=scales,
    )
    return _is_right(library, step, [x], exact)


def _product_is_right(
    library: CDLL, rows: int, width: int, outputs: int, generator: torch.Generator
) -> bool:
    x, y = _bytes((2, rows, width), generator), _weight((2, width, outputs), generator)
    exact = (x.float() - 77) * _SCALE @ ((y.float() + 5) * _SCALE)
    layout = in_order(exact.shape, torch.uint8)
    step = MatMul(
        source=_value(x, "input", 0, 77),
        weight=_value(y, "input", 1, -5),
        result=Value(Buffer(byte_size(layout), "output", 0), layout, _SCALE, _ZERO),
        post=(PostOp("linear", 0.05, 0.0),),
    )
    return _is_right(library, step, [x, y], exact * 0.05)


def _is_right(library: CDLL, step: Step, inputs: list[Tensor], exact: Tensor) -> bool:
    """Whether a step is within one step of quantization from ``q(exact)``."""
    program = Program([step])
    program.outputs.append(step.result.layout)
    (found,) = Plan(Store(library), program, torch.get_num_threads()).run(inputs)
    expected = (torch.round(exact / _SCALE) + _ZERO).clamp(0, 255)
    return bool((found.float() - expected).abs().max() <= 1)
