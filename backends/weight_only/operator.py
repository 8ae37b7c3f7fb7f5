"""The operator ``quantfx::weight_linear``: float rows times rows of int8 or int4.

It equals dequantize and linear in float32, up to float rounding; ``_linear`` computes this in
blocks. Few rows go through the kernels of ``core/``, which read each byte of the weight once: a
single row as integers of 31 bits, several rows as floats. For more rows products dominate, which
torch computes.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from quantfx.backends.weight_only.library import kernels, missing
from quantfx.passes.graph.own_operators import define
from quantfx.passes.quant.nibbles import unpack_nibbles

NAME = "weight_linear"
# With this many rows the products take as long as dequantizing the weight.
FEW_ROWS = 8
# Values dequantized at once, 1 MiB: they stay in the cache until they are multiplied.
_BLOCK = 2**18


def kernel_name() -> str:
    """Return the kernel's name in reports; without a compiler, torch's operators stand in."""
    return f"{NAME} (no kernel here: torch)" if missing() else NAME


@lru_cache(maxsize=1)
def weight_linear() -> OpOverload[..., Any]:
    """Define the operator, once per process, and return it.

    ``weight`` is int8 ``(N, K)``, or uint8 ``(N, K / 2)`` from ``pack_nibbles``; ``scales`` are ``N
    * groups`` float32 values. ``zero_points`` are as many int8 values in [-8, 7], or None, which
    they are for int8.
    """
    given = "Tensor x, Tensor weight, Tensor scales, Tensor? zero_points, Tensor? bias"
    return define(f"{NAME}({given}) -> Tensor", _run, _fake)


def _fake(
    x: Tensor, weight: Tensor, scales: Tensor, zero_points: Tensor | None, bias: Tensor | None
) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _run(
    x: Tensor, weight: Tensor, scales: Tensor, zero_points: Tensor | None, bias: Tensor | None
) -> Tensor:
    # A token is decoded by a hundred calls, so this makes few objects: each is a microsecond.
    shape = x.shape
    inputs = shape[-1]
    given = _Weight(weight, scales, zero_points, inputs)
    rows = math.prod(shape[:-1])
    if rows <= FEW_ROWS and given.library is not None:
        y = given.few(given.library, x, rows, bias)
    else:
        y = _linear(x.reshape(-1, inputs), given)
        if bias is not None:
            y += bias
        y = y.reshape(*shape[:-1], given.channels)
    return y if y.dtype == x.dtype else y.to(x.dtype)


class _Weight:
    """A quantized weight of ``inputs`` columns, whose memory kernels can read."""

    def __init__(
        self, weight: Tensor, scales: Tensor, zero_points: Tensor | None, inputs: int
    ) -> None:
        self.values = weight.contiguous()
        self.scales = scales.contiguous()
        self.zeros = None if zero_points is None else zero_points.contiguous()
        self.channels, self.inputs = weight.shape[0], inputs
        self.groups = scales.numel() // max(self.channels, 1)
        self.library = kernels().library

    @property
    def _arguments(self) -> tuple[int | None, ...]:
        return (
            4 if self.values.dtype == torch.uint8 else 8,
            self.values.data_ptr(),
            self.scales.data_ptr(),
            None if self.zeros is None else self.zeros.data_ptr(),
            self.channels,
            self.groups,
            self.inputs // max(self.groups, 1),
            torch.get_num_threads(),
        )

    def few(self, library: ctypes.CDLL, x: Tensor, rows: int, bias: Tensor | None) -> Tensor:
        """Return the product with few rows, float32."""
        y = x.new_empty(*x.shape[:-1], self.channels, dtype=torch.float32)
        x = x.float().contiguous()
        added = None if bias is None else bias.float().contiguous()
        address = None if added is None else added.data_ptr()
        weight, row, to = self._arguments, x.data_ptr(), y.data_ptr()
        # Integers cannot stand for infinities, for instance; floats can.
        if rows != 1 or not library.qfx_weight_one_row(*weight, row, address, to):
            library.qfx_weight_linear(*weight, row, rows, address, to)
        return y

    def floats(self, first: int, into: Tensor) -> None:
        """Write the values of ``len(into)`` channels, from ``first`` on, to float32 ``into``."""
        if self.library is not None:
            self.library.qfx_weight_dequantize(*self._arguments, first, len(into), into.data_ptr())
            return
        parted = self.integers(first, len(into))
        part = slice(first, first + len(into))
        scales = self.scales.reshape(-1, self.groups)[part].unsqueeze(2)
        torch.mul(parted, scales, out=into.view(parted.shape))

    def integers(self, first: int, count: int) -> Tensor:
        """Return ``count`` channels, from ``first`` on, minus their zero points, by groups."""
        part = slice(first, first + count)
        values = self.values[part]
        values = unpack_nibbles(values) if values.dtype == torch.uint8 else values
        parted = values.reshape(count, self.groups, -1)
        if self.zeros is None:
            return parted
        return parted - self.zeros.reshape(-1, self.groups)[part].unsqueeze(2)


def _linear(x: Tensor, weight: _Weight) -> Tensor:
    """Return the product, computed by blocks of channels; in bfloat16 if the CPU has it."""
    # bfloat16 holds every integer of 8 bits, but would round what a scale makes of it: of int4 by a
    # small part of a step, of int8 by up to a quarter.
    by_integers = weight.groups == 1
    fits = by_integers or weight.values.dtype == torch.uint8
    in_bfloat16 = fits and x.dtype == torch.bfloat16 and _computes_in_bfloat16()
    by_integers = by_integers and in_bfloat16
    dtype = torch.bfloat16 if in_bfloat16 else torch.float32
    x = x.to(dtype)
    y = x.new_empty(len(x), weight.channels)
    size = min(max(_BLOCK // max(weight.inputs, 1), 1), max(weight.channels, 1))
    block = torch.empty(size, weight.inputs)
    for first in range(0, weight.channels, size):
        part = block[: min(size, weight.channels - first)]
        if by_integers:
            part = weight.integers(first, len(part)).squeeze(1)
        else:
            weight.floats(first, part)
        torch.mm(x, part.t().to(dtype), out=y[:, first : first + len(part)])
    return y.mul_(weight.scales.flatten()) if by_integers else y


@lru_cache(maxsize=1)
def _computes_in_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16", False) or known.get("amx_bf16", False))
