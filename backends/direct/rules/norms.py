"""Norms of rows and of groups of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.backends.direct.rules.operands import of_channels, source_of
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.runtime.steps import LayerNorm, Pointwise
from quantfx.backends.direct.runtime.values import Buffer, Value, byte_size, in_order
from quantfx.patterns.schema import argument_value, resolve_op

LAYER_NORM = resolve_op("aten.layer_norm.default")
RMS_NORM = resolve_op("aten.rms_norm.default")
GROUP_NORM = resolve_op("aten.group_norm.default")
INSTANCE_NORM = resolve_op("aten.instance_norm.default")


def layer_norm(translation: Translation, task: Task) -> Value:
    """Normalize rows: about their mean, or by the root of their mean square."""
    base = task.base
    centered = base.target is not RMS_NORM
    source, covered = source_of(translation, task)
    if len(argument_value(base, "normalized_shape")) != 1:
        raise Untranslatable(base, "it normalizes over more than the last dimension")
    constants: list[Tensor | None] = []
    for name in ("weight", "bias"):
        node = argument_value(base, name) if name == "weight" or centered else None
        constants.append(translation.constant(node))
        if node is not None and (constants[-1] is None or constants[-1].dtype != torch.float32):
            raise Untranslatable(base, f"its {name} is no stored float32 tensor")
    layout = in_order(translation.shapes[base].shape, torch.float32)
    result = translation.result(task, layout)
    epsilon = argument_value(base, "eps")
    step = LayerNorm(
        source=source,
        result=result,
        weight=constants[0],
        bias=constants[1],
        epsilon=torch.finfo(torch.float32).eps if epsilon is None else float(epsilon),
        centered=centered,
        **translation.limits(task),
    )
    return translation.add(step, task, *covered)


def group_norm(translation: Translation, task: Task) -> Value:
    """Normalize each group of channels as a row; then apply weight and bias of each channel."""
    base = task.base
    source, covered = source_of(translation, task)
    shape = source.layout.shape
    if base.target is not GROUP_NORM and not argument_value(base, "use_input_stats"):
        raise Untranslatable(base, "it goes by stored statistics")
    groups = int(argument_value(base, "num_groups")) if base.target is GROUP_NORM else shape[1]
    layout = in_order(shape, torch.float32)
    made, normal = (Value(Buffer(byte_size(layout)), layout) for _ in range(2))
    rows = layout.view(shape[0] * groups, -1)
    translation.program.steps += [
        Pointwise(source=source, result=made),
        LayerNorm(
            source=made.seen_as(rows),
            result=normal.seen_as(rows),
            weight=None,
            bias=None,
            epsilon=float(argument_value(base, "eps")),
        ),
    ]
    factors, summands = (of_channels(translation, base, name) for name in ("weight", "bias"))
    if factors is not None:
        step = Pointwise(source=normal, other=factors, combine="mul", result=normal)
        translation.program.steps.append(step)
    step = Pointwise(
        source=normal,
        other=summands,
        combine="first" if summands is None else "add",
        result=translation.result(task, translation.wanted_layout(task, layout)),
        **translation.limits(task),
    )
    return translation.add(step, task, *covered)
