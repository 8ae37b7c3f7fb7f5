"""Linear interpolation: images and signals of other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.operands import source_of
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.runtime.steps import Interpolate
from quantfx.backends.direct.runtime.values import Value, channels_last, in_order
from quantfx.patterns.schema import argument_value, resolve_op

_LINEAR: Any = resolve_op("aten.upsample_linear1d.vec")
# Maps an operator to its number of dimensions.
_DIMENSIONS = {
    _LINEAR: 1,
    resolve_op("aten.upsample_bilinear2d.vec"): 2,
    resolve_op("aten.upsample_trilinear3d.vec"): 3,
}
INTERPOLATIONS = frozenset(_DIMENSIONS)


def interpolate(translation: Translation, task: Task) -> Value:
    """Compute ``q(post(interpolated(x)))`` from the nearest values in each dimension."""
    base = task.base
    source, covered = source_of(translation, task)
    shape = translation.shapes[base].shape
    lies_last = source.layout.stride()[1] == 1
    layout = (channels_last if lies_last else in_order)(shape, torch.float32)
    result = translation.result(task, translation.wanted_layout(task, layout))
    step = Interpolate(
        source=source,
        result=result,
        tables=tuple(_tables(base, source.layout.shape[2:], shape[2:])),
        **translation.limits(task),
    )
    return translation.add(step, task, *covered)


def _tables(node: Node, sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    """Return for each dimension ``(size, 3)``: two places, and the weight of the second."""
    given = argument_value(node, "output_size"), argument_value(node, "scale_factors")
    tables: list[Tensor] = []
    for axis, size in enumerate(sizes):
        own = [None if each is None else [each[axis]] for each in given]
        table = _nearest(size, own[0], argument_value(node, "align_corners"), own[1])
        assert table.shape[0] == wanted[axis], "torch itself says both"
        tables.append(table)
    return tables


def _nearest(size: int, *how: Any) -> Tensor:
    """Return the table of one dimension as torch's operator has it.

    The operator is applied to three signals, of ones at every third place: two neighbours are in
    different ones, so that the results are the two weights. A ramp says which neighbours they are.
    """
    places = torch.arange(size, device="cpu")
    signals = torch.stack([*(places % 3 == part for part in range(3)), places]).float()
    *parts, ramp = _LINEAR(signals[None], *how)[0]
    weights = torch.stack(parts)  # (3, size of the result)
    first = ((weights != 0) & (weights.roll(1, 0) == 0)).int().argmax(0)
    rest = weights.gather(0, ((first + 1) % 3)[None])[0]
    low = ((ramp - rest - first) / 3).round() * 3 + first
    return torch.stack([low, (low + 1).clamp(max=size - 1), rest], 1).contiguous()
