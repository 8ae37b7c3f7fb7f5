"""Copies of values to other places: spread among zero points, thinned, repeated, rearranged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Task, Translation
from quantfx.backends.direct.runtime.steps import Fill, Lookup, Pointwise, Step
from quantfx.backends.direct.runtime.values import Buffer, Value, byte_size, channels_last, in_order
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_TENSOR
from quantfx.patterns.schema import argument_value, overload, resolve_op


def spread(
    translation: Translation,
    source: Value,
    *,
    steps: Sequence[int] | None = None,
    low: Sequence[int] | None = None,
    high: Sequence[int] | None = None,
) -> Value:
    """Return the source with zero points around and between its values.

    Args:
        translation: The translation of the graph.
        source: ``(batch, channels, *places)``, integers.
        steps: Distance from one value to the next, in each dimension; 1 by default.
        low: Number of zero points in front, in each dimension; none by default.
        high: Number of zero points behind, likewise.
    """
    shape, rank = source.layout.shape, source.layout.dim() - 2
    steps, low, high = steps or (1,) * rank, low or (0,) * rank, high or (0,) * rank
    places = [
        front + (size - 1) * step + 1 + back
        for size, step, front, back in zip(shape[2:], steps, low, high, strict=True)
    ]
    layout = channels_last(torch.Size([*shape[:2], *places]), source.layout.dtype)
    made = Value(Buffer(byte_size(layout)), layout, source.scale, source.zero_point, source.shift)
    translation.program.steps.append(Fill(result=made, value=source.zero_point))
    for axis, (size, step, front) in enumerate(zip(shape[2:], steps, low, strict=True)):
        end = front + (size - 1) * step + 1
        layout = layout[(slice(None),) * (axis + 2) + (slice(front, end, step),)]
    translation.program.steps.append(Lookup(source=source, result=made.seen_as(layout)))
    return made


def thinned(translation: Translation, source: Value, steps: Sequence[int]) -> Value:
    """Return every ``steps``-th value of the source, in each dimension."""
    layout = source.layout
    for axis, step in enumerate(steps):
        layout = layout[(slice(None),) * (axis + 2) + (slice(None, None, step),)]
    return translation.laid_out(source.seen_as(layout), channels_last(layout.shape, layout.dtype))


def pad(translation: Translation, task: Task) -> Value:
    """Compute ``q(pad(x))`` as ``pad(q(x))``, with the zero point around."""
    base, quantize = task.base, task.quantize
    source = base.all_input_nodes[0]
    given = [int(each) for each in argument_value(base, "pad")]
    rank = translation.shapes[source].dim() - 2
    mirrors = "constant_pad" not in str(base.target) and argument_value(base, "mode") != "constant"
    if quantize is None or task.post or mirrors or argument_value(base, "value"):
        raise Untranslatable(base, "it pads with something else than zero, or in float")
    if rank < 1 or len(given) > 2 * rank or min(given) < 0:
        raise Untranslatable(base, "it pads other dimensions than places, or cuts them")
    given += [0] * (2 * rank - len(given))
    value = translation.compute(task.final, source, quantize)
    for step in translation.program.accounts():
        if step.output is task.final:  # the step after the source, or the view of its integers
            step.nodes = tuple(sorted({*step.nodes, base}))
    pairs = [(given[2 * i], given[2 * i + 1]) for i in reversed(range(rank))]
    low, high = zip(*pairs, strict=True)
    return spread(translation, value, low=low, high=high)


def rearranged(translation: Translation, task: Task) -> Value:
    """Compute ``q(post(move(x)))`` for a move that is no view: one copy, in the order of ``x``."""
    base = task.base
    read = base.all_input_nodes[0]
    source = translation.value(read)
    shape = translation.shapes[base].shape
    seen, split = _MOVES[base.target](base, source.layout, shape)
    order = channels_last if source.layout.stride()[1] == 1 else in_order
    edges = (read,) if read.target is DEQUANTIZE_PER_TENSOR else ()
    if task.nodes or not source.is_integer:
        result = translation.result(task, order(shape, torch.float32))
        step: Step = Pointwise(
            source=source.seen_as(seen),
            result=result.seen_as(result.layout.view(split)),
            **translation.limits(task),
        )
    else:
        layout = order(shape, source.layout.dtype)
        result = replace(source, buffer=Buffer(byte_size(layout)), layout=layout)
        step = Lookup(source=source.seen_as(seen), result=result.seen_as(layout.view(split)))
    translation.add(step, task, *edges, base)
    return result


# Maps an operator, its source's layout and its result's shape to views of both with equally many
# dimensions of equal sizes.
_Move = Callable[[Node, Tensor, torch.Size], tuple[Tensor, Sequence[int]]]


def _pixel_shuffle(node: Node, source: Tensor, shape: torch.Size) -> tuple[Tensor, Sequence[int]]:
    factor = int(argument_value(node, "upscale_factor"))
    batch, width, *places = _image(node, source)
    seen = source.view(batch, width // factor**2, factor, factor, *places)
    seen = seen.permute(0, 1, 4, 2, 5, 3)
    return seen, seen.shape


def _pixel_unshuffle(node: Node, source: Tensor, shape: torch.Size) -> tuple[Tensor, Sequence[int]]:
    factor = int(argument_value(node, "downscale_factor"))
    batch, width, height, length = _image(node, source)
    seen = source.view(batch, width, height // factor, factor, length // factor, factor)
    seen = seen.permute(0, 1, 3, 5, 2, 4)
    return seen, seen.shape


def _channel_shuffle(node: Node, source: Tensor, shape: torch.Size) -> tuple[Tensor, Sequence[int]]:
    groups = int(argument_value(node, "groups"))
    batch, width, *places = source.shape
    seen = source.view(batch, groups, width // groups, *places).transpose(1, 2)
    return seen, seen.shape


def _upsample(node: Node, source: Tensor, shape: torch.Size) -> tuple[Tensor, Sequence[int]]:
    """Repeat each value a whole number of times."""
    places, wanted = source.shape[2:], shape[2:]
    if len(places) > 2:
        raise Untranslatable(node, "a copy of it would have more than 6 dimensions")
    factors = [one // other for one, other in zip(wanted, places, strict=True)]
    image = torch.arange(prod(places), dtype=torch.float32).view(1, 1, *places)
    found = overload(node)(image, *node.args[1:], **node.kwargs)
    for axis, factor in enumerate(factors, 2):
        image = image.repeat_interleave(factor, axis)
    if not torch.equal(found, image):  # torch rounds sizes; its size decides
        raise Untranslatable(node, f"its sizes {tuple(wanted)} are no multiples")
    split = list(source.shape[:2])
    for axis, factor in enumerate(factors):
        source = source.unsqueeze(3 + 2 * axis)
        split += [places[axis], factor]
    return source.expand(split), split


def _image(node: Node, layout: Tensor) -> tuple[int, ...]:
    if layout.dim() != 4:
        raise Untranslatable(node, f"its input has {layout.dim()} dimensions, not 4")
    return tuple(layout.shape)


_MOVES: dict[object, _Move] = {
    resolve_op("aten.pixel_shuffle.default"): _pixel_shuffle,
    resolve_op("aten.pixel_unshuffle.default"): _pixel_unshuffle,
    resolve_op("aten.channel_shuffle.default"): _channel_shuffle,
    **{resolve_op(f"aten.upsample_nearest{n}d.vec"): _upsample for n in (1, 2, 3)},
}
MOVES = frozenset(_MOVES)
