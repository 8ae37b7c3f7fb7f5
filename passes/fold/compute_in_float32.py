"""Let a model in half precision compute in float32, as int8 kernels do around their integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.graph.graphs import all_graphs, constant, constants
from quantfx.passes.graph.remark import ModelRemark
from quantfx.passes.inputs.leaves import map_leaves
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.patterns.schema import is_operator_call, overload, resolve_op

HALF = frozenset({torch.float16, torch.bfloat16})
NARROW_KEY = "quantfx_narrow"
"""Meta key for the dtype of each tensor that was stored in half precision."""

_TO = resolve_op("aten.to.dtype")
_BITS = resolve_op("aten.view.dtype")


class ComputeInFloat32(Pass):
    """``linear(x_bf16, w_bf16) -> to(linear(to(x_bf16, float32), w_f32), bfloat16)``, at the edges.

    Inputs and results keep their dtype, everything between is float32: the model rounds less than
    before. ``store-in-half`` stores weights that stay float in half precision again. A graph that
    trains, writes to half-precision tensors or reads their bits is left unchanged.
    """

    name = "compute-in-float32"
    optional = True
    keeps_float = False  # it rounds less than the float graph

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite the graph and its nested graphs, if any of its inputs is in half precision."""
        graphs = list(all_graphs(module))
        if not any(_is_given(graph, node) for _, graph in graphs for node in graph.graph.nodes):
            return PassResult()
        if reason := _obstacle(module, [graph for _, graph in graphs]):
            return PassResult((ModelRemark(reason),))
        narrow: dict[str, torch.dtype] = {}
        wide: dict[int, Tensor] = {}
        edges = _edges(module)
        for path, graph_module in graphs:
            prefix = f"{path}." if path else ""
            for target, dtype in _widen_stored(graph_module, wide).items():
                narrow[prefix + target] = dtype
            for node in graph_module.graph.nodes:
                _widen(node)
        _cast_edges(Editor(module, self.name), edges)
        module.meta[NARROW_KEY] = narrow
        return PassResult(stats={"widened": len(narrow)})


def note_narrow(module: GraphModule, path: str, source: Node, made: Node) -> None:
    """Note that the tensor of ``made`` comes from the tensor of ``source``: as narrow, if exact.

    Args:
        module: The whole module.
        path: Path of the graph that holds both nodes.
        source: Reads the original tensor.
        made: Reads the new tensor.
    """
    narrow: dict[str, torch.dtype] = module.meta.get(NARROW_KEY, {})
    prefix = f"{path}." if path else ""
    dtype = narrow.get(f"{prefix}{source.target}")
    if dtype is not None:
        narrow[f"{prefix}{made.target}"] = dtype


def _is_given(module: GraphModule, node: Node) -> bool:
    if node.op == "get_attr":
        value = constant(module, node)
        return value is not None and value.dtype in HALF
    return node.op == "placeholder" and _is_half(node)


def _is_half(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype in HALF


def _obstacle(module: GraphModule, graphs: list[GraphModule]) -> str:
    """Return why the graph is left unchanged; empty if it is rewritten."""
    if TRAINABLE in facts_of(module):
        return "a model trains in its own precision"
    for graph_module in graphs:
        for node, writer in overwritten(graph_module.graph).items():
            if _is_half(node) and node.op in ("get_attr", "placeholder"):
                return f"{writer.name} writes to {node.name}, of half precision"
        for node in graph_module.graph.nodes:
            if node.target is _BITS and any(map(_is_half, (node, *node.all_input_nodes))):
                return f"{node.name} reads the bits of half precision"
            # An operator of another library may know half precision only.
            foreign = is_operator_call(node) and overload(node).namespace not in ("aten", "prims")
            if foreign and any(map(_is_half, (node, *node.all_input_nodes))):
                return f"{node.name} is given half precision"
            if "autocast" in str(node.target):
                return f"{node.name} decides on the precision"
    return ""


def _edges(module: GraphModule) -> list[tuple[Node, torch.dtype]]:
    """Return the graph's inputs and results in half precision, with their dtypes."""
    [output] = module.graph.find_nodes(op="output")
    nodes = [*module.graph.find_nodes(op="placeholder"), *output.all_input_nodes]
    return [(node, node.meta["val"].dtype) for node in nodes if _is_half(node)]


def _cast_edges(editor: Editor, edges: list[tuple[Node, torch.dtype]]) -> None:
    [output] = editor.graph.find_nodes(op="output")
    for node, dtype in edges:
        if node.op == "placeholder":
            value = node.meta["val"]
            readers = [user for user in node.users if user is not output]
            cast = editor.call(_TO, (node, torch.float32), after=node, val=value)
            node.meta["val"] = value.to(dtype)
            for reader in readers:
                reader.replace_input_with(node, cast)
        else:
            cast = editor.call(_TO, (node, dtype), like=node, before=output)
            output.replace_input_with(node, cast)


def _widen_stored(module: GraphModule, wide: dict[int, Tensor]) -> dict[str, torch.dtype]:
    """Store float32 in place of half precision; shared tensors stay shared."""
    found: dict[str, torch.dtype] = {}
    for node, value in constants(module):
        if value.dtype not in HALF:
            continue
        if id(value) not in wide:
            new = value.detach().float()
            is_parameter = isinstance(value, nn.Parameter)
            wide[id(value)] = nn.Parameter(new, requires_grad=False) if is_parameter else new
        found[str(node.target)] = value.dtype
        set_tensor(module, str(node.target), wide[id(value)])
    return found


def _widen(node: Node) -> None:
    def wider(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in HALF else value

    def in_float32(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value

    if node.op == "call_function":
        node.args = map_aggregate(node.args, wider)
        node.kwargs = map_aggregate(node.kwargs, wider)
    if "val" in node.meta:
        node.meta["val"] = map_leaves(in_float32, node.meta["val"])
