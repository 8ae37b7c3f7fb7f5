"""Let an embedding read the int8 rows of the layer that it is tied to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.config.decisions import Decisions
from quantfx.passes.config.spec_change import FLOAT
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import constant
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import set_annotation
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_GROUPS,
    DEQUANTIZE_PER_CHANNEL,
    QUANTIZE_GROUPS,
    QUANTIZE_PER_CHANNEL,
    dequantizes,
    qparams_of,
    quantizes,
)
from quantfx.patterns.schema import argument_value, resolve_op, set_argument

_EMBEDDING = resolve_op("aten.embedding.default")
_BAGS = tuple(map(resolve_op, ("aten.embedding_bag.padding_idx", "aten.embedding_bag.default")))
_INDEX = resolve_op("aten.index.Tensor")
_MUL = resolve_op("aten.mul.Tensor")
_TO = resolve_op("aten.to.dtype")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")


class ShareTiedTables(GraphPass):
    """``embedding(dq(q(w)), i), linear(x, dq(r(w))) -> embedding(dq(r(w)), i), linear(...)``.

    For models that tie a head to their table: both then read one int8 tensor, as both read one
    float tensor before. A row of the table has the scale of an output channel. If the head reads
    its weight in float, so does a table planned as int8. A table whose integers have another range
    (4 bits beside 8), or smaller groups, stays separate. If no template took the embedding, only
    its rows are dequantized, ``to(embedding(r(w), i)) * scales[i]``, if each has one scale; an
    embedding that the config keeps float is unchanged.
    """

    name = "share-tied-tables"
    optional = True
    counts = "shared"
    requires = frozenset({"qdq"})
    keeps_float = False  # the rows of the table are rounded

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite each embedding of a table that another layer reads."""
        decisions = Decisions(context.recipe, editor.path) if context.recipe else None
        written = overwritten(editor.graph)
        shared = 0
        readers = _Readers.of(editor.module)
        for node in _lookups(editor.module):
            table = argument_value(node, "weight")
            if dequantizes(table):
                shared += _join(editor, node, table, readers)
                continue
            quantize = readers.rows.get(id(editor.stored(table)))
            if quantize is None or quantize.target is not QUANTIZE_PER_CHANNEL:
                continue
            if table in written or node.target is not _EMBEDDING:
                continue
            if decisions is not None and decisions.of(node).mode == FLOAT:
                continue
            for made in _share(editor, node, quantize):
                editor.remark("applied", made.name, f"reads the rows of {quantize.args[0]}")
            shared += 1
        return shared


def _lookups(module: GraphModule) -> list[Node]:
    found = [module.graph.find_nodes(op="call_function", target=t) for t in (_EMBEDDING, *_BAGS)]
    return [node for nodes in found for node in nodes]


@dataclass(frozen=True)
class _Readers:
    """Readers of stored tensors other than lookups; tensors are compared by identity.

    Attributes:
        rows: Id of a tensor -> its quantize, if it is symmetric, by rows or groups of a row.
        floats: Id of a tensor -> a node that reads it in float.
    """

    rows: dict[int, Node]
    floats: dict[int, Node]

    @staticmethod
    def of(module: GraphModule) -> _Readers:
        lookups = set(_lookups(module))
        rows = {id(table): node for table, node in _find_quantized(module, lookups)}
        floats: dict[int, Node] = {}
        for node in module.graph.find_nodes(op="get_attr"):
            for user in node.users:
                if not quantizes(user) and user not in lookups:
                    floats[id(constant(module, node))] = user
        return _Readers(rows, floats)


def _find_quantized(module: GraphModule, lookups: set[Node]) -> Iterator[tuple[Tensor, Node]]:
    """Yield the stored tensors that a layer reads quantized symmetrically by rows or groups."""
    found = [
        node
        for target in (QUANTIZE_PER_CHANNEL, QUANTIZE_GROUPS)
        for node in module.graph.find_nodes(op="call_function", target=target)
    ]
    for node in found:
        source, zeros = argument_value(node, "input"), argument_value(node, "zero_points")
        readers = {user for dequantize in node.users for user in dequantize.users}
        if readers <= lookups or (
            node.target is QUANTIZE_PER_CHANNEL and argument_value(node, "axis") != 0
        ):
            continue
        table, offsets = constant(module, source), constant(module, zeros)
        if table is not None and offsets is not None and not bool(offsets.any()):
            yield table, node


def _join(editor: Editor, node: Node, dequantize: Node, readers: _Readers) -> bool:
    """Let a planned lookup read the same as a layer that reads the table, if there is one."""
    own = argument_value(dequantize, "input")
    source = argument_value(own, "input")
    stored = id(editor.stored(source))
    other, in_float = readers.rows.get(stored), readers.floats.get(stored)
    if other is own:
        return False
    if other is None:
        if in_float is None:
            return False
        set_argument(node, "weight", source)
        set_annotation(node, None)
        message = f"{in_float.name} reads the table in float, so int8 would enlarge the model"
        editor.remark("missed", node.name, message, str(node.target))
    elif _integers(other) != _integers(own) or _group(other) > _group(own):
        return False
    else:
        for earlier in (*other.all_input_nodes, other):
            if node < earlier:
                node.prepend(earlier)
        target, args = DEQUANTIZE_PER_CHANNEL, (other, *qparams_of(other))
        if other.target is QUANTIZE_GROUPS:
            target, args = DEQUANTIZE_GROUPS, (*args, dequantize.meta["val"].dtype)
        made = editor.call(target, args, like=dequantize, before=node)
        set_argument(node, "weight", made)
    editor.erase_unused(dequantize)
    return True


def _integers(quantize: Node) -> tuple[Any, ...]:
    """Return range and dtype."""
    names = ("quant_min", "quant_max", "dtype")
    return tuple(argument_value(quantize, name) for name in names)


def _group(quantize: Node) -> float:
    """Return how many values of a row share a scale."""
    by_groups = quantize.target is QUANTIZE_GROUPS
    return int(argument_value(quantize, "group_size")) if by_groups else math.inf


def _share(editor: Editor, node: Node, quantize: Node) -> list[Node]:
    """Replace an embedding; return the nodes that replace it."""
    indices, scales = argument_value(node, "indices"), argument_value(quantize, "scales")
    for earlier in (*quantize.all_input_nodes, quantize):
        if node < earlier:
            node.prepend(earlier)
    made = [editor.call(_EMBEDDING, (quantize, indices), before=node)]
    made.append(editor.call(_TO, (made[-1], torch.float32), before=node))
    factors = editor.call(_INDEX, (scales, [indices]), before=node)
    factors = editor.call(_UNSQUEEZE, (factors, -1), before=node)
    made.append(editor.call(_MUL, (made[-1], factors), before=node))
    made[-1].meta["val"] = node.meta["val"]
    editor.replace(node, made[-1])
    return [*made, factors]
