"""The graphs of a model that a quantizer annotates, one by one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import attribute

# Maps an operator to the positions of its graphs with arithmetic, which excludes a loop's
# condition.
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
