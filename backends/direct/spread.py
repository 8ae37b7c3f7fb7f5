"""An image with zero points around its values or between them, laid out before a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quantfx.backends.direct.steps import Fill, Lookup
from quantfx.backends.direct.translate import Translation
from quantfx.backends.direct.values import Buffer, Value, byte_size, channels_last


def spread(
    translation: Translation,
    source: Value,
    *,
    steps: Sequence[int] | None = None,
    low: Sequence[int] | None = None,
    high: Sequence[int] | None = None,
) -> Value:
    """Return the source with zero points around its values, and between them.

    Args:
        translation: Of the graph.
        source: ``(batch, channels, *places)``, integers.
        steps: From one value to the next, in each dimension; 1 by default.
        low: Zero points in front, in each dimension; none by default.
        high: Zero points behind.
    """
    shape, rank = source.layout.shape, source.layout.dim() - 2
    steps, low, high = steps or (1,) * rank, low or (0,) * rank, high or (0,) * rank
    places = [
        front + (size - 1) * step + 1 + back
        for size, step, front, back in zip(shape[2:], steps, low, high, strict=True)
    ]
    layout = channels_last(torch.Size([*shape[:2], *places]), source.layout.dtype)
    made = Value(Buffer(byte_size(layout)), layout, source.scale, source.zero_point, source.shift)
    translation.program.steps.append(Fill(result=made, value=source.zero_point))
    for axis, (size, step, front) in enumerate(zip(shape[2:], steps, low, strict=True)):
        end = front + (size - 1) * step + 1
        layout = layout[(slice(None),) * (axis + 2) + (slice(front, end, step),)]
    translation.program.steps.append(Lookup(source=source, result=made.seen_as(layout)))
    return made


def thinned(translation: Translation, source: Value, steps: Sequence[int]) -> Value:
    """Return every ``steps``-th value of the source, in each dimension."""
    layout = source.layout
    for axis, step in enumerate(steps):
        layout = layout[(slice(None),) * (axis + 2) + (slice(None, None, step),)]
    return translation.laid_out(source.seen_as(layout), channels_last(layout.shape, layout.dtype))
