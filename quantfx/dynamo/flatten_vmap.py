"""Rewrite regions of ``torch.vmap`` as operators on whole batches."""

from __future__ import annotations

import operator
from collections.abc import Iterator

from torch import nn
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx

from quantfx.passes.errors import CaptureError
from quantfx.passes.graph.clone import clone_as

_BEGIN, _END = "_increment_nesting", "_decrement_nesting"
_VMAP = "_vmap" + _BEGIN


def flatten_vmap(module: GraphModule) -> GraphModule:
    """Return a graph without regions of ``vmap``; ``module`` itself if it has none.

    Tensors in such a region hide a dimension from tracers that run before operators are dispatched,
    which would make constants of its results. After dispatch its operators are ordinary, so each
    region becomes a submodule that is traced there.

    Args:
        module: Dynamo's graph with its example values; not changed.

    Raises:
        CaptureError: it has a region of another transform, such as ``torch.func.grad``.
    """
    regions = list(_regions(module.graph))
    for region in regions:
        begin = _name(region[0])
        if begin != _VMAP:
            kind = begin.removesuffix(_BEGIN).strip("_")
            raise CaptureError(
                f"the model uses the transform '{kind}' of torch.func, which no graph of "
                "operators holds",
                rule="no-transform",
                site=kind,
                fix="apply quantfx to the model without it",
            )
    if not regions:
        return module
    flat = clone_as(module, GraphModule)
    same = dict(zip(module.graph.nodes, flat.graph.nodes, strict=True))
    for number, region in enumerate(regions):
        _replace(flat, [same[node] for node in region], number)
    flat.recompile()
    return flat


def _regions(graph: Graph) -> Iterator[list[Node]]:
    region: list[Node] = []
    depth = 0
    for node in graph.nodes:
        depth += _name(node).endswith(_BEGIN)
        if depth:
            region.append(node)
        if _name(node).endswith(_END):
            depth -= 1
            if not depth:
                yield region
                region = []


def _name(node: Node) -> str:
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _replace(module: GraphModule, region: list[Node], number: int) -> None:
    inside = set(region)
    read = dict.fromkeys(each for node in region for each in node.all_input_nodes)
    given = [node for node in read if node not in inside]
    made = [node for node in region if any(user not in inside for user in node.users)]
    name = f"vmap_{number}"
    module.add_module(name, _trace(module, region, given, made))
    with module.graph.inserting_before(region[0]):
        call = module.graph.call_module(name, tuple(given))
        call.meta = dict(region[0].meta)
        for place, node in enumerate(made):
            item = module.graph.call_function(operator.getitem, (call, place))
            item.meta = dict(node.meta)
            node.replace_all_uses_with(item, delete_user_cb=lambda user: user not in inside)
    for node in reversed(region):
        module.graph.erase_node(node)


def _trace(
    module: nn.Module, region: list[Node], given: list[Node], made: list[Node]
) -> GraphModule:
    graph = Graph()
    copies = {node: graph.placeholder(node.name) for node in given}
    for node in region:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in made))
    mapped = Interpreter(GraphModule(module, graph))
    return make_fx(mapped.run)(*(node.meta["example_value"] for node in given))
