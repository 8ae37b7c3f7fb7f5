"""Other routes to compute a region: torch's int8 operators, or float operators.

Measured times are keyed by the region's computation and layouts (not its weights), and by the
versions of torch and of the runtime's sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from quantfx.backends.direct.rules.shapes import Untranslatable, shapes_of
from quantfx.backends.direct.runtime.library import core_digest
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import constant
from quantfx.passes.quant.qdq import dequantizes, has_qparams, quantizes
from quantfx.patterns.schema import overload, resolve_op

_TO_DTYPE = resolve_op("aten.to.dtype")


def region_key(graph: GraphModule, layouts: Sequence[Tensor]) -> str:
    """Return a key for the computation of a region on inputs of the given layouts.

    Args:
        graph: Graph of the region.
        layouts: Tensors on device meta, one for each input.

    Raises:
        Untranslatable: torch refuses an operator for these layouts.
    """
    text = "\n".join([torch.__version__, core_digest(), *_lines(graph, layouts)])
    return f"region {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def captured_layout(node: Node) -> Tensor:
    """Return the layout that ``node`` was captured with, with free sizes as in the example."""
    value = node.meta["val"]
    shape, stride = (
        [each if isinstance(each, int) else _then(each) for each in sizes]
        for sizes in (value.shape, value.stride())
    )
    return torch.empty_strided(shape, stride, dtype=value.dtype, device="meta")


def _then(size: torch.SymInt) -> int:
    from torch.fx.experimental.symbolic_shapes import optimization_hint

    return int(optimization_hint(size))


def layouts_of(graph: GraphModule, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the layouts of inputs; the captured ones if sizes and dtypes are the same.

    An earlier region may lay inputs out differently, but regions are formed by captured layouts.
    """
    found: list[Tensor] = []
    for node, x in zip(graph.graph.find_nodes(op="placeholder"), inputs, strict=True):
        given = layout_of(x)
        then = captured_layout(node) if "val" in node.meta else given
        same = (then.shape, then.dtype) == (given.shape, given.dtype)
        found.append(then if same else given)
    return found


def _lines(graph: GraphModule, layouts: Sequence[Tensor]) -> Iterator[str]:
    shapes = shapes_of(graph, layouts)
    places = {node: f"%{index}" for index, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        form = shapes.get(node)
        layout = "" if form is None else f"{form.dtype} {list(form.shape)} {form.stride()}"
        if node.op != "call_function":
            yield f"{node.op} {layout}"
            continue
        # Scales and zero points differ between layers, and cost the same.
        given = node.all_input_nodes if has_qparams(node) else (node.args, node.kwargs)
        yield f"{node.target} {map_arg(given, places.__getitem__)} {layout}"


def float_graph(graph: GraphModule, layouts: Sequence[Tensor]) -> GraphModule:
    """Return a q/dq graph without its rounding; inputs and results are float.

    Weights are the q/dq graph's, dequantized. Inputs of quantizes that are bfloat16 are cast to
    float32, the dtype that a dequantize yields.

    Args:
        graph: Graph of the region.
        layouts: Tensors on device meta, one for each input.

    Raises:
        Untranslatable: a constant cannot be dequantized here, or torch refuses an operator for
            these layouts.
    """
    shapes = shapes_of(graph, layouts)
    module = GraphModule(nn.Module(), Graph())
    copies: dict[Node, Node] = {}
    for node in graph.graph.nodes:
        held = constant(graph, node)
        if quantizes(node) or (dequantizes(node) and node.args[0].op != "get_attr"):
            copies[node] = copies[node.args[0]]
            if shapes[node.args[0]].dtype == torch.bfloat16:
                given = (copies[node], torch.float32)
                copies[node] = module.graph.call_function(_TO_DTYPE, given)
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
