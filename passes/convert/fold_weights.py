"""Quantize or narrow constant weights ahead of time, so that the graph does not hold the floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.convert.scale_remarks import half_loss_reason
from quantfx.passes.errors import SpecError
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.dtypes import dtype_name
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import constant, referent
from quantfx.passes.graph.remark import ScaleRemark
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.qdq import (
    CAST,
    QUANTIZE_GROUPS,
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_TENSOR,
    dtype_of,
)
from quantfx.patterns.schema import overload

_QUANTIZE = (QUANTIZE_PER_CHANNEL, QUANTIZE_GROUPS, QUANTIZE_PER_TENSOR)


@dataclass(frozen=True)
class FoldWeights(GraphPass):
    """``q(weight) -> weight_s8``, a constant; the narrowing half of a cast likewise.

    A buffer that the graph writes to is not constant.

    Attributes:
        casts: Whether to fold casts.
    """

    casts: bool = True

    name = "fold-weights"
    counts = "folded"
    requires = frozenset({"qdq"})
    provides = frozenset({"weights-folded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Fold each quantize whose tensor is a parameter or buffer."""
        folded = 0
        written = {n.target for n in overwritten(editor.graph) if n.op == "get_attr"}
        for target in (*_QUANTIZE, CAST) if self.casts else _QUANTIZE:
            for node in editor.graph.find_nodes(op="call_function", target=target):
                source = node.args[0]
                if not isinstance(source, Node) or source.target in written:
                    continue
                if _folds(editor.module, node, source):
                    _fold(editor, node, source)
                    folded += 1
        return folded


def _folds(module: GraphModule, node: Node, source: Node) -> bool:
    """Whether ``node`` reads a constant, and is not the widening half of a cast."""
    value = constant(module, source)
    if value is None:
        return False
    return node.target is not CAST or dtype_of(node).itemsize < value.element_size()


def _fold(editor: Editor, node: Node, source: Node) -> None:
    def value(argument: Node) -> Any:
        return referent(editor.module, argument)

    with torch.no_grad():
        integers = overload(node)(*map_arg(node.args, value))
    if not isinstance(integers, Tensor):
        raise TypeError(f"{node.name} does not yield a tensor")
    if node.target is CAST:
        _require_finite(integers, source)
        if reason := half_loss_reason(value(source), integers):
            editor.remarks.append(ScaleRemark(str(source.target), reason))
    suffix = dtype_name(dtype_of(node))
    integers = integers.contiguous()  # kernels pack rows, but a stored weight may be a view
    constant = editor.constant(f"{source.target}_{suffix}", integers, like=source, before=node)
    constant.meta["val"] = node.meta.get("val")
    editor.replace(node, constant)


def _require_finite(narrow: Tensor, source: Node) -> None:
    """Refuse weights with values beyond the range of the narrower float dtype."""
    if not bool(torch.isfinite(narrow).all()):
        largest = torch.finfo(narrow.dtype).max
        raise SpecError(
            f"weight '{source.target}' has values beyond +-{largest:g}, the range "
            f"of {narrow.dtype}",
            rule="half-range",
            site=str(source.target),
            fix="keep its module float, Config().module(..., None)",
        )
