"""Which operators pass on a positive factor of a channel, and where the channel ends up.

``f(s * x) = s * f(x)`` for every s > 0 of a channel: activations that are linear on both sides of
zero, pools, zero padding, and views. Channels are tracked by labels: an integer tensor that
broadcasts to the activation and holds the channel of each value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.patterns.schema import argument_value, resolve_op
from quantfx.patterns.sizes import known_true

_Rule = Callable[[Node, Tensor], Tensor | None]


def source_of(node: Node) -> Node | None:
    """Return the node whose channel factors ``node`` passes on; None if it passes on none."""
    if node.target is operator.getitem:
        source, index = node.args
        returns_two = isinstance(source, Node) and source.target in _MAX_WITH_INDICES
        return source if returns_two and index == 0 and isinstance(source, Node) else None
    if node.target not in _RULES or (node.target in _PADS and not _pads_alike(node)):
        return None
    source = node.args[0] if node.args else None
    return source if isinstance(source, Node) else None


def follow(node: Node, labels: Tensor) -> Tensor | None:
    """Return the labels of the result of ``node``; None if it mixes channels, or may do so.

    Args:
        node: A node with a ``source_of``.
        labels: Labels of that source.
    """
    return labels if node.target is operator.getitem else _RULES[node.target](node, labels)


def _pads_alike(node: Node) -> bool:
    """Whether padding scales with the rest: zeros, or values of the same channel."""
    if node.target is _PAD and argument_value(node, "mode") != "constant":
        return True
    return not argument_value(node, "value")


def _elementwise(node: Node, labels: Tensor) -> Tensor:
    return labels


def _over(dimensions: list[int], labels: Tensor) -> Tensor | None:
    """Return ``labels`` if channels do not differ along ``dimensions``, where values mix."""
    return labels if all(labels.shape[each] == 1 for each in dimensions) else None


def _spatial(rank: int) -> _Rule:
    return lambda node, labels: _over(list(range(-rank, 0)), labels)


def _pad(node: Node, labels: Tensor) -> Tensor | None:
    return _over(list(range(-len(argument_value(node, "pad")) // 2, 0)), labels)


def _mean(node: Node, labels: Tensor) -> Tensor | None:
    dimensions = argument_value(node, "dim")
    if not dimensions or _over(dimensions, labels) is None:
        return None
    keep = argument_value(node, "keepdim")
    return labels if keep else labels.squeeze(tuple(dimensions))


def _select(node: Node, labels: Tensor) -> Tensor | None:
    dimension = argument_value(node, "dim")
    return None if _over([dimension], labels) is None else labels.squeeze(dimension)


def _slice(node: Node, labels: Tensor) -> Tensor | None:
    return _over([argument_value(node, "dim")], labels)


def _permute(node: Node, labels: Tensor) -> Tensor:
    return labels.permute(argument_value(node, "dims"))


def _transpose(node: Node, labels: Tensor) -> Tensor:
    return labels.transpose(argument_value(node, "dim0"), argument_value(node, "dim1"))


def _reshape(node: Node, labels: Tensor) -> Tensor | None:
    """Return the labels after reshaping the same values, in the same order.

    Leading dimensions that do not change may have any size; the others must be numbers.
    """
    source = node.all_input_nodes[0]
    before, after = (tuple(each.meta["val"].shape) for each in (source, node))
    kept = 0
    for old, new in zip(before, after, strict=False):
        if labels.shape[kept] != 1 or not known_true(old == new):
            break
        kept += 1
    if not all(isinstance(size, int) for size in (*before[kept:], *after[kept:])):
        return None
    inner = labels.reshape(labels.shape[kept:]).expand(before[kept:]).reshape(after[kept:])
    for dimension in range(inner.dim()):
        first = inner.narrow(dimension, 0, 1)
        inner = first if torch.equal(first.expand_as(inner), inner) else inner
    return inner.reshape((1,) * kept + inner.shape)


def _rules(rule: _Rule, *names: str) -> dict[Any, _Rule]:
    return {resolve_op(f"aten.{name}"): rule for name in names}


def _windows(rank: int) -> dict[Any, _Rule]:
    """Return the rules of operators that mix values of the last ``rank`` dimensions."""
    kinds = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
    pools = [f"{kind}{rank}d.default" for kind in kinds]
    return _rules(_spatial(rank), *pools, f"upsample_nearest{rank}d.vec")


_PAD = resolve_op("aten.pad.default")
_PADS = (_PAD, resolve_op("aten.constant_pad_nd.default"))
_MAX_WITH_INDICES = frozenset(
    resolve_op(f"aten.adaptive_max_pool{rank}d.default") for rank in (1, 2, 3)
)
_ELEMENTWISE = ("relu.default", "leaky_relu.default", "prelu.default", "contiguous.default")
_RESHAPES = ("view.default", "reshape.default", "flatten.using_ints", "unsqueeze.default")
_SQUEEZES = ("squeeze.default", "squeeze.dim", "squeeze.dims")
_RULES: dict[Any, _Rule] = {
    **_rules(_elementwise, *_ELEMENTWISE),
    **_rules(_pad, "pad.default", "constant_pad_nd.default"),
    **_rules(_mean, "mean.dim"),
    **_rules(_select, "select.int"),
    **_rules(_slice, "slice.Tensor"),
    **_rules(_permute, "permute.default"),
    **_rules(_transpose, "transpose.int"),
    **_rules(_reshape, *_RESHAPES, *_SQUEEZES),
    **_windows(1),
    **_windows(2),
    **_windows(3),
    **_rules(_spatial(2), "upsample_bilinear2d.vec"),
}
