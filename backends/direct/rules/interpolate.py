"""Linear interpolation: images and signals of other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.operands import source_of
from quantfx.backends.direct.rules.shapes import Untranslatable
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
_LARGEST = 2**26  # values of the matrix that a table is made of


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
    """Return for each dimension ``(size of the result, 3)``: two places, the second one's weight.

    torch itself says them: the operator in one dimension is applied to an identity, whose columns
    are the weights of each place.
    """
    given = argument_value(node, "output_size"), argument_value(node, "scale_factors")
    tables: list[Tensor] = []
    for axis, (size, made) in enumerate(zip(sizes, wanted, strict=True)):
        if size * made > _LARGEST:
            raise Untranslatable(node, f"a table of {size} times {made} values is too large")
        own = [None if each is None else [each[axis]] for each in given]
        arguments = own[0], argument_value(node, "align_corners"), own[1]
        weights: Tensor = _LINEAR(torch.eye(size)[None], *arguments)[0].T  # (made, size)
        tables.append(_nearest(weights))
    return tables


def _nearest(weights: Tensor) -> Tensor:
    """Return the two places of each row that have a weight, and the weight of the second."""
    size = weights.shape[1]
    first = weights.ne(0).int().argmax(1)
    second = (first + 1).clamp(max=size - 1)
    rest = torch.where(second > first, weights.gather(1, second[:, None])[:, 0], 0.0)
    return torch.stack([first.float(), second.float(), rest], 1).contiguous()
