"""Spell annotated attention out, so that both of its products can be quantized."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.quant.spec import Spec
from quantfx.patterns.schema import argument_value, resolve_op

ATTENTION = resolve_op("aten.scaled_dot_product_attention.default")
_ADD = resolve_op("aten.add.Tensor")
_MASKED_FILL = resolve_op("aten.masked_fill.Scalar")
_MATMUL = resolve_op("aten.matmul.default")
_MUL = resolve_op("aten.mul.Tensor")
_NEW_FULL = resolve_op("aten.new_full.default")
_NOT = resolve_op("aten.logical_not.default")
_RESHAPE = resolve_op("aten.reshape.default")
_SAFE_SOFTMAX = resolve_op("aten._safe_softmax.default")
_SIZE = resolve_op("aten.sym_size.int")
_SOFTMAX = resolve_op("aten.softmax.int")
_TRANSPOSE = resolve_op("aten.transpose.int")
_TRIU = resolve_op("aten.triu.default")
_UNFLATTEN = resolve_op("aten.unflatten.int")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")
_ZEROS_LIKE = resolve_op("aten.zeros_like.default")


class ExpandAttention(GraphPass):
    """``attention(q, k, v, mask) -> softmax(q @ k.T * scale + mask) @ v``.

    Applies where annotate-attention matched, and moves its annotation to the products. The left
    operands of both have the query's spec, the right operands those of key and value.
    """

    name = "expand-attention"
    counts = "expanded"
    requires = frozenset({"annotated"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Expand every annotated attention."""
        recipe = context.require_recipe(self.name)
        expanded = 0
        for node in editor.graph.find_nodes(op="call_function", target=ATTENTION):
            annotation = annotation_of(node)
            if annotation is None:
                continue
            reason = _refusal(node)
            if reason:
                editor.remark("missed", node.name, reason, str(node.target))
                set_annotation(node, None)
                continue
            becomes = recipe.patterns[annotation.template].becomes
            _Expansion(editor, node, replace(annotation, template=becomes)).run()
            expanded += 1
        return expanded


def _refusal(node: Node) -> str:
    """Return why the products of an attention cannot be written; empty if they can be."""
    query, key, value = _operands(node)
    if argument_value(node, "scale") is None and not isinstance(_size(query, -1), int):
        return "the width of its heads is free, and so is its scale"
    if argument_value(node, "enable_gqa"):
        if any(each.meta["val"].dim() < 3 for each in (query, key, value)):
            return "its operands have no dimension of heads"
        heads = [_size(each, -3) for each in (query, key, value)]
        if not all(isinstance(each, int) for each in heads) or heads[1] != heads[2]:
            return f"its numbers of heads are {', '.join(map(str, heads))}"
    return ""


class _Expansion:
    """Writes one attention as operators, before the attention.

    Args:
        editor: Editor of the graph.
        node: The attention.
        annotation: Its annotation, with the products' template.
    """

    def __init__(self, editor: Editor, node: Node, annotation: Annotation) -> None:
        self._editor = editor
        self._node = node
        self._annotation = annotation
        self._specs = dict(annotation.inputs)
        query, key, _ = _operands(node)
        grouped = argument_value(node, "enable_gqa")
        self._grouped = grouped and _size(query, -3) != _size(key, -3)

    def run(self) -> None:
        """Replace the attention by its operators."""
        node = self._node
        query, key, value = _operands(node)
        if self._grouped:
            query = self._in_groups(query)
            key, value = (self._call(_UNSQUEEZE, each, -3) for each in (key, value))
        turned = self._call(_TRANSPOSE, key, -2, -1)
        scores = self._product("scores", query, turned, self._specs["key"])
        weights = self._weights(self._call(_MUL, scores, _scale(node)))
        result = self._product("result", weights, value, self._specs["value"])
        if self._grouped:
            result = self._call(_RESHAPE, result, self._sizes())
        result.meta["val"] = node.meta["val"]
        self._editor.replace(node, result)

    def _call(
        self, target: Callable[..., Any], *args: object, name: str | None = None, **options: object
    ) -> Node:
        return self._editor.call(target, args, before=self._node, name=name, kwargs=options)

    def _product(self, name: str, left: Node, right: Node, spec: Spec) -> Node:
        """Return ``left @ right``, annotated."""
        product = self._call(_MATMUL, left, right, name=f"{self._node.name}_{name}")
        inputs = (("self", self._specs["query"]), ("other", spec))
        moved = replace(self._annotation, match=product.name, kind="matmul", inputs=inputs)
        set_annotation(product, moved)
        return product

    def _in_groups(self, given: Node) -> Node:
        """Return a tensor of the query's heads with the heads of one key in a dimension."""
        _, key, _ = _operands(self._node)
        return self._call(_UNFLATTEN, given, -3, [_size(key, -3), -1])

    def _weights(self, scores: Node) -> Node:
        """Return the softmax of the scores that the mask leaves."""
        mask = argument_value(self._node, "attn_mask")
        if argument_value(self._node, "is_causal"):
            scores = self._call(_ADD, scores, self._causal_mask(scores))
        if mask is None:
            return self._call(_SOFTMAX, scores, -1)
        # Rows that a mask covers entirely are zeros, where a softmax would yield NaN.
        summand = self._summand(mask)
        if self._grouped and summand.meta["val"].dim() > 2:
            one = _size(summand, -3) == 1
            summand = self._call(_UNSQUEEZE, summand, -3) if one else self._in_groups(summand)
        return self._call(_SAFE_SOFTMAX, self._call(_ADD, scores, summand), -1)

    def _summand(self, mask: Node) -> Node:
        """Return the mask as numbers to add: -inf where a mask of bools says False."""
        if mask.meta["val"].dtype != torch.bool:
            return mask
        zeros = self._call(_ZEROS_LIKE, mask, dtype=torch.float32)
        return self._call(_MASKED_FILL, zeros, self._call(_NOT, mask), -math.inf)

    def _causal_mask(self, scores: Node) -> Node:
        """Return -inf right of the diagonal, and 0 elsewhere."""
        query, key, _ = _operands(self._node)
        sizes = [self._length(query, -2), self._length(key, -2)]
        return self._call(_TRIU, self._call(_NEW_FULL, scores, sizes, -math.inf), 1)

    def _sizes(self) -> list[int | Node]:
        """Return the shape of the attention's result."""
        query, _, value = _operands(self._node)
        rank = query.meta["val"].dim()
        return [
            *(self._length(query, dim - rank) for dim in range(rank - 1)),
            self._length(value, -1),
        ]

    def _length(self, operand: Node, dim: int) -> int | Node:
        size = _size(operand, dim)
        return size if isinstance(size, int) else self._call(_SIZE, operand, dim)


def _operands(node: Node) -> tuple[Node, Node, Node]:
    query, key, value = (argument_value(node, name) for name in ("query", "key", "value"))
    return query, key, value


def _scale(node: Node) -> float:
    scale = argument_value(node, "scale")
    query = argument_value(node, "query")
    return 1 / math.sqrt(_size(query, -1)) if scale is None else float(scale)


def _size(node: Node, dim: int) -> Any:
    return node.meta["val"].shape[dim]
