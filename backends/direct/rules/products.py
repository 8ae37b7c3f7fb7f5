"""Products of two activations: matrix products, and attention as two of them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.checks.targets import host
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import (
    INT8_SHIFT,
    Task,
    Translation,
    flip,
    shift_of,
    views_of_integers,
)
from quantfx.backends.direct.runtime.steps import Lookup, MatMul, Pointwise, PostOp, Softmax
from quantfx.backends.direct.runtime.values import Buffer, Value, byte_size, in_order
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.passes.quant.qdq import tensor_qparams
from quantfx.patterns.schema import argument_value, resolve_op

ATTENTION = resolve_op("aten.scaled_dot_product_attention.default")
_LARGEST = float(torch.finfo(torch.float32).max)


def matmul(translation: Translation, task: Task) -> Value:
    """Compute ``q(post(a @ b))`` of two activations, in integers if that is exact here."""
    a, b = task.base.all_input_nodes if len(task.base.all_input_nodes) == 2 else (None, None)
    if a is None or b is None or task.base.args[:2] != (a, b):
        raise Untranslatable(task.base, "its operands are not two tensors")
    shape = translation.shapes[task.base].shape
    left, right = translation.value(a), translation.value(b)
    for node, value in ((a, left), (b, right)):
        if value.layout.dim() < 2:
            raise Untranslatable(node, "an operand of a matrix product has one dimension")
    if left.is_integer and right.is_integer and _sums_are_exact(a, b):
        return _multiply_integers(translation, task, left, right)
    left, right = (operand(translation, node, shape) for node in (a, b))
    return multiply(translation, task, left, right)


def _multiply_integers(translation: Translation, task: Task, left: Value, right: Value) -> Value:
    """Compute ``q(post(left @ right))`` in one step, which adds the products up in 32 bits."""
    _require_products(task, left)
    shape = translation.shapes[task.base].shape
    dtype = torch.float32 if task.quantize is None else torch.uint8
    result = translation.result(task, in_order(shape, dtype), any_order=False)
    step = MatMul(
        source=_as_matrices(translation, left, shape),
        weight=_as_int8(translation, _of_rank(right, len(shape))),
        result=result,
        **translation.limits(task),
    )
    edges = [node for each in task.base.all_input_nodes for node in views_of_integers(each)]
    return translation.add(step, task, *edges, task.base)


def _sums_are_exact(left: Node, right: Node) -> bool:
    """Whether no sum of two products leaves 16 bits, or sums have 32 bits on this machine."""
    if not host().saturates:
        return True
    (_, largest), (low, high) = map(_range_in_memory, (left, right))
    return 2 * largest * max(abs(low - INT8_SHIFT), abs(high - INT8_SHIFT)) < 2**15


def _range_in_memory(node: Node) -> tuple[int, int]:
    """Return the least and the largest byte of the integers behind ``node``."""
    source = views_of_integers(node)
    if not source:
        return 0, 255
    q = tensor_qparams(source[0])
    return q.quant_min + shift_of(q), q.quant_max + shift_of(q)


def _as_int8(translation: Translation, value: Value) -> Value:
    """Return a copy in int8, the dtype that oneDNN wants to the right of a product."""
    zero_point = value.zero_point - INT8_SHIFT
    if (stored := value.buffer.constant) is not None and _is_matrix(value.layout):
        key = ("as int8", stored.data_ptr(), stored.shape, stored.stride())
        made = translation.derive(key, lambda: (stored ^ INT8_SHIFT).view(torch.int8))
        buffer = Buffer(0, "constant", constant=made)
        return Value(buffer, value.layout.view(torch.int8), value.scale, zero_point)
    layout = in_order(value.layout.shape, torch.int8)
    if value.layout.stride()[-1] != 1:  # as of transposed keys: read in the order of memory
        layout = in_order(layout.transpose(-1, -2).shape, torch.int8).transpose(-1, -2)
    copy = Value(Buffer(byte_size(layout)), layout, value.scale, zero_point)
    translation.program.steps.append(Lookup(source=value, result=copy, table=flip()))
    return copy


def multiply(
    translation: Translation, task: Task, left: Value, right: Value, groups: int = 1
) -> Value:
    """Compute ``q(post(left @ right))`` in float.

    Args:
        translation: The translation of the graph.
        task: The operators to compute.
        left: Left operand, in float.
        right: Right operand, in float.
        groups: Number of groups of the result's heads; with groups the operands have one more
            dimension.
    """
    _require_products(task, left)

    def step(result: Value) -> MatMul:
        seen = result.seen_as(in_groups(result.layout, groups)) if groups > 1 else result
        return MatMul(source=left, weight=right, result=seen, post=task.post)

    layout = in_order(translation.shapes[task.base].shape, torch.float32)
    edges = [node for each in task.base.all_input_nodes for node in views_of_integers(each)]
    if task.quantize is None:
        result = translation.result(task, layout, any_order=False)
        translation.add(step(result), task, *edges, task.base)
        return result
    # oneDNN yields no integers from floats.
    exact = Value(Buffer(byte_size(layout)), layout)
    translation.program.steps.append(step(exact))
    result = translation.result(task, translation.wanted_layout(task, layout))
    rounding = translation.limits(replace(task, post=()))
    step_behind = Pointwise(source=exact, result=result, **rounding)
    return translation.add(step_behind, task, *edges, task.base)


def _require_products(task: Task, left: Value) -> None:
    if not left.layout.shape[-1]:
        raise Untranslatable(
            task.base, "it multiplies nothing, and oneDNN leaves its result unwritten"
        )


def in_groups(layout: Tensor, groups: int) -> Tensor:
    """Return a layout of ``(..., heads, rows, width)`` with the heads in groups."""
    return layout.view(*layout.shape[:-3], groups, -1, *layout.shape[-2:])


def operand(translation: Translation, node: Node, shape: torch.Size) -> Value:
    """Return an operand in float, with as many dimensions as the result."""
    value = translation.value(node)
    if value.is_integer:
        layout = in_order(value.layout.shape, torch.float32)
        made = Value(Buffer(byte_size(layout)), layout)
        translation.program.steps.append(Pointwise(source=value, result=made))
        value = made
    return _as_matrices(translation, value, shape)


def _as_matrices(translation: Translation, value: Value, shape: torch.Size) -> Value:
    """Return ``value`` with as many dimensions as ``shape``, rows or columns contiguous."""
    value = _of_rank(value, len(shape))
    if _is_matrix(value.layout):
        return value
    return translation.laid_out(value, in_order(value.layout.shape, value.layout.dtype))


def _of_rank(value: Value, rank: int) -> Value:
    """Return ``value`` with dimensions of 1 in front."""
    layout = value.layout
    return value.seen_as(layout[(None,) * (rank - layout.dim())])


def _is_matrix(layout: Tensor) -> bool:
    """Whether rows or columns are contiguous; those of ``unfold`` overlap."""
    (rows, columns), (down, right) = layout.shape[-2:], layout.stride()[-2:]
    return (right == 1 and down >= columns) or (down == 1 and right >= rows)


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
