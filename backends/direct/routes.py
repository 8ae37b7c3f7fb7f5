"""What else could compute a region: torch's own int8 operators, or float operators.

What was measured of these is known by what a region computes on which shapes, not by its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from quantfx.backends.direct.shapes import Untranslatable
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import constant
from quantfx.passes.quant.qdq import dequantizes, quantizes
from quantfx.patterns.schema import overload


def region_key(graph: GraphModule) -> str:
    """Return a name of what a region computes: its operators and the shapes of the capture."""
    text = "\n".join(_lines(graph))
    return f"region {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _lines(graph: GraphModule) -> Iterator[str]:
    places = {node: index for index, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        held = constant(graph, node)
        value: Any = node.meta.get("val") if held is None else held
        shape = (value.dtype, *value.shape) if isinstance(value, Tensor) else ()
        target = node.target if node.op == "call_function" else ""
        read = [places[each] for each in node.all_input_nodes]
        yield f"{node.op} {target} {read} {' '.join(map(str, shape))}"


def float_graph(graph: GraphModule) -> GraphModule:
    """Return the operators of a q/dq graph without its rounding; inputs and results are float.

    Weights are those of the q/dq graph, dequantized.

    Raises:
        Untranslatable: a constant cannot be dequantized here.
    """
    module = GraphModule(nn.Module(), Graph())
    copies: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        held = constant(graph, node)
        if quantizes(node) or (dequantizes(node) and node.args[0].op != "get_attr"):
            copies[node] = copies[node.args[0]]
        elif dequantizes(node):
            copies[node] = _stored(module, node.name, _dequantized(graph, node))
        elif held is not None:
            copies[node] = _stored(module, node.name, held)
        else:
            copies[node] = module.graph.node_copy(node, copies.__getitem__)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _stored(module: GraphModule, name: str, value: Tensor) -> Node:
    set_tensor(module, name, value)
    return module.graph.get_attr(name)


def _dequantized(graph: GraphModule, node: Node) -> Tensor:
    def value(each: Node) -> Tensor:
        held = constant(graph, each)
        if held is None:
            raise Untranslatable(node, f"{each.name} is not stored")
        return held.detach()

    args, kwargs = map_arg((node.args, node.kwargs), value)
    made: Tensor = overload(node)(*args, **kwargs)
    return made
