"""Transposed convolutions as plain ones: exact, where oneDNN 3.2's own err at the edges.

Its results depend on how many values of a window are padding, which its zero point leaves out. So
the source is spread, with zero points between, and the kernel turned around
(``conv_transpose(x, w) = conv(spread(x), flip(w))``; Dumoulin and Visin 2016, section 4).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.shapes import Untranslatable
from quantfx.backends.direct.spread import spread
from quantfx.backends.direct.steps import Convolution
from quantfx.backends.direct.translate import Translation
from quantfx.passes.graph.conv_geometry import Geometry


def transposed_convolution(
    translation: Translation, anchor: Node, weight: Tensor, common: dict[str, Any]
) -> Convolution:
    """Return the plain convolution that computes a transposed one.

    Args:
        translation: Of the graph.
        anchor: The transposed convolution.
        weight: ``(in, out / groups, *kernel)``.
        common: Source, result and what else the step has.
    """
    geometry = Geometry.of(anchor, tuple(weight.shape[2:]))
    groups, extra = geometry.groups, geometry.output_padding
    assert extra is not None, "it is transposed"
    low = tuple(size - 1 - pad for size, pad in zip(geometry.extent, geometry.front, strict=True))
    high = tuple(pad + more for pad, more in zip(low, extra, strict=True))
    if min(low) < 0:
        raise Untranslatable(anchor, "its padding is wider than its windows")
    source = common.pop("source")
    if set(geometry.stride) != {1}:
        source = spread(translation, source, steps=geometry.stride)
    key = ("turned", weight.data_ptr(), weight.stride(), groups)
    if key not in translation.derived:
        translation.derived[key] = _turned(weight, groups)
    return Convolution(
        source=source,
        weight=translation.derived[key],
        stride=(1,) * len(low),
        dilation=geometry.dilation,
        padding_low=low,
        padding_high=high,
        groups=groups,
        **common,
    )


def _turned(weight: Tensor, groups: int) -> Tensor:
    """``(in, out / groups, *kernel)`` to ``(out, in / groups, *kernel)``, flipped."""
    inputs, outputs, *kernel = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
    turned = parts.reshape(groups * outputs, inputs // groups, *kernel)
    return turned.flip(list(range(2, weight.dim()))).contiguous()
