"""Scaled dot product attention as two matrix products and a softmax, in float."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.anchors import in_groups, multiply, operand
from quantfx.backends.direct.shapes import Untranslatable
from quantfx.backends.direct.steps import MatMul, Pointwise, PostOp, Softmax
from quantfx.backends.direct.translate import Task, Translation
from quantfx.backends.direct.values import Buffer, Value, byte_size, in_order
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.patterns.schema import argument_value, resolve_op

ATTENTION = resolve_op("aten.scaled_dot_product_attention.default")
_LARGEST = float(torch.finfo(torch.float32).max)


def attention(translation: Translation, task: Task) -> Value:
    """Compute ``q(post(softmax(query @ key.T * scale + mask) @ value))``."""
    base = task.base
    names = ("query", "key", "value")
    nodes = [argument_node(base, name) for name in names]
    _check(base, [translation.shapes[node] for node in nodes])
    shape = translation.shapes[base].shape
    query, key, value = (operand(translation, node, shape) for node in nodes)
    groups = 1
    if argument_value(base, "enable_gqa"):
        groups = key.layout.shape[-3]
    if groups > 1:  # one head of keys broadcasts to every query
        query = query.seen_as(in_groups(query.layout, groups))
        key, value = (each.seen_as(each.layout.unsqueeze(-3)) for each in (key, value))
    weights = _weights(translation, base, query, key)
    mask = argument_value(base, "attn_mask")
    if mask is not None:
        _add_mask(translation, mask, weights, groups)
    causal = bool(argument_value(base, "is_causal"))
    translation.program.steps.append(
        Softmax(source=weights, result=weights, causal=causal, empty_is_zero=True)
    )
    return multiply(translation, task, weights, value, groups)


def _check(base: Node, given: list[Tensor]) -> None:
    dropped = argument_value(base, "dropout_p")
    if dropped:
        raise Untranslatable(base, f"it drops weights out with a probability of {dropped}")
    query, key, value = given
    if not argument_value(base, "enable_gqa"):
        return
    if query.dim() > 5 or key.shape[-3] != value.shape[-3]:
        raise Untranslatable(base, "its groups are of six dimensions, or keys and values differ")


def _weights(translation: Translation, base: Node, query: Value, key: Value) -> Value:
    """Return ``query @ key.T * scale``."""
    scale = argument_value(base, "scale")
    if scale is None:
        scale = 1.0 / math.sqrt(query.layout.shape[-1])
    q, k = query.layout.shape, key.layout.shape
    batch = map(max, q[:-2], k[:-2])  # if they differ, one is 1
    layout = in_order(torch.Size([*batch, q[-2], k[-2]]), torch.float32)
    made = Value(Buffer(byte_size(layout)), layout)
    turned = key.seen_as(key.layout.transpose(-1, -2))
    post = (PostOp("linear", float(scale), 0.0),)
    translation.program.steps.append(MatMul(source=query, weight=turned, result=made, post=post))
    return made


def _add_mask(translation: Translation, node: Node, weights: Value, groups: int) -> None:
    """Add the mask to the weights in place."""
    mask = translation.value(node)
    if translation.shapes[node].dtype == torch.bool:
        mask = _as_summand(translation, mask)
    shape = weights.layout.shape
    if groups > 1:
        shape = torch.Size([*shape[:-4], shape[-4] * shape[-3], *shape[-2:]])
    layout = mask.layout.expand(shape)
    layout = in_groups(layout, groups) if groups > 1 else layout
    step = Pointwise(source=weights, other=mask.seen_as(layout), combine="add", result=weights)
    translation.program.steps.append(step)


def _as_summand(translation: Translation, mask: Value) -> Value:
    """Return -inf where a mask of bytes is 0, and 0 where it is 1."""
    layout = mask.layout
    for axis, stride in enumerate(layout.stride()):
        layout = layout if stride else layout.narrow(axis, 0, 1)
    made = in_order(layout.shape, torch.float32)
    result = Value(Buffer(byte_size(made)), made)
    # A scale of infinity would turn 0 into NaN; ten times the largest number overflows to infinity.
    scaled = Value(mask.buffer, layout, scale=_LARGEST, zero_point=1)
    beyond = (PostOp("linear", 10.0, 0.0),)
    translation.program.steps.append(Pointwise(source=scaled, result=result, post=beyond))
    return result
