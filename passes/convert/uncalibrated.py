"""Conversions that need no calibration: ranges found in each call, and casts."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.quant.annotation import GROUP_KEY
from quantfx.passes.quant.qdq import (
    CAST,
    DEQUANTIZE_DYNAMIC,
    QUANTIZE_DYNAMIC,
    choose_qparams_op,
)
from quantfx.passes.quant.spec import CastSpec, QuantSpec


def convert_uncalibrated(editor: Editor, node: Node, spec: QuantSpec | CastSpec) -> None:
    """Replace the placeholder observer ``node`` by the operators that its spec asks for.

    ``f(observe(x)), g(observe(x))`` becomes, for a dynamic spec, ``f(d), g(d)`` with
    ``d = dq(q(x, *choose(x)), *choose(x))``; for a cast each reader gets its own cast back.
    """
    if isinstance(spec, CastSpec):
        _cast(editor, node, spec)
    else:
        _quantize_dynamically(editor, node, spec)


def _quantize_dynamically(editor: Editor, node: Node, spec: QuantSpec) -> None:
    producer = node.all_input_nodes[0]
    choose = choose_qparams_op(spec.symmetric)
    whole = (spec.quant_min, spec.quant_max)
    chosen = editor.call(
        choose, (producer, *whole, spec.eps, spec.dtype), like=producer, before=node
    )
    scale, zero_point = (
        editor.call(operator.getitem, (chosen, index), like=producer, before=node)
        for index in (0, 1)
    )
    val = producer.meta.get("val")
    given = (scale, zero_point, *whole, spec.dtype)
    integers = val.to(spec.dtype) if isinstance(val, Tensor) else None
    q = editor.call(QUANTIZE_DYNAMIC, (producer, *given), like=producer, before=node, val=integers)
    q.meta[GROUP_KEY] = str(node.target)
    # One dq for all readers: they share one range, and Inductor expects that form.
    dq = editor.call(DEQUANTIZE_DYNAMIC, (q, *given), like=producer, before=node, val=val)
    editor.replace(node, dq)


def _cast(editor: Editor, node: Node, spec: CastSpec) -> None:
    producer = node.all_input_nodes[0]
    val: Any = producer.meta.get("val")
    known = isinstance(val, Tensor)
    narrow = editor.call(
        CAST,
        (producer, spec.dtype),
        like=producer,
        before=node,
        val=val.to(spec.dtype) if known else None,
    )
    dtype = val.dtype if known else torch.float32
    for user in list(node.users):
        wide = editor.call(CAST, (narrow, dtype), like=producer, before=user, val=val)
        user.replace_input_with(node, wide)
    editor.erase(node)
