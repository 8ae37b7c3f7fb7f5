"""The steps of operators other than products and pointwise operators of one tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from quantfx.backends.direct.rules.anchors import PRODUCTS, add_product, product
from quantfx.backends.direct.rules.filled import NEW_FULL, TRIU, new_full, triu
from quantfx.backends.direct.rules.interpolate import INTERPOLATIONS, interpolate
from quantfx.backends.direct.rules.moves import MOVES, pad, rearranged
from quantfx.backends.direct.rules.norms import (
    GROUP_NORM,
    INSTANCE_NORM,
    LAYER_NORM,
    RMS_NORM,
    group_norm,
    layer_norm,
)
from quantfx.backends.direct.rules.operands import dequantizes_of, of_channels, source_of
from quantfx.backends.direct.rules.pointwise import LARGEST, post_ops_of
from quantfx.backends.direct.rules.products import ATTENTION, attention, matmul
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Rule, Task, Translation
from quantfx.backends.direct.runtime.steps import (
    Combine,
    Lookup,
    Pointwise,
    Pool,
    PostOp,
    Softmax,
    Source,
)
from quantfx.backends.direct.runtime.values import Buffer, Value, byte_size, channels_last, in_order
from quantfx.passes.graph.conv_geometry import per_dimension
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR
from quantfx.patterns.schema import argument_value, resolve_op

_COMBINES: dict[Any, Combine] = {
    resolve_op("aten.add.Tensor"): "add",
    resolve_op("aten.sub.Tensor"): "sub",
    resolve_op("aten.mul.Tensor"): "mul",
    resolve_op("aten.div.Tensor"): "div",
}

_SAFE_SOFTMAX = resolve_op("aten._safe_softmax.default")
_STACK = resolve_op("aten.stack.default")
CASTS = frozenset(map(resolve_op, ("aten.to.dtype", "aten._to_copy.default")))


def _combine(translation: Translation, task: Task) -> Value:
    """``a + b`` and the like; a sum becomes part of the step of a product on one side."""
    left, right = (argument_value(task.base, name) for name in ("self", "other"))
    if not (isinstance(left, Node) and isinstance(right, Node)):
        raise Untranslatable(task.base, "its operands are not two tensors")
    if "alpha" in task.base.kwargs and task.base.kwargs["alpha"] != 1:
        raise Untranslatable(task.base, "its alpha is not 1")
    kind = _COMBINES[task.base.target]
    if kind == "add":
        for side, other in ((right, left), (left, right)):
            fused = _into_product(translation, task, side, other)
            if fused is not None:
                return fused
    shape = translation.shapes[task.base].shape
    values = [translation.value(node) for node in (left, right)]
    full = next((each for each in values if each.layout.shape == shape), None)
    layout = in_order(shape, torch.float32) if full is None else full.layout
    result = translation.result(task, translation.wanted_layout(task, layout))
    source, operand = (each.seen_as(each.layout.expand(shape)) for each in values)
    step = Pointwise(
        source=source, other=operand, combine=kind, result=result, **translation.limits(task)
    )
    edges = [node for node in (left, right) if node.target is DEQUANTIZE_PER_TENSOR]
    return translation.add(step, task, *edges, task.base)


def _into_product(translation: Translation, task: Task, side: Node, other: Node) -> Value | None:
    """Compute ``q(post(f(product) + other))`` in one step, if ``side`` is ``f(product)``."""
    inner: list[Node] = []
    before: tuple[PostOp, ...] = ()
    node = side
    while len(node.users) == 1 and node not in translation.computed:
        if node.target in PRODUCTS:
            break
        ops = post_ops_of(node)
        if ops is None or len(ops) + len(before) > 1:
            return None
        inner.insert(0, node)
        before = ops + before
        node = node.all_input_nodes[0]
    else:
        return None
    shapes = translation.shapes
    if shapes[other].shape != shapes[node].shape or other is side:
        return None
    summand = translation.value(other)
    if summand.is_integer and task.quantize is None:
        return None
    edges = (other,) if other.target is DEQUANTIZE_PER_TENSOR else ()
    return add_product(translation, task, node, tuple(inner), summand, before, (*edges, task.base))


def _windows(translation: Translation, task: Task, **how: Any) -> Value:
    source, covered = source_of(translation, task)
    shape = translation.shapes[task.base].shape
    result = translation.result(task, channels_last(shape, torch.float32))
    step = Pool(source=source, result=result, **how, **translation.limits(task))
    return translation.add(step, task, *covered)


def _pool(translation: Translation, task: Task) -> Value:
    """``max_pool`` and ``avg_pool``."""
    base = task.base
    spatial = int(str(base.target).partition("_pool")[2][0])
    if translation.shapes[base].dim() != spatial + 2:
        raise Untranslatable(base, "its input has no batch dimension")
    average = "avg" in str(base.target)

    def each(name: str) -> tuple[int, ...]:
        return per_dimension(argument_value(base, name), spatial)

    window = each("kernel_size")
    how: dict[str, Any] = {
        "average": average,
        "window": window,
        "stride": each("stride") if argument_value(base, "stride") else window,
        "padding": each("padding"),
        "dilation": (1,) * spatial if average else each("dilation"),
    }
    if average:
        how["counts_padding"] = bool(argument_value(base, "count_include_pad"))
        divisor = "divisor_override" if spatial > 1 else None
        how["divisor"] = int(argument_value(base, divisor) or 0) if divisor else 0
    return _windows(translation, task, **how)


def _adaptive_pool(translation: Translation, task: Task) -> Value:
    """Adaptive pools whose windows do not overlap: sizes that divide evenly."""
    base = task.base
    x, y = translation.shapes[base.all_input_nodes[0]].shape[2:], translation.shapes[base].shape[2:]
    if translation.shapes[base].dim() != len(argument_value(base, "output_size")) + 2:
        raise Untranslatable(base, "its input has no batch dimension")
    if any(a % b for a, b in zip(x, y, strict=True)):
        raise Untranslatable(base, f"its windows overlap: {tuple(x)} to {tuple(y)}")
    window = tuple(a // b for a, b in zip(x, y, strict=True))
    none = (0,) * len(window)
    return _windows(
        translation,
        task,
        average=True,
        window=window,
        stride=window,
        padding=none,
        dilation=(1,) * len(window),
    )


def _mean(translation: Translation, task: Task) -> Value:
    """The average over all dimensions but two: over places of an image, or tokens of a row."""
    base = task.base
    source, covered = source_of(translation, task)
    dims = argument_value(base, "dim") or []
    rank = source.layout.dim()
    over = sorted({dim % rank for dim in dims})
    kept = [dim for dim in range(rank) if dim not in over]
    if rank not in (3, 4, 5) or len(kept) != 2 or argument_value(base, "dtype"):
        raise Untranslatable(
            base, f"it averages over dimensions {dims} of {rank}, and keeps not two"
        )
    source = source.seen_as(source.layout.permute(*kept, *over))
    shape = (*source.layout.shape[:2], *[1] * (rank - 2))
    final = translation.shapes[base].shape
    result = translation.result(task, in_order(final, torch.float32))
    strides = result.layout.stride()
    places = [strides[dim] for dim in kept] if len(final) == rank else strides
    windows = result.seen_as(
        result.layout.as_strided(
            shape, (*places, *[1] * (rank - 2)), result.layout.storage_offset()
        )
    )
    window = tuple(source.layout.shape[2:])
    step = Pool(
        source=source,
        result=windows,
        average=True,
        window=window,
        stride=window,
        padding=(0,) * (rank - 2),
        dilation=(1,) * (rank - 2),
        **translation.limits(task),
    )
    translation.add(step, task, *covered)
    return result


def _prelu(translation: Translation, task: Task) -> Value:
    """``x + min(x, 0) * (weight - 1)``."""
    base = task.base
    source, covered = source_of(translation, task)
    weight = of_channels(translation, base, "weight", less=1.0)
    layout = source.layout
    exact = torch.empty_strided(layout.shape, layout.stride(), device="meta")
    below = Value(Buffer(byte_size(exact)), exact)
    translation.program.steps += [
        Pointwise(source=source, result=below, post=(PostOp("clip", -LARGEST, 0.0),)),
        Pointwise(source=below, other=weight, combine="mul", result=below),
    ]
    result = translation.result(task, translation.wanted_layout(task, exact))
    step = Pointwise(
        source=source, other=below, combine="add", result=result, **translation.limits(task)
    )
    return translation.add(step, task, *covered)


def _softmax(translation: Translation, task: Task) -> Value:
    base = task.base
    source, covered = source_of(translation, task)
    rank = source.layout.dim()
    if argument_value(base, "dim") % rank != rank - 1 or argument_value(base, "dtype") is not None:
        raise Untranslatable(base, "it is not over the last dimension, or changes the dtype")
    layout = in_order(translation.shapes[base].shape, torch.float32)
    result = translation.result(task, layout)
    step = Softmax(source=source, result=result, **translation.limits(task))
    step.empty_is_zero = base.target is _SAFE_SOFTMAX
    return translation.add(step, task, *covered)


def _cat(translation: Translation, task: Task) -> Value:
    """``cat`` and ``stack``: write each tensor into its part of the result."""
    base = task.base
    tensors = argument_value(base, "tensors")
    values = [translation.value(node) for node in tensors]
    shape = translation.shapes[base].shape
    dim = argument_value(base, "dim") % len(shape)
    if base.target is _STACK:
        values = [value.seen_as(value.layout.unsqueeze(dim)) for value in values]
    if any(len(value.layout.shape) != len(shape) for value in values):
        raise Untranslatable(base, "one of its tensors is empty, of one dimension")
    layout = (
        channels_last(shape, torch.float32) if len(shape) > 2 else in_order(shape, torch.float32)
    )
    if len(shape) == 3 and not any(_lies_channels_last(value) for value in values):
        layout = in_order(shape, torch.float32)
    result = translation.result(task, layout)
    start = 0
    steps: list[Source] = []
    for value in values:
        size = value.layout.shape[dim]
        part = result.seen_as(result.layout.narrow(dim, start, size))
        start += size
        if value.is_integer and task.quantize is not None:
            table = translation.table(task, value)
            steps.append(Lookup(source=value, result=part, table=table))
        else:
            steps.append(Pointwise(source=value, result=part, **translation.limits(task)))
    translation.program.steps += steps[:-1]
    translation.add(steps[-1], task, *dequantizes_of(tensors), base)
    return result


def _cast(translation: Translation, task: Task) -> Value:
    """Casts between float32 and bfloat16; bfloat16 allows only views, casts and quantizes."""
    base = task.base
    source, covered = source_of(translation, task)
    given, wanted = (translation.shapes[each].dtype for each in (base.all_input_nodes[0], base))
    extra = {"memory_format", "layout", "device", "pin_memory"} & base.kwargs.keys()
    if extra or not {given, wanted} <= {torch.float32, torch.bfloat16}:
        raise Untranslatable(base, f"it makes {wanted} of {given}, or more than another dtype")
    rounded = wanted == torch.bfloat16 and task.quantize is not None
    if rounded:
        layout = in_order(source.layout.shape, wanted)
        made = Value(Buffer(byte_size(layout)), layout)
        translation.program.steps.append(Pointwise(source=source, result=made))
        source = made
    result = translation.result(task, translation.wanted_layout(task, source.layout))
    step = Pointwise(source=source, result=result, **translation.limits(task))
    return translation.add(step, task, *covered)


def _lies_channels_last(value: Value) -> bool:
    return value.layout.dim() > 2 and value.layout.stride()[1] == 1


def rules() -> dict[Any, Rule]:
    """Return the rules of operators that are neither pointwise nor views."""
    found: dict[Any, Rule] = dict.fromkeys(PRODUCTS, product)
    found |= dict.fromkeys(_COMBINES, _combine)
    found |= {resolve_op(f"aten.{name}.default"): matmul for name in ("matmul", "bmm")}
    for n in (1, 2, 3):
        found |= {resolve_op(f"aten.{kind}_pool{n}d.default"): _pool for kind in ("max", "avg")}
        found[resolve_op(f"aten.adaptive_avg_pool{n}d.default")] = _adaptive_pool
    found |= dict.fromkeys(
        map(resolve_op, ("aten.pad.default", "aten.constant_pad_nd.default")), pad
    )
    found[resolve_op("aten.mean.dim")] = _mean
    found |= {LAYER_NORM: layer_norm, RMS_NORM: layer_norm}
    found[resolve_op("aten.softmax.int")] = found[_SAFE_SOFTMAX] = _softmax
    found[resolve_op("aten.cat.default")] = found[_STACK] = _cat
    found |= {GROUP_NORM: group_norm, INSTANCE_NORM: group_norm}
    found[resolve_op("aten.prelu.default")] = _prelu
    found |= {NEW_FULL: new_full, TRIU: triu}
    found |= dict.fromkeys(MOVES, rearranged)
    found |= dict.fromkeys(INTERPOLATIONS, interpolate)
    found[ATTENTION] = attention
    found |= dict.fromkeys(CASTS, _cast)
    return found
