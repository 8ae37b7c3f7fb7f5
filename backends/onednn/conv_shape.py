"""The shape that oneDNN's int8 convolutions work in, and padding and strides beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.fx import Node

from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate
from quantfx.patterns.schema import resolve_op

_SLICE = resolve_op("aten.slice.Tensor")
_TO_THE_END = 2**63 - 1
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")
_SQUEEZE = resolve_op("aten.squeeze.dim")


_PAD = resolve_op("aten.constant_pad_nd.default")


class ConvShape:
    """The shape that the kernel works in: with a batch, and with at least two spatial dimensions.

    Attributes:
        geometry: Geometry of the convolution, in the kernel's dimensions.

    torch 2.13: a packed one-dimensional weight says that it has four dimensions, by which Inductor
    infers a wrong shape of the result when it freezes; and that kernel fuses fewer activations.
    """

    def __init__(self, candidate: Candidate, editor: Editor, before: Node) -> None:
        self._node, self._editor, self._before = candidate.anchor, editor, before
        self._weight = candidate.quantized("weight")
        self._rank = self._weight.meta["val"].dim() - 2
        self._batched = candidate.quantized("input").meta["val"].dim() == self._rank + 2
        self._flat = self._rank == 1
        kernel = tuple(int(size) for size in self._weight.meta["val"].shape[2:])
        geometry = Geometry.of(self._node, kernel)
        self.geometry = geometry.flat if self._flat else geometry

    def add_dimensions(self, x: Node) -> Node:
        """Return ``x`` with its missing dimensions, of size 1."""
        if not self._batched:
            x = self._call(_UNSQUEEZE, x, 0)
        return self._call(_UNSQUEEZE, x, 2) if self._flat else x

    def drop_dimensions(self, result: Node) -> Node:
        """Return ``result`` without the added dimensions."""
        result = self._call(_SQUEEZE, result, 2) if self._flat else result
        return result if self._batched else self._call(_SQUEEZE, result, 0)

    def weight(self) -> Node:
        """Return the integers of the weight in the kernel's dimensions."""
        node = self._weight
        value = self._editor.stored(node)
        if not self._flat or value is None:
            return node
        name = f"{node.target}_2d"
        flat = value.unsqueeze(2)
        return self._editor.shared_constant(name, flat, like=node, before=self._before)

    @property
    def channels(self) -> int:
        """The input channels of one group."""
        return int(self._weight.meta["val"].shape[1])

    def _call(self, op: Any, x: Node, axis: int) -> Node:
        return self._editor.call(op, (x, axis), like=self._node, before=self._before)


def narrow_padding(
    x: Node, zero_point: Any, geometry: Geometry, editor: Editor, before: Node
) -> tuple[Node, Geometry]:
    """Return the integers, and the geometry with the padding that is left to the kernel.

    The integers are padded beforehand if the kernel cannot pad them: with more padding at one end
    than at the other, or with windows entirely in the padding. torch 2.13, AVX512: with one channel
    per group, such a convolution adds arbitrary memory to its result instead of the correction for
    the zero point.

    Args:
        x: Integers in the kernel's dimensions.
        zero_point: The integer for 0.0.
        geometry: Geometry of the convolution, in the kernel's dimensions.
        editor: Editor of the graph.
        before: The node to write before.
    """
    pairs = zip(geometry.front, geometry.extent, strict=True)
    if geometry.is_even and all(front < extent for front, extent in pairs):
        return x, geometry
    return pad_beforehand(x, zero_point, geometry, editor, before)


def narrow_steps(
    x: Node, geometry: Geometry, channels: int, editor: Editor, before: Node
) -> tuple[Node, Geometry]:
    """Return the integers, and the geometry with the stride that is left to the kernel.

    A convolution of single pixels does not read the pixels that its stride skips. If the kernel
    skips them wrongly, they are dropped beforehand. torch 2.13, limited to AVX2: with 8, 24, 40,
    ... channels per group and more than one thread, results differ between calls.

    Args:
        x: Integers in the kernel's dimensions, padded.
        geometry: Geometry of the convolution over them.
        channels: Input channels of one group.
        editor: Editor of the graph.
        before: The node to write before.
    """
    if any(extent > 1 for extent in geometry.extent) or channels % 16 != 8:
        return x, geometry
    for axis, step in enumerate(geometry.stride, start=2):
        if step > 1:
            args = (x, axis, 0, _TO_THE_END, step)
            x = editor.call(_SLICE, args, like=x, before=before)
    return x, replace(geometry, stride=(1,) * len(geometry.stride))


def pad_beforehand(
    x: Node, zero: Any, geometry: Geometry, editor: Editor, before: Node
) -> tuple[Node, Geometry]:
    """Return ``x`` padded by ``geometry``, and the geometry without padding.

    Args:
        x: The input of the convolution.
        zero: The value for 0.0 in ``x``.
        geometry: Geometry of the convolution.
        editor: Editor of the graph.
        before: The node to write before.
    """
    padded = editor.call(_PAD, (x, geometry.ends, zero), like=x, before=before)
    return padded, replace(geometry, padding=((0, 0),) * len(geometry.padding))
