"""Transposed convolutions as plain convolutions: exact, while oneDNN 3.2's own err at the edges.

oneDNN's results depend on the number of padding values in a window, which its zero point ignores.
There are two plain forms. *Phases*: every ``stride``-th place of the result is a convolution of the
unchanged source with every ``stride``-th place of the kernel. One convolution computes the channels
of all phases, which are then interleaved (Shi et al. 2016, "Real-time single image and video
super-resolution using an efficient sub-pixel convolutional neural network"). *Spread*: the source
is laid out with zero points between its values, and the kernel is flipped (Dumoulin and Visin 2016,
section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.moves import spread
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Translation
from quantfx.backends.direct.runtime.steps import Lookup
from quantfx.backends.direct.runtime.values import Buffer, Value, byte_size, channels_last
from quantfx.passes.graph.conv_geometry import Geometry


def by_spreading(
    translation: Translation, anchor: Node, weight: Tensor, source: Value
) -> dict[str, Any]:
    """Return the plain convolution, of the spread source, that computes a transposed one.

    Args:
        translation: Of the graph.
        anchor: The transposed convolution.
        weight: ``(in, out / groups, *kernel)``.
        source: ``(batch, in, *places)``.
    """
    geometry = Geometry.of(anchor, tuple(weight.shape[2:]))
    groups, extra = geometry.groups, geometry.output_padding
    assert extra is not None, "it is transposed"
    low = tuple(size - 1 - pad for size, pad in zip(geometry.extent, geometry.front, strict=True))
    high = tuple(pad + more for pad, more in zip(low, extra, strict=True))
    if min(low) < 0:
        raise Untranslatable(anchor, "its padding is wider than its windows")
    if set(geometry.stride) != {1}:
        source = spread(translation, source, steps=geometry.stride)
    key = ("turned", weight.data_ptr(), weight.stride(), groups)
    return {
        "source": source,
        "weight": translation.derive(key, lambda: _turned(weight, groups)),
        "stride": (1,) * len(low),
        "dilation": geometry.dilation,
        "padding_low": low,
        "padding_high": high,
        "groups": groups,
    }


def _turned(weight: Tensor, groups: int) -> Tensor:
    """``(in, out / groups, *kernel)`` to ``(out, in / groups, *kernel)``, flipped."""
    inputs, outputs, *kernel = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
    turned = parts.reshape(groups * outputs, inputs // groups, *kernel)
    return turned.flip(list(range(2, weight.dim()))).contiguous()


@dataclass(frozen=True)
class _Axis:
    """One dimension of a transposed convolution by phases.

    Place ``stride * q + r`` of the result is the sum of ``source[q + e] * kernel[k]`` over all
    ``e`` with ``k * dilation = r + padding - stride * e``.

    Attributes:
        stride: Stride, which is the number of phases.
        padding: Padding of the transposed convolution.
        dilation: Dilation of its kernel.
        kernel: Number of values of the kernel.
        source: Number of places of the source.
        result: Number of places of the result.
    """

    stride: int
    padding: int
    dilation: int
    kernel: int
    source: int
    result: int

    @property
    def places(self) -> int:
        """Number of places of a phase, including those beyond the result."""
        return -(-self.result // self.stride)

    @property
    def first(self) -> int:
        """The least ``e`` of any phase, at most 0: no window begins after the first place."""
        return min(0, -(((self.kernel - 1) * self.dilation - self.padding) // self.stride))

    @property
    def last(self) -> int:
        """The largest ``e``; windows end at or after the end of the source."""
        return max((self.stride - 1 + self.padding) // self.stride, self.source - self.places)

    @property
    def window(self) -> int:
        """Number of values of a window."""
        return self.last - self.first + 1

    @property
    def behind(self) -> int:
        """Number of padding places after the source."""
        return self.places - 1 + self.last - (self.source - 1)

    def taps(self, phase: int) -> Iterator[tuple[int, int]]:
        """Yield places in the window, each with its place in the kernel."""
        for place in range(self.window):
            step = phase + self.padding - self.stride * (self.first + place)
            if step % self.dilation == 0 and 0 <= step // self.dilation < self.kernel:
                yield place, step // self.dilation


def by_phases(
    translation: Translation, anchor: Node, weight: Tensor, common: dict[str, Any]
) -> tuple[dict[str, Any], list[Lookup]] | None:
    """Return the convolution of all phases, and the steps that interleave them.

    Args:
        translation: Of the graph.
        anchor: The transposed convolution.
        weight: ``(in, out, *kernel)``.
        common: Source, result and other fields of the step, for the whole.

    Returns:
        None if the spread source is no more work, or with groups or a summand.
    """
    geometry = Geometry.of(anchor, tuple(weight.shape[2:]))
    source, result = common["source"], common["result"]
    if geometry.groups > 1 or common["summand"] is not None or set(geometry.stride) == {1}:
        return None
    sizes = (geometry.stride, geometry.front, geometry.dilation, geometry.kernel)
    places = (source.layout.shape[2:], result.layout.shape[2:])
    axes = [_Axis(*each) for each in zip(*sizes, *places, strict=True)]
    if prod(axis.window for axis in axes) >= prod(geometry.kernel):
        return None
    phases = list(product(*(range(axis.stride) for axis in axes)))
    count, (batch, width) = len(phases), result.layout.shape[:2]
    key = ("phases", weight.data_ptr(), weight.stride(), tuple(axes))
    shape = torch.Size([batch, width * count, *(axis.places for axis in axes)])
    layout = channels_last(shape, result.layout.dtype)
    made = Value(Buffer(byte_size(layout)), layout, result.scale, result.zero_point, result.shift)
    scales, bias = common["scales"], common["bias"]
    form = {
        "weight": translation.derive(
            key, lambda: torch.cat([_part(weight, axes, phase) for phase in phases])
        ),
        "scales": scales if scales.numel() == 1 else scales.repeat(count),
        "bias": None if bias is None else bias.repeat(count),
        "result": made,
        "stride": (1,) * len(axes),
        "dilation": (1,) * len(axes),
        "padding_low": tuple(-axis.first for axis in axes),
        "padding_high": tuple(axis.behind for axis in axes),
        "groups": 1,
    }
    copies = (_copy(made, result, axes, phase, index * width) for index, phase in enumerate(phases))
    return form, list(copies)


def _part(weight: Tensor, axes: list[_Axis], phase: tuple[int, ...]) -> Tensor:
    """Return the kernel of one phase, ``(out, in, *window)``."""
    inputs, outputs = weight.shape[:2]
    part = weight.new_zeros(outputs, inputs, *(axis.window for axis in axes))
    taps = (axis.taps(at) for axis, at in zip(axes, phase, strict=True))
    for pairs in product(*map(list, taps)):
        to, of = zip(*pairs, strict=True)
        part[(slice(None), slice(None), *to)] = weight[(slice(None), slice(None), *of)].t()
    return part


def _copy(
    made: Value, result: Value, axes: list[_Axis], phase: tuple[int, ...], channel: int
) -> Lookup:
    """Return the step that copies one phase, from ``channel`` on, to its places."""
    to = result.layout
    for dimension, (axis, at) in enumerate(zip(axes, phase, strict=True), 2):
        to = to[(slice(None),) * dimension + (slice(at, None, axis.stride),)]
    of = made.layout.narrow(1, channel, to.shape[1])
    for dimension, size in enumerate(to.shape[2:], 2):
        of = of.narrow(dimension, 0, size)
    return Lookup(source=made.seen_as(of), result=result.seen_as(to))
