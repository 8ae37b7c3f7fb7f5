"""Tensors that shapes alone decide, such as causal masks: stored with a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.runtime.steps import View
from quantfx.backends.direct.runtime.values import Buffer, Value, layout_of
from quantfx.patterns.schema import argument_value, resolve_op

NEW_FULL = resolve_op("aten.new_full.default")
TRIU = resolve_op("aten.triu.default")


def new_full(translation: Translation, task: Task) -> Value:
    """Store ``new_full``, of float32."""
    fill = argument_value(task.base, "fill_value")
    shape = translation.shapes[task.base].shape
    made = translation.derive(("full", shape, fill), lambda: torch.full(shape, float(fill)))
    return _stored(translation, task, made)


def triu(translation: Translation, task: Task) -> Value:
    """Store the upper triangle of a stored tensor."""
    stored = translation.value(task.base.all_input_nodes[0]).buffer.constant
    if stored is None:
        raise Untranslatable(task.base, f"no step computes {task.base.target}")
    diagonal = argument_value(task.base, "diagonal")
    key = ("triu", stored.data_ptr(), stored.shape, stored.stride(), diagonal)
    return _stored(translation, task, translation.derive(key, lambda: stored.triu(diagonal)))


def _stored(translation: Translation, task: Task, made: Tensor) -> Value:
    if task.nodes:
        raise Untranslatable(task.base, "what follows a stored tensor is not computed beforehand")
    value = Value(Buffer(0, "constant", constant=made), layout_of(made))
    view = View(source=value, result=value, nodes=(task.base,), output=task.base)
    translation.program.views.append(view)
    return value
