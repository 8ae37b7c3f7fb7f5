"""The graphs of a model that a quantizer is asked about, each on its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import attribute

# Operator -> positions of the graphs that hold its arithmetic. A loop's condition is not one.
_BODIES = {
    torch.ops.higher_order.scan: (0,),
    torch.ops.higher_order.while_loop: (1,),
    torch.ops.higher_order.cond: (1, 2),
    torch.ops.higher_order.wrap_with_autocast: (4,),
    torch.ops.higher_order.wrap_with_set_grad_enabled: (1,),
}


def quantizable_graphs(module: GraphModule, path: str = "") -> Iterator[tuple[str, GraphModule]]:
    """Yield ``(path, graph module)`` of the model and of each loop body, branch or region."""
    yield path, module
    for node in list(module.graph.nodes):
        for position in _BODIES.get(node.target, ()) if node.op == "call_function" else ():
            reference = node.args[position]
            if isinstance(reference, Node) and reference.op == "get_attr":
                target = str(reference.target)
                body = attribute(module, target)
                if isinstance(body, GraphModule):
                    yield from quantizable_graphs(body, f"{path}.{target}" if path else target)
