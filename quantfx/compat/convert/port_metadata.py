"""Note on every inserted operator which of the model's operators it belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node
from torch.fx.traceback import NodeSource, NodeSourceAction

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated
from quantfx.passes.quant.qdq import (
    QUANTIZE_DYNAMIC,
    dequantizes,
    finds_range,
    has_qparams,
    quantizes,
)

TAG = "quantization_tag"
_PORTED = ("stack_trace", "nn_module_stack", TAG)


class PortMetadata(Pass):
    """``[q -> dq] -> conv -> [q -> dq]``: q/dq before and after an operator belong to it.

    1. A dequantize belongs to its reader, a quantize to the annotated operator whose result it
       reads, a quantize of a stored tensor to that tensor.
    2. Operators that find a range in each call belong to the reader, with their q/dq.
    3. Operators that belong to no annotated operator have no tag.

    ``from_node`` says that conversion made them.
    """

    name = "port-metadata"
    requires = frozenset({"qdq"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Write meta; the graph itself stays."""
        for _, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                if has_qparams(node) or finds_range(node):
                    _start(node)
            for node, annotation in annotated(graph_module.graph):
                _port_around(node, annotation)
        return PassResult()


def _start(node: Node) -> None:
    node.meta.pop(TAG, None)
    source = node.args[0]
    if isinstance(source, Node):
        if source.op == "get_attr" and TAG in source.meta:
            node.meta[TAG] = source.meta[TAG]
        made = NodeSource(source, "convert_pt2e", [NodeSourceAction.CREATE])
        node.meta["from_node"] = [made]


def _port_around(node: Node, annotation: Annotation) -> None:
    for slot, _ in annotation.inputs:
        for inserted in _in_front(read_slot(node, slot)):
            _port(node, inserted)
    if annotation.output is not None:
        for user in node.users:
            if quantizes(user):
                _port(node, user)


def _in_front(dequantize: Node) -> Iterator[Node]:
    if not dequantizes(dequantize):
        return
    yield dequantize
    quantize = dequantize.args[0]
    if isinstance(quantize, Node) and quantize.target is QUANTIZE_DYNAMIC:
        yield quantize
        yield from filter(finds_range, quantize.all_input_nodes[1].all_input_nodes)


def _port(source: Node, target: Node) -> None:
    for key in _PORTED:
        if key in source.meta:
            target.meta[key] = source.meta[key]
