"""Inline regions that torch.export wraps because the model switches gradients off or on."""

from __future__ import annotations

import operator

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, referent
from quantfx.passes.pipeline.base import Context, Pass, PassResult

SET_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled


class InlineNoGrad(Pass):
    """``wrap_with_set_grad_enabled(False, region, x) -> the region's own nodes``.

    Inference does not depend on the gradient mode, and every quantizer that only looks at the top
    graph misses a hidden region.
    """

    name = "inline-no-grad"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Inline until no wrapped region is left, including branches and nested regions."""
        count = 0
        pending = [graph_module for _, graph_module in all_graphs(module)]
        while pending:
            graph_module = pending.pop()
            wrapped = graph_module.graph.find_nodes(op="call_function", target=SET_GRAD)
            for node in wrapped:
                _inline(Editor(graph_module, self.name), node)
                count += 1
            if wrapped:
                pending.append(graph_module)
        return PassResult(stats={"inlined": count})


def _inline(editor: Editor, call: Node) -> None:
    reference = call.args[1]
    if not isinstance(reference, Node):
        raise TypeError(f"{call.name} does not refer to a region")
    region = referent(editor.module, reference)
    if not isinstance(region, GraphModule):
        raise TypeError(f"{reference.target} is not a graph module")
    operands = iter(call.args[2:])
    copied: dict[Node, Node] = {}
    results: tuple[object, ...] = ()
    for node in region.graph.nodes:
        if node.op == "placeholder":
            copied[node] = next(operands)  # type: ignore[assignment]  # operands are nodes
        elif node.op == "output":
            results = map_arg(node.args[0], lambda n: copied[n])
        else:
            copied[node] = _copy(editor, region, node, copied, call)
    for user in list(call.users):
        if user.target is operator.getitem:
            editor.replace(user, results[user.args[1]])  # type: ignore[arg-type,index]  # a constant index
    editor.erase(call)
    if not reference.users:
        editor.erase(reference)


def _copy(
    editor: Editor, region: GraphModule, node: Node, copied: dict[Node, Node], call: Node
) -> Node:
    with editor.graph.inserting_before(call):
        if node.op == "get_attr":
            value = referent(region, node)
            if isinstance(value, GraphModule):
                target = f"{call.name}_{node.target}"
                editor.module.add_submodule(target, value)
                new = editor.graph.get_attr(target)
                new.meta = dict(node.meta)
                return new
            if isinstance(value, torch.Tensor):
                return editor.constant(str(node.target), value, like=node, before=call)
        return editor.graph.node_copy(node, lambda n: copied[n])
