"""Give contractions with a stored tensor one name: a linear by that tensor as a matrix."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from quantfx.passes.capture.contraction import Contraction, einsum_contraction
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.constant_chain import constant_nodes
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import resolve_op

_EINSUM = resolve_op("aten.einsum.default")
_FLATTEN = resolve_op("aten.flatten.using_ints")
_INNER = resolve_op("aten.inner.default")
_LINEAR = resolve_op("aten.linear.default")
_PERMUTE = resolve_op("aten.permute.default")
_RESHAPE = resolve_op("aten.reshape.default")
_TENSORDOT = resolve_op("aten.tensordot.default")
_UNFLATTEN = resolve_op("aten.unflatten.int")


class NameContractions(GraphPass):
    """``einsum("bld,dhk->blhk", [x, w]) -> unflatten(linear(x, w as a matrix), [h, k])``.

    Likewise with w first, with several summed labels, and for ``tensordot`` and ``inner``; w is
    computed from parameters and buffers only. A contraction that would need x permuted is kept.
    """

    name = "name-contractions"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every contraction of the three operators."""
        count = 0
        stored = constant_nodes(editor.module, overwritten(editor.graph))
        for node in list(editor.graph.nodes):
            read = _READERS.get(node.target)
            found = read(node) if read and node.meta["val"].is_floating_point() else None
            if found is not None and found.x in stored:
                found = found.swap_operands()
            if found and found.is_linear and found.y in stored and found.x not in stored:
                _rewrite(editor, node, found)
                count += 1
        return count


def _rewrite(editor: Editor, node: Node, found: Contraction) -> None:
    def call(target: Callable[..., Any], *args: object) -> Node:
        return editor.call(target, args, before=node)

    sizes = dict(zip(found.of_y, found.y.meta["val"].shape, strict=True))
    order = [found.of_y.index(label) for label in found.new + found.summed]
    matrix, x = found.y, found.x
    if order != sorted(order):
        matrix = call(_PERMUTE, matrix, order)
    new = [sizes[label] for label in found.new]
    if len(order) != 2 or len(new) != 1:
        matrix = call(_RESHAPE, matrix, [_product(new), -1])
    if len(found.summed) > 1:
        x = call(_FLATTEN, x, -len(found.summed), -1)
    result = call(_LINEAR, x, matrix)
    if len(new) > 1:
        result = call(_UNFLATTEN, result, -1, new)
    elif not new:
        result = call(_FLATTEN, result, -2, -1)
    result.meta["val"] = node.meta["val"]
    editor.replace(node, result)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _tensordot(node: Node) -> Contraction | None:
    x, y, of_x, of_y = node.args[:4]
    if not isinstance(x, Node) or not isinstance(y, Node):
        return None
    dimensions = (x.meta["val"].dim(), y.meta["val"].dim())
    mine = [int(str(each)) % dimensions[0] for each in _to_list(of_x)]
    theirs = [int(str(each)) % dimensions[1] for each in _to_list(of_y)]
    letters = iter(string.ascii_letters)
    labels = [next(letters) for _ in range(dimensions[0])]
    others = [labels[mine[theirs.index(place)]] if place in theirs else next(letters)
              for place in range(dimensions[1])]  # fmt: skip
    left = [each for place, each in enumerate(labels) if place not in mine]
    right = [each for place, each in enumerate(others) if place not in theirs]
    return Contraction(x, y, "".join(labels), "".join(others), "".join(left + right))


def _inner(node: Node) -> Contraction | None:
    x, y = node.args
    if not isinstance(x, Node) or not isinstance(y, Node):
        return None
    if not x.meta["val"].dim() or not y.meta["val"].dim():  # a number times a tensor
        return None
    letters = string.ascii_letters
    left = letters[1 : x.meta["val"].dim()]
    right = letters[len(left) + 1 : len(left) + y.meta["val"].dim()]
    return Contraction(x, y, f"{left}a", f"{right}a", left + right)


def _to_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


_READERS: dict[Any, Callable[[Node], Contraction | None]] = {
    _EINSUM: einsum_contraction,
    _TENSORDOT: _tensordot,
    _INNER: _inner,
}
