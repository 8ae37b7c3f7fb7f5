"""Give matrix products one of two names: linear by a stored matrix, matmul by a computed matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.fx import Node

from quantfx.passes.capture.contraction import einsum_contraction
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.constant_chain import constant_nodes
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.patterns.schema import argument_value, arguments, overload, resolve_op

_ADD = resolve_op("aten.add.Tensor")
_CONTIGUOUS = resolve_op("aten.contiguous.default")
_LINEAR = resolve_op("aten.linear.default")
_MATMUL = resolve_op("aten.matmul.default")
_MUL = resolve_op("aten.mul.Tensor")
_T = resolve_op("aten.t.default")
_TRANSPOSE = resolve_op("aten.transpose.int")
_PERMUTE = resolve_op("aten.permute.default")
_TRANSPOSES = {_T, _TRANSPOSE, resolve_op("aten.numpy_T.default"), _PERMUTE}


class NameProducts(GraphPass):
    """Rewrite products, where w is computed from parameters and buffers only.

    1. ``mm(x, w), matmul(x, w) -> linear(x, t(w))``, w of two dimensions
    2. ``addmm(b, x, w) -> linear(x, t(w), b)``
    3. ``mm, bmm -> matmul``
    4. ``addmm, baddbmm(b, x, y, beta, alpha) -> matmul(x, y) * alpha + b * beta``
    5. ``einsum("bik,bok->bio", [x, y]) -> matmul(x, transpose(y))``; other equations stay
    6. ``mm(w, x), matmul(w, x) -> transpose(linear(transpose(x), w))``, which is made contiguous
    7. ``linear(x, w, b) -> matmul(x, w) + b``, w of one dimension, without output channels
    """

    name = "name-products"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite every product that a rule knows."""
        count = 0
        stored = set(constant_nodes(editor.module, overwritten(editor.graph)))
        maker = _Maker(editor, stored)
        for node in list(editor.graph.nodes):
            rule = _RULES.get(node.target)
            if rule and _in_float(node):
                count += rule(maker, node)
        return count


class _Maker:
    """Writes products before the node they replace.

    Args:
        editor: Editor of the graph.
        stored: Nodes that are computed from stored tensors only.
    """

    def __init__(self, editor: Editor, stored: set[Node]) -> None:
        self._editor = editor
        self._stored = stored

    def is_stored(self, value: Node) -> bool:
        """Whether ``value`` is computed from stored tensors only."""
        return value in self._stored

    def is_linear(self, matrix: Node) -> bool:
        """Whether a product by ``matrix`` is a linear."""
        return matrix in self._stored and _dimensions(matrix) == 2

    def call(self, target: Callable[..., Any], *args: object, like: Node) -> Node:
        """Return a new call before ``like``, with the meta of ``like``."""
        return self._editor.call(target, args, before=like)

    def product(self, x: Node, y: Node, like: Node, bias: Node | None = None) -> Node:
        """Return ``x @ y``, plus ``bias`` if y is a stored matrix."""
        if not self.is_linear(y):
            return self.call(_MATMUL, x, y, like=like)
        weight = y.args[0] if _turns_matrix(y) else self.call(_T, y, like=like)
        return self.call(_LINEAR, x, weight, *((bias,) if bias else ()), like=like)

    def product_from_left(self, x: Node, y: Node, like: Node) -> Node:
        """Return ``x @ y`` for a stored matrix x, in the layout of a product."""
        linear = self.call(_LINEAR, self.exchange_last(y, like), x, like=like)
        return self.call(_CONTIGUOUS, self.exchange_last(linear, like), like=like)

    def exchange_last(self, y: Node, like: Node) -> Node:
        """Return ``y`` with its last two dimensions exchanged."""
        turned = self.call(_TRANSPOSE, y, -2, -1, like=like)
        if y in self._stored:
            self._stored.add(turned)
        return turned

    def replace(self, node: Node, new: Node) -> bool:
        """Replace ``node`` by ``new``."""
        new.meta["val"] = node.meta["val"]
        self._editor.replace(node, new)
        return True


def _product(maker: _Maker, node: Node) -> bool:
    x, y = node.args
    if not isinstance(x, Node) or not isinstance(y, Node):
        return False
    if maker.is_linear(x) and not maker.is_stored(y) and _dimensions(y) >= 2:
        return maker.replace(node, maker.product_from_left(x, y, node))
    if node.target is _MATMUL and (not maker.is_linear(y) or _dimensions(x) < 2):
        return False
    return maker.replace(node, maker.product(x, y, node))


def _product_and_sum(maker: _Maker, node: Node) -> bool:
    summand, x, y = (argument_value(node, name) for name in list(arguments(overload(node)))[:3])
    beta, alpha = argument_value(node, "beta"), argument_value(node, "alpha")
    if alpha == beta == 1 and maker.is_linear(y) and _is_bias(summand, y):
        return maker.replace(node, maker.product(x, y, node, summand))
    new = maker.product(x, y, node)
    if alpha != 1:
        new = maker.call(_MUL, new, alpha, like=node)
    if beta != 0:  # for 0 the bias is not read, not even NaN
        scaled = summand if beta == 1 else maker.call(_MUL, summand, beta, like=node)
        new = maker.call(_ADD, new, scaled, like=node)
    return maker.replace(node, new)


def _linear_by_vector(maker: _Maker, node: Node) -> bool:
    x, w, bias = (argument_value(node, name) for name in ("input", "weight", "bias"))
    if _dimensions(w) != 1:
        return False
    new = maker.call(_MATMUL, x, w, like=node)
    return maker.replace(node, maker.call(_ADD, new, bias, like=node) if bias is not None else new)


def _is_bias(summand: Node, matrix: Node) -> bool:
    return list(summand.meta["val"].shape) == [matrix.meta["val"].shape[1]]


def _einsum(maker: _Maker, node: Node) -> bool:
    """Rewrite equations whose result has x's labels except the last, then one label of y."""
    found = einsum_contraction(node)
    if found is None or not found.of_x or not found.of_result:
        return False
    y, of_x, of_y, of_result = found.y, found.of_x, found.of_y, found.of_result
    summed, new = of_x[-1], of_result[-1]
    if of_result[:-1] != of_x[:-1] or new in of_x or {summed, new} != {*of_y[-2:]}:
        return False
    if of_y[:-2] != of_x[:-2] or not _no_label_twice(of_x, of_y, of_result):
        return False
    if not found.same_sizes(summed):
        return False
    if of_y[-1] == summed:
        y = maker.exchange_last(y, node)
    return maker.replace(node, maker.product(found.x, y, node))


def _no_label_twice(*labels: str) -> bool:
    return all(len(set(each)) == len(each) for each in labels)


def _turns_matrix(node: Node) -> bool:
    """Whether a node transposes a matrix."""
    if node.target not in _TRANSPOSES or _dimensions(node.all_input_nodes[0]) != 2:
        return False
    if node.target is _PERMUTE:
        return [int(str(each)) % 2 for each in argument_value(node, "dims")] == [1, 0]
    if node.target is _TRANSPOSE:
        dims = (argument_value(node, "dim0"), argument_value(node, "dim1"))
        return {int(str(each)) % 2 for each in dims} == {0, 1}
    return True


def _in_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _dimensions(node: Node) -> int:
    return int(node.meta["val"].dim())


_RULES: dict[Any, Callable[[_Maker, Node], bool]] = {
    resolve_op("aten.mm.default"): _product,
    resolve_op("aten.bmm.default"): _product,
    _MATMUL: _product,
    _LINEAR: _linear_by_vector,
    resolve_op("aten.addmm.default"): _product_and_sum,
    resolve_op("aten.baddbmm.default"): _product_and_sum,
    resolve_op("aten.einsum.default"): _einsum,
}
