"""Convolutions and linears: the step that computes each with its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.moves import spread, thinned
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.rules.transposed import by_phases, by_spreading
from quantfx.backends.direct.runtime.steps import Convolution, Lookup, MatMul, Pointwise, PostOp
from quantfx.backends.direct.runtime.values import (
    Buffer,
    Value,
    byte_size,
    channels_last,
    in_order,
    layout_of,
)
from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.pipeline.kernel_family import argument_node
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_PER_CHANNEL,
    DEQUANTIZE_PER_TENSOR,
)
from quantfx.patterns.schema import argument_value, resolve_op

_CONVOLUTIONS = frozenset(
    resolve_op(f"aten.conv{n}d.{name}") for n in (1, 2, 3) for name in ("default", "padding")
)
_TRANSPOSED = frozenset(
    resolve_op(f"aten.conv_transpose{name}") for name in ("1d.default", "2d.input", "3d.input")
)
_LINEAR = resolve_op("aten.linear.default")
PRODUCTS = frozenset({*_CONVOLUTIONS, *_TRANSPOSED, _LINEAR})
_SUM = PostOp("sum")


def product(translation: Translation, task: Task) -> Value:
    """Compute ``q(post(product(x, w)))``."""
    return add_product(translation, task, task.base, (), None)


def add_product(
    translation: Translation,
    task: Task,
    anchor: Node,
    inner: tuple[Node, ...],
    summand: Value | None,
    before: tuple[PostOp, ...] = (),
    covered: tuple[Node, ...] = (),
) -> Value:
    """Compute ``q(post(before(product(x, w)) + summand))``.

    Args:
        translation: The translation of the graph.
        task: The operators after the product, or after the sum.
        anchor: The convolution or linear.
        inner: The nodes between the anchor and the sum.
        summand: The tensor that is added; None if there is no sum.
        before: Post-ops of the product before the sum.
        covered: Further nodes that the step computes: the sum, the dequantize of its summand.
    """
    source = translation.value(argument_node(anchor, "input"))
    if not source.is_integer:
        raise Untranslatable(anchor, "its input is float")
    edges = (argument_node(anchor, "input"), argument_node(anchor, "weight"))
    nodes = (*edges, anchor, *inner, *covered)
    mixed = summand is not None and summand.is_integer != (task.quantize is not None)
    if mixed:
        # oneDNN 3.2 adds tensors of another dtype slowly behind matrix products, and errs on
        # channels beyond a block behind convolutions.
        made = _product(translation, Task(anchor, (), None, ()), anchor, source)
        return _by_loops(translation, task, made, summand, before, nodes)
    made = _product(translation, task, anchor, source, summand, before)
    translation.add(_as_matmul(made.step), task, *nodes)
    translation.program.steps.extend(made.copies)
    return made.result


@dataclass(frozen=True)
class _Product:
    """A product as a step.

    Attributes:
        step: The step that computes it.
        result: The final place of the result.
        copies: Steps that put the result there.
    """

    step: Any
    result: Value
    copies: tuple[Lookup, ...] = ()


def _product(
    translation: Translation,
    task: Task,
    anchor: Node,
    source: Value,
    summand: Value | None = None,
    before: tuple[PostOp, ...] = (),
) -> _Product:
    """Return the step that computes the product with the operators after it."""
    linear = anchor.target is _LINEAR
    shape = translation.shapes[anchor].shape
    dtype = torch.uint8 if task.quantize is not None else torch.float32
    order = in_order if linear else channels_last
    layout = order(shape, dtype)
    post = task.post
    if summand is not None:
        summand = translation.laid_out(summand, layout)
        post = (*before, _SUM, *post)
    weight, scales = _weight(translation, anchor)
    common: dict[str, Any] = {
        "source": translation.laid_out(source, order(source.layout.shape, source.layout.dtype)),
        "result": translation.result(task, layout, any_order=False),
        "summand": summand,
        "scales": scales,
        "bias": _bias(translation, anchor),
        **translation.limits(task),
        "post": post,
    }
    if not linear:
        return _convolution(translation, anchor, weight, common)
    buffer = Buffer(0, "constant", constant=weight)
    step = MatMul(weight=Value(buffer, layout_of(weight.t())), **common)
    return _Product(step, step.result)


def _by_loops(
    translation: Translation,
    task: Task,
    product: _Product,
    summand: Value | None,
    before: tuple[PostOp, ...],
    nodes: tuple[Node, ...],
) -> Value:
    """Compute the operators after a product in separate steps."""
    steps = translation.program.steps
    steps += [product.step, *product.copies]
    exact = product.result
    if before and summand is not None:
        made = Value(Buffer(byte_size(exact.layout)), exact.layout)
        steps.append(Pointwise(source=exact, result=made, post=before))
        exact = made
    result = translation.result(task, translation.wanted_layout(task, exact.layout))
    step = Pointwise(
        source=exact,
        other=summand,
        combine="first" if summand is None else "add",
        result=result,
        **translation.limits(task),
    )
    return translation.add(step, task, *nodes)


def _weight(translation: Translation, anchor: Node) -> tuple[Tensor, Tensor]:
    """Return the int8 weight and its scales."""
    node = argument_node(anchor, "weight")
    if node.target not in (DEQUANTIZE_PER_CHANNEL, DEQUANTIZE_PER_TENSOR):
        raise Untranslatable(anchor, "its weight is float")
    weight = translation.constant(argument_node(node, "input"))
    if weight is None or weight.dtype != torch.int8:
        raise Untranslatable(anchor, "its weight is no stored int8 tensor")
    if node.target is DEQUANTIZE_PER_TENSOR:
        scales: Tensor | None = torch.tensor([float(argument_value(node, "scale"))])
        zero_points: Tensor | None = torch.tensor([int(argument_value(node, "zero_point"))])
    else:
        scales = translation.constant(argument_value(node, "scales"))
        zero_points = translation.constant(argument_value(node, "zero_points"))
        axis = argument_value(node, "axis")
        if axis != (1 if anchor.target in _TRANSPOSED else 0):
            raise Untranslatable(anchor, f"the scales of its weight lie along axis {axis}")
    if scales is None or zero_points is None:
        raise Untranslatable(anchor, "the scales of its weight are computed")
    if bool(zero_points.any()):
        raise Untranslatable(anchor, "its weight has zero points")
    if anchor.target in _TRANSPOSED and scales.numel() > 1:
        scales = scales.repeat(int(argument_value(anchor, "groups")))  # those of one group
    return weight, scales.to(torch.float32)


def _bias(translation: Translation, anchor: Node) -> Tensor | None:
    node = argument_value(anchor, "bias")
    if node is None:
        return None
    bias = translation.constant(node)
    if bias is None or bias.dtype != torch.float32:
        raise Untranslatable(anchor, "its bias is no stored float32 tensor")
    return bias


def _convolution(
    translation: Translation, anchor: Node, weight: Tensor, common: dict[str, Any]
) -> _Product:
    spatial = weight.dim() - 2
    if common["source"].layout.dim() != spatial + 2:
        raise Untranslatable(anchor, "its input has no batch dimension")
    result, copies = common["result"], list[Lookup]()
    if anchor.target not in _TRANSPOSED:
        form = _plain(anchor, weight)
    elif phased := by_phases(translation, anchor, weight, common):
        form, copies = phased
    else:
        form = by_spreading(translation, anchor, weight, common["source"])
    form = common | form
    source, low, high = form["source"], form["padding_low"], form["padding_high"]
    weight, stride, pads = form["weight"], form["stride"], any(low + high)
    sizes = zip(weight.shape[2:], form["dilation"], strict=True)
    extent = [(size - 1) * step + 1 for size, step in sizes]
    outside = any(max(each[:2]) >= each[2] for each in zip(low, high, extent, strict=True))
    if source.zero_point and pads and (outside or spatial == 3):
        # oneDNN 3.2 uses a wrong zero point if a window lies entirely in the padding, and in three
        # dimensions at edges where two paddings meet.
        form["source"] = spread(translation, source, low=low, high=high)
        form["padding_low"] = form["padding_high"] = (0,) * spatial
    if max(extent) == 1 < max(stride) and not pads and weight.shape[1] % 16 == 8:
        # There, its convolutions of single places by single places differ between calls.
        form["source"] = thinned(translation, source, stride)
        form["stride"] = (1,) * spatial
    return _Product(Convolution(**form), result, tuple(copies))


def _plain(anchor: Node, weight: Tensor) -> dict[str, Any]:
    """Return the geometry of a convolution, which must not be transposed."""
    geometry = Geometry.of(anchor, tuple(weight.shape[2:]))
    low, high = zip(*geometry.padding, strict=True)
    return {
        "weight": weight,
        "stride": geometry.stride,
        "dilation": geometry.dilation,
        "padding_low": low,
        "padding_high": high,
        "groups": geometry.groups,
    }


def _as_matmul(step: Any) -> Any:
    """Return a convolution of single places by single places as a matrix product.

    oneDNN 3.2 computes some of these with its reference code, ten times as slowly.
    """
    if not isinstance(step, Convolution) or step.groups > 1:
        return step
    sizes = (*step.source.layout.shape[2:], *step.weight.shape[2:], *step.result.layout.shape[2:])
    if set(sizes) != {1}:
        return step

    def rows(value: Value) -> Value:
        layout = value.layout
        flat = (layout.shape[1], 1)
        return value.seen_as(layout.as_strided(layout.shape[:2], flat, layout.storage_offset()))

    weight = step.weight.flatten(1)
    return MatMul(
        source=rows(step.source),
        weight=Value(Buffer(0, "constant", constant=weight), layout_of(weight.t())),
        result=rows(step.result),
        summand=None if step.summand is None else rows(step.summand),
        scales=step.scales,
        bias=step.bias,
        post=step.post,
        low=step.low,
        high=step.high,
    )
