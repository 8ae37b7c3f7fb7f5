"""Keep integers in a range narrower than their dtype, as ``reduce_range`` asks."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.quant.qdq import TensorQParams
from quantfx.patterns.schema import resolve_op

_FULL = resolve_op("aten.full.default")
_MINIMUM = resolve_op("aten.minimum.default")
_MAXIMUM = resolve_op("aten.maximum.default")
LIMITS = (_MAXIMUM, _MINIMUM)


def limit_range(call: Node, qparams: TensorQParams | None, editor: Editor, before: Node) -> Node:
    """Return ``call`` clamped to the range of ``qparams``; oneDNN itself clamps to the dtype's.

    It is spelled as a minimum and a maximum: after AOTAutograd, Inductor takes no ``clamp``.
    """
    if qparams is None or qparams.limits is None:
        return call
    ends = torch.iinfo(qparams.dtype)
    for op, bound, end in zip(LIMITS, qparams.limits, (ends.min, ends.max), strict=True):
        if bound == end:
            continue
        kwargs: dict[str, Any] = {"dtype": qparams.dtype, "device": call.meta["val"].device}
        value = editor.call(_FULL, ([], bound), kwargs=kwargs, like=call, before=before)
        call = editor.call(op, (call, value), like=call, before=before)
    return call
