"""Turn linears whose weight alone is int8 into torch's kernel for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.annotation import annotation_of
from quantfx.passes.base import Context, Pass, PassResult
from quantfx.passes.editor import Editor
from quantfx.passes.graphs import all_graphs, attribute
from quantfx.passes.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.patterns.schema import argument_value, resolve_op

KERNEL = "_weight_int8pack_mm"
_MATMUL = resolve_op(f"aten.{KERNEL}.default")
_RESHAPE = resolve_op("aten.reshape.default")
_ADD = resolve_op("aten.add.Tensor")
_TYPE_AS = resolve_op("aten.type_as.default")
_SIZE = resolve_op("aten.sym_size.int")
_SLICE = resolve_op("aten.slice.Tensor")
_FEWEST_CHANNELS = 9
_LINEAR = resolve_op("aten.linear.default")


@dataclass(frozen=True)
class LowerWeightOnly(Pass):
    """``linear(x, dq(w), b) -> _weight_int8pack_mm(x, w, scales) + b`` where x is float.

    The kernel multiplies each float row with the int8 weights, sums, and scales the sum per output
    channel: ``y_n = s_n * sum_k x_k w_nk``. It takes two dimensions, so x is reshaped around it.
    """

    name: ClassVar[str] = "lower-weight-only"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite every linear whose template names this kernel."""
        lowered = 0
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            sizes = _Sizes(editor)
            for node in graph_module.graph.find_nodes(op="call_function", target=_LINEAR):
                annotation = annotation_of(node)
                weight = argument_value(node, "weight")
                planned = annotation is not None and annotation.kernel == KERNEL
                if planned and isinstance(weight, Node) and _fits(graph_module, weight):
                    _lower(editor, node, weight, sizes)
                    lowered += 1
            editor.drop_unused_attributes()
        return PassResult(lowered > 0, stats={"lowered": lowered})


def _fits(module: GraphModule, dequantize: Node) -> bool:
    """The kernel knows no zero points, and one scale for each row of the weight."""
    if dequantize.target is not DEQUANTIZE_PER_CHANNEL or dequantize.args[3] != 0:
        return False
    zero_points = dequantize.args[2]
    if not isinstance(zero_points, Node) or zero_points.op != "get_attr":
        return False
    value = attribute(module, str(zero_points.target))
    return isinstance(value, Tensor) and not bool(value.any())


class _Sizes:
    """The free sizes of a graph, each read once.

    torch 2.13: Dynamo takes a second ``sym_size`` of one symbol out of the graph it compiles, and
    is then out of step with its own list of nodes (IndexError at the next new size).
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        reads = editor.graph.find_nodes(op="call_function", target=_SIZE, sort=True)
        self._known = {str(node.meta["val"]): node for node in reversed(reads)}

    def read(self, size: object, x: Node, axis: int, node: Node) -> object:
        """Return dimension ``axis`` of ``x``, a number or a node in front of ``node``."""
        if isinstance(size, int):
            return size
        known = self._known.get(str(size))
        if known is not None and known < node:
            return known
        made = self._editor.call(_SIZE, (x, axis), like=node, before=node)
        if known is not None:
            self._editor.replace(known, made)
        self._known[str(size)] = made
        return made


def _lower(editor: Editor, node: Node, dequantize: Node, known: _Sizes) -> None:
    x = argument_value(node, "input")
    bias = argument_value(node, "bias")
    integers, scales = _padded(editor, node, dequantize)
    shape = node.meta["val"].shape
    sizes = [known.read(size, x, axis, node) for axis, size in enumerate(shape)]
    rows = editor.call(_RESHAPE, (x, [-1, x.meta["val"].shape[-1]]), like=node, before=node)
    # Under autocast x may come in bfloat16, and the kernel wants scales of x's dtype.
    alike = editor.call(_TYPE_AS, (scales, rows), like=node, before=node)
    product = editor.call(_MATMUL, (rows, integers, alike), like=node, before=node)
    if integers is not dequantize.args[0]:
        product = editor.call(_SLICE, (product, 1, 0, shape[-1]), like=node, before=node)
    result = editor.call(_RESHAPE, (product, sizes), like=node, before=node)
    if bias is not None:
        result = editor.call(_ADD, (result, bias), like=node, before=node)
    editor.replace(node, result)
    if not dequantize.users:
        editor.erase(dequantize)


def _padded(editor: Editor, node: Node, dequantize: Node) -> tuple[Node, Node]:
    """Return int8 weights and scales, of very few channels with rows of zeros added.

    torch 2.13: Inductor writes vectors of up to 8 constants into its loops, and then fails to pass
    them to this kernel.
    """
    sources = tuple(each for each in dequantize.args[:2] if isinstance(each, Node))
    integers, scales = sources
    values = [attribute(editor.module, str(each.target)) for each in sources]
    missing = _FEWEST_CHANNELS - len(values[1]) if isinstance(values[1], Tensor) else 0
    if missing <= 0:
        return integers, scales
    padded = [
        editor.constant(
            f"{source.target}_padded",
            torch.cat([value, value.new_zeros(missing, *value.shape[1:])]),
            like=source,
            before=node,
        )
        for source, value in zip(sources, values, strict=True)
        if isinstance(value, Tensor)
    ]
    return padded[0], padded[1]
