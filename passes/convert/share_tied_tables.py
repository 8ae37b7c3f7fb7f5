"""Let an embedding read the int8 rows of the layer that it is tied to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

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
from quantfx.passes.quant.qdq import QUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, resolve_op

_EMBEDDING = resolve_op("aten.embedding.default")
_INDEX = resolve_op("aten.index.Tensor")
_MUL = resolve_op("aten.mul.Tensor")
_TO = resolve_op("aten.to.dtype")
_UNSQUEEZE = resolve_op("aten.unsqueeze.default")


@dataclass(frozen=True)
class ShareTiedTables(GraphPass):
    """``embedding(w, i), linear(x, dq(q(w))) -> to(embedding(q(w), i)) * scales[i], linear(...)``.

    Of the models that tie a head to their table. Both read one int8 tensor then, as both read one
    float tensor before; else int8 would add to the model's size. An embedding that the config keeps
    float stays as it is.
    """

    name: ClassVar[str] = "share-tied-tables"
    optional: ClassVar[bool] = True
    counts: ClassVar[str] = "shared"
    requires: ClassVar[frozenset[str]] = frozenset({"qdq"})
    keeps_float: ClassVar[bool] = False  # the rows of the table are rounded

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Rewrite each embedding of a table that is quantized by rows elsewhere."""
        decisions = Decisions(context.recipe, editor.path) if context.recipe else None
        written = overwritten(editor.graph)
        shared = 0
        rows = {id(table): node for table, node in _find_quantized(editor.module)}
        for node in editor.graph.find_nodes(op="call_function", target=_EMBEDDING):
            table = argument_value(node, "weight")
            quantize = rows.get(id(editor.stored(table)))
            if quantize is None or table in written:
                continue
            if decisions is not None and decisions.of(node).mode == FLOAT:
                continue
            for made in _share(editor, node, quantize):
                editor.remark("applied", made.name, f"reads the rows of {quantize.args[0]}")
            shared += 1
        return shared


def _find_quantized(module: GraphModule) -> Iterator[tuple[Tensor, Node]]:
    """Yield the stored tensors that are quantized symmetrically by rows, each with its quantize."""
    for node in module.graph.find_nodes(op="call_function", target=QUANTIZE_PER_CHANNEL):
        source, zeros = argument_value(node, "input"), argument_value(node, "zero_points")
        if argument_value(node, "axis") != 0:
            continue
        table, offsets = constant(module, source), constant(module, zeros)
        if table is not None and offsets is not None and not bool(offsets.any()):
            yield table, node


def _share(editor: Editor, node: Node, quantize: Node) -> list[Node]:
    """Replace an embedding; return what stands for it."""
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
